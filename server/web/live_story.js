// One request in words and numbers: the sentence that says why it took its time, and its spans.

import { make } from "./dom.js";

const SPANS = [
  ["validation_ms", "Checking", "checking"],
  ["queue_ms", "Waiting", "waiting"],
  ["prefill_ms", "Prompt", "prompt"],
  ["decode_ms", "Tokens", "flow"],
  ["sending_ms", "Sending", "sending"],
];

/** Write a duration as a person would. */
export function duration(ms) {
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  return ms < 99_950 ? `${(ms / 1000).toFixed(ms < 9_995 ? 2 : 1)} s` : `${Math.round(ms / 1000)} s`;
}

export class Story {
  constructor() {
    this.element = make("div", { class: "card story", id: "live-story" });
    this.clear();
  }

  clear() {
    this.element.replaceChildren(
      make("p", { class: "hint" }, "Choose a request, here or in the lists below, to see why it took its time."),
    );
  }

  /** Show a request, open or ended; `now` on the server's clock. */
  show(request, now) {
    const { story, number, route } = request;
    const title = make("h3", {}, `Request ${number} `, make("span", { class: "quiet" }, route));
    if (story === null) {
      this.element.replaceChildren(title, make("p", { class: "sentence" }, sofar(request, now)));
      return;
    }
    this.element.replaceChildren(
      title,
      make("p", { class: "sentence" }, story.why),
      ...(story.num_sequences ? [spans(story), numbers(story)] : []),
    );
  }
}

function sofar(request, now) {
  const age = duration(Math.max(0, now - request.arrived));
  const prompt = `${request.numPrompt} prompt tokens`;
  switch (request.state) {
    case "arriving": return `It came ${age} ago and is being read, checked and encoded.`;
    case "waiting": return `It came ${age} ago and waits with its ${prompt} for its first step.`;
    case "reading the prompt": return `It came ${age} ago; its ${prompt} are being computed, ${request.numCached} came from the cache.`;
    case "in its generator": return `It came ${age} ago and is served by a generator, not by the model.`;
    case "generating": return `It came ${age} ago and has ${request.numTokens.toLocaleString("en")} tokens by now.`;
    default: return "It has ended; how was not told.";
  }
}

function spans(story) {
  const bar = make("div", { class: "spans", "aria-hidden": "true" });
  const list = make("ul", { class: "key-list", "aria-label": "What the time was spent with" });
  for (const [field, name, kind] of SPANS) {
    const ms = story[field];
    if (ms < 0.05) continue;
    const piece = make("span", { class: kind });
    piece.style.flexGrow = Math.max(ms / story.total_ms, 0.004);
    bar.append(piece);
    list.append(make("li", { class: kind }, `${name} ${duration(ms)}`));
  }
  return make("div", {}, bar, list);
}

function numbers(story) {
  const pairs = [
    ["Prompt", `${story.num_prompt_tokens.toLocaleString("en")} tokens`],
    ["From the cache", `${story.num_cached_tokens.toLocaleString("en")} tokens`],
    ["Generated", `${story.num_generated_tokens.toLocaleString("en")} tokens`],
    ["Speed", story.tokens_per_s === null ? "–" : `${story.tokens_per_s.toFixed(1)} a second`],
    ["Set aside", story.num_preempted ? `${story.num_preempted} times` : "never"],
    ["Status", `${story.status}, ${story.reasons.join(", ").replaceAll("_", " ")}`],
  ];
  const list = make("dl", { class: "facts" });
  for (const [name, value] of pairs) {
    list.append(make("div", {}, make("dt", {}, name), make("dd", { class: "number" }, value)));
  }
  return list;
}
