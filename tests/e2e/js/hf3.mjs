// @huggingface/inference 3.15.0, the last that speaks TGI's own routes.
import { HfInference } from "hf3";

const inputs = "What is the capital of France?";
const messages = [{ role: "user", content: inputs }];
const endpoint = (url) => new HfInference().endpoint(url);

const asked = (words) => ({ inputs: words, parameters: { max_new_tokens: 9 } });

async function collect(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

export const cases = {
  ask: (url, words) => endpoint(url).textGeneration(asked(words)),
  askStream: (url, words) => collect(endpoint(url).textGenerationStream(asked(words))),
  whole: (url) => endpoint(url).textGeneration({ inputs, parameters: { max_new_tokens: 8 } }),
  stream: (url) =>
    collect(endpoint(url).textGenerationStream({ inputs, parameters: { max_new_tokens: 8 } })),
  chat: (url) => endpoint(url).chatCompletion({ messages, max_tokens: 8, temperature: 0 }),
  chatStream: (url) =>
    collect(endpoint(url).chatCompletionStream({ messages, max_tokens: 8, temperature: 0 })),
  abort: (url) => abort(url),
};

async function abort(url) {
  const controller = new AbortController();
  // so that the end token does not come soon
  const parameters = { max_new_tokens: 4000, do_sample: true, temperature: 100 };
  const options = { signal: controller.signal };
  for await (const _ of endpoint(url).textGenerationStream({ inputs, parameters }, options)) {
    controller.abort();
  }
}
