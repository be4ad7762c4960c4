// @gradio/client 2.7.0, to the app of `millrace demo`.
import { Client } from "@gradio/client";

const options = { events: ["data", "status"] };

async function texts(url, endpoint, asked) {
  const app = await Client.connect(url, options);
  const found = [];
  for await (const message of app.submit(endpoint, asked)) {
    if (message.type === "data") found.push(message.data[0]);
    if (message.type === "status" && message.stage === "error") throw new Error(message.message);
  }
  app.close();
  return found;
}

async function cancel(url) {
  const app = await Client.connect(url, options);
  const job = app.submit("/complete", { prompt: "Tell me", max_new_tokens: 500 });
  let count = 0;
  for await (const message of job) {
    if (message.type === "data") count += 1;
    if (count === 2) {
      await job.cancel();
      break;
    }
  }
  app.close();
  return count;
}

export const cases = {
  iterate: (url) => texts(url, "/complete", { prompt: "Tell me", max_new_tokens: 12 }),
  count: (url) => texts(url, "/count", { n: 3 }),
  cancel,
};
