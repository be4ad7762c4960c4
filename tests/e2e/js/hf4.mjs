// @huggingface/inference 4.13.30: text generation goes to /v1/completions.
import { InferenceClient } from "hf4";

const inputs = "What is the capital of France?";
const messages = [{ role: "user", content: inputs }];
const endpoint = (url) => new InferenceClient().endpoint(url);
const parameters = { max_new_tokens: 8, do_sample: false };
const asked = (words) => ({ messages: [{ role: "user", content: words }], max_tokens: 9 });

async function collect(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

export const cases = {
  ask: (url, words) => endpoint(url).chatCompletion(asked(words)),
  askStream: (url, words) => collect(endpoint(url).chatCompletionStream(asked(words))),
  whole: (url) => endpoint(url).textGeneration({ inputs, parameters }),
  stream: (url) => collect(endpoint(url).textGenerationStream({ inputs, parameters })),
  chat: (url) => endpoint(url).chatCompletion({ messages, max_tokens: 8, temperature: 0 }),
  chatStream: (url) =>
    collect(endpoint(url).chatCompletionStream({ messages, max_tokens: 8, temperature: 0 })),
  abort: (url) => abort(url),
};

async function abort(url) {
  const controller = new AbortController();
  const asked = { messages, max_tokens: 4000, ignore_eos: true };
  const options = { signal: controller.signal };
  for await (const _ of endpoint(url).chatCompletionStream(asked, options)) {
    controller.abort();
  }
}
