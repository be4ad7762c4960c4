// @huggingface/inference 2.8.1, as the page of TGI on consuming it shows.
import { HfInferenceEndpoint } from "hf2";

const inputs = "What is the capital of France?";
// Without a model this version asks the hub for the default one of the task, endpoint or not.
const model = "tgi";

const endpoint = (url) => new HfInferenceEndpoint(url, "hf_token");

async function stream(url, more) {
  const events = [];
  for await (const event of endpoint(url).textGenerationStream({ inputs, ...more })) {
    events.push(event);
  }
  return events;
}

const parameters = { max_new_tokens: 8 };

export const cases = {
  stream: (url) => stream(url, { model, parameters }),
  nameless: (url) => stream(url, { parameters }),
  whole: (url) => endpoint(url).request({ inputs, model, parameters }),
};
