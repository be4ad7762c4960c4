// What the playground sends, and how it reads what comes: one form for both kinds of routes.
//
// A step is `{tokens, finish}`: tokens as `{text, raw, logprob, isSpecial, isThought, top}`, and at the end
// what is known of it, `{reason, numTokens, numPrompt, numCached, seed}`, perhaps in parts.

/** Continue a text: TGI's route, whose logprobs are those of the distribution sampled from. */
export function promptRequest(prompt, parameters) {
  return {
    path: "/generate_stream",
    body: { inputs: prompt, parameters: { details: true, ...parameters } },
    tokenize: { path: "/tokenize", body: { inputs: prompt } },
    truncate: parameters.truncate,
    read: readNative,
  };
}

/** Answer in a chat: OpenAI's route, whose logprobs are the model's own. */
export function chatRequest(model, messages, parameters) {
  const fixed = { model, messages, stream: true, stream_options: { include_usage: true }, logprobs: true };
  return {
    path: "/v1/chat/completions",
    body: { ...fixed, ...parameters },
    tokenize: { path: "/chat_tokenize", body: { messages } },
    truncate: parameters.truncate,
    read: readChat,
  };
}

/** The same prompt for one token only, without the prefix cache. */
export function uncached(request) {
  const { min_new_tokens, ...parameters } = request.body.parameters;
  const body = { ...request.body, parameters: { ...parameters, max_new_tokens: 1, prefix_caching: false } };
  return { ...request, body };
}

/** Milliseconds until the first token is here. */
export async function firstTokenMs(client, request, signal) {
  const started = performance.now();
  for await (const { data, at } of client.stream(request.path, request.body, { signal })) {
    if (request.read(data).tokens.length) return at - started;
  }
  return performance.now() - started;
}

/** The prompt as the model read it, in three parts: cut off, taken from the cache, computed. */
export async function promptParts(client, request, numCached) {
  const answer = await client.post(request.tokenize.path, request.tokenize.body);
  const spans = answer.tokenize_response ?? answer;
  const text = new TextEncoder().encode(answer.templated_text ?? request.body.inputs);
  const kept = request.truncate ? spans.slice(-request.truncate) : spans;
  const start = kept[0]?.start ?? 0;
  const end = Math.max(start, ...kept.slice(0, numCached).map((span) => span.stop));
  const part = (from, to) => new TextDecoder().decode(text.slice(from, to));
  return { dropped: part(0, start), cached: part(start, end), computed: part(end) };
}

function readNative({ token, top_tokens: top = [], details }) {
  const finish = details && {
    reason: details.finish_reason,
    numTokens: details.generated_tokens,
    numPrompt: details.input_length,
    numCached: details.cached_tokens,
    seed: details.seed,
  };
  return { tokens: [nativeToken(token, top)], finish: finish ?? {} };
}

function nativeToken({ text, logprob, special }, top) {
  return { text, raw: text, logprob, isSpecial: special, top };
}

function readChat({ choices, usage }) {
  const [choice] = choices;
  const entries = choice?.logprobs?.content ?? [];
  const thought = choice?.delta.reasoning_content;
  const text = thought ?? choice?.delta.content ?? "";
  const tokens = entries.map((entry) => chatToken(entry, text));
  if (!entries.length && text) tokens.push(held(text));
  for (const token of tokens) token.isThought = thought !== undefined;
  return { tokens, finish: { ...chatReason(choice), ...chatUsage(usage) } };
}

function chatToken({ token, logprob, top_logprobs: top }, text) {
  return { text, raw: token, logprob, isSpecial: false, top: top.map((other) => ({ ...other, text: other.token })) };
}

// What was held back, since it might have been a call, comes without a token of its own.
function held(text) {
  return { text, raw: text, logprob: null, isSpecial: false, top: [] };
}

function chatReason(choice) {
  return choice?.finish_reason ? { reason: choice.finish_reason } : {};
}

function chatUsage(usage) {
  return usage ? {
    numTokens: usage.completion_tokens,
    numPrompt: usage.prompt_tokens,
    numCached: usage.prompt_tokens_details.cached_tokens,
  } : {};
}
