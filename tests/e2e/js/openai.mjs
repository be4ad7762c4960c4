// openai 6.49.
import OpenAI from "openai";

const prompt = "What is the capital of France?";
const messages = [{ role: "user", content: prompt }];
const model = "tgi";
const client = (url, maxRetries = 0) =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey: "-", maxRetries });
const turn = { model, input: prompt, max_output_tokens: 200, temperature: 0 };
const greedy = { model, max_tokens: 8, temperature: 0 };

const asked = (words) => ({
  model,
  messages: [{ role: "user", content: words }],
  max_tokens: 9,
});

async function collect(stream) {
  const events = [];
  for await (const event of await stream) events.push(event);
  return events;
}

export const cases = {
  ask: (url, words) => client(url).chat.completions.create(asked(words)),
  askStream: (url, words) =>
    collect(client(url).chat.completions.create({ ...asked(words), stream: true })),
  whole: (url) => client(url).completions.create({ ...greedy, prompt }),
  stream: (url) => collect(client(url).completions.create({ ...greedy, prompt, stream: true })),
  chat: (url) => client(url).chat.completions.create({ ...greedy, messages }),
  chatStream: (url) =>
    collect(client(url).chat.completions.create({ ...greedy, messages, stream: true })),
  helper: (url) => client(url).chat.completions.stream({ ...greedy, messages }).finalContent(),
  response: (url) => client(url).responses.create(turn),
  responseStream: (url) => collect(client(url).responses.create({ ...turn, stream: true })),
  responseHelper: (url) => client(url).responses.stream(turn).finalResponse(),
  unknownModel: (url) => client(url).models.retrieve("no/such-model"),
  retried: (url) => client(url, 1).completions.create({ ...greedy, prompt }),
  abort: (url) => leave(url, (stream) => stream.controller.abort()),
  breakOut: (url) => leave(url),
};

async function leave(url, abort) {
  const asked = { model, messages, max_tokens: 4000, ignore_eos: true, stream: true };
  const stream = await client(url).chat.completions.create(asked);
  let count = 0;
  for await (const _ of stream) {
    count += 1;
    if (!abort) break;
    abort(stream);
  }
  return count;
}
