// One answer: its tokens as they come, what it took, how much of its prompt was cached, how it ended.

import { isAbort } from "./api.js";
import { make } from "./dom.js";
import { notice } from "./notice.js";
import { promptParts } from "./requests.js";
import { TokenView } from "./tokens.js";

const PENDING = "…";
const REASONS = {
  length: "the limit of tokens",
  eos_token: "the model's own end",
  stop_sequence: "a stop string",
  stop: "the model's own end, or a stop string",
};

export class Answer {
  constructor(client, card, say) {
    this.client = client;
    this.say = say;
    this.view = new TokenView(card, "Answer");
    this.thoughtView = new TokenView(card, "Thoughts");
    this.thoughts = make("details", { class: "thoughts" },
      make("summary", {}, "Thoughts"), this.thoughtView.element);
    this.problem = make("div", { class: "problem" });
    this.stats = make("dl", { class: "stats" });
    this.prompt = make("details", { class: "prompt-read", hidden: true });
    this.element = make("div", { class: "answer stack tight", hidden: true },
      this.view.element, this.problem, this.stats, this.prompt);
  }

  /** What was said, without what was thought. */
  get text() {
    return this.view.text;
  }

  get #numTokens() {
    return this.view.tokens.length + this.thoughtView.tokens.length;
  }

  /**
   * Send a request and show its answer; tells whether it came to its end.
   *
   * With `isAgain` what was shown stays until the first token is there: a retry that fails loses
   * nothing, and a page that re-runs at each keystroke does not flicker.
   */
  async run(request, signal, retry, isAgain) {
    this.#begin(isAgain);
    try {
      for await (const { data, at } of this.client.stream(request.path, request.body, { signal })) {
        if (signal.aborted) break;
        this.#add(request.read(data), at);
      }
      if (!signal.aborted) this.#finished(request);
    } catch (error) {
      if (!signal.aborted && !isAbort(error)) this.#failed(error, retry);
    }
    if (!signal.aborted) this.view.element.classList.remove("running");
    return !signal.aborted && this.finish.reason !== undefined;
  }

  /** Say that the reader stopped it. */
  stopped() {
    this.view.element.classList.remove("running");
    this.#tell("Ended", "stopped by you");
    this.#settle();
    this.say(`Stopped after ${this.#numTokens} tokens.`);
  }

  /** Say what the cache saved, as it was measured. */
  saved(uncachedMs) {
    const saved = uncachedMs - this.firstMs;
    const parts = `cached ${this.firstMs.toFixed(1)} ms, uncached ${uncachedMs.toFixed(1)} ms`;
    this.#tell("Saved", `${saved.toFixed(1).replace("-", "−")} ms (${parts})`);
  }

  /** Say why that was not measured. */
  notSaved(error) {
    this.#tell("Saved", `not measured: ${error.message}`);
  }

  #begin(isAgain) {
    if (!isAgain) {
      this.#clear();
      this.stats.replaceChildren();
      this.prompt.hidden = true;
    }
    this.problem.replaceChildren();
    this.element.hidden = false;
    this.view.element.classList.add("running");
    Object.assign(this, { finish: {}, firstMs: null, startedAt: performance.now() });
  }

  #add({ tokens, finish }, at) {
    Object.assign(this.finish, finish);
    if (!tokens.length) return;
    if (this.firstMs === null) this.#first(at);
    for (const token of tokens) this.#append(token);
    this.lastAt = at;
    this.#tell("Tokens", this.#numTokens);
  }

  // Thoughts are open while they come, and fold up when the answer begins.
  #append(token) {
    if (token.isThought) {
      if (!this.thoughts.isConnected) this.#showThoughts();
      this.thoughtView.append(token);
      return;
    }
    if (token.text && !this.text) this.thoughts.open = false;
    this.view.append(token);
  }

  #clear() {
    this.view.clear();
    this.thoughtView.clear();
    this.thoughts.remove();
  }

  #showThoughts() {
    this.thoughts.open = true;
    this.view.element.before(this.thoughts);
  }

  #first(at) {
    this.#clear();
    for (const value of this.stats.querySelectorAll("dd")) value.textContent = PENDING;
    this.firstMs = at - this.startedAt;
    this.#tell("First token", `${this.firstMs.toFixed(1)} ms`);
  }

  // Drop the numbers of an earlier run that this one has not.
  #settle() {
    for (const entry of [...this.stats.children]) {
      if (entry.lastChild.textContent === PENDING) entry.remove();
    }
  }

  #finished(request) {
    const { reason, numTokens, seed } = this.finish;
    const seconds = (this.lastAt - this.startedAt - this.firstMs) / 1000;
    this.#tell("Tokens", numTokens);
    if (numTokens > 1 && seconds > 0) {
      this.#tell("Speed", `${Math.round((numTokens - 1) / seconds)} tokens/s`);
    }
    this.#tell("Ended", `${reason}: ${REASONS[reason] ?? "as the server says"}`);
    if (seed != null) this.#tell("Seed", seed);
    this.#settle();
    this.#showPrompt(request);
    this.say(`Finished: ${numTokens} tokens.`);
  }

  #failed(error, retry) {
    this.problem.replaceChildren(notice(error, this.#numTokens, retry));
  }

  #tell(name, value) {
    const known = this.stats.querySelector(`[data-name="${name}"] dd`);
    if (known) known.textContent = value;
    else {
      this.stats.append(make("div", { "data-name": name }, make("dt", {}, name), make("dd", { class: "number" }, value)));
    }
  }

  // The text is fetched when it is looked at; in a page of re-runs it would cost a request a key.
  #showPrompt(request) {
    const { numCached, numPrompt } = this.finish;
    const said = `${numCached} of ${numPrompt} prompt tokens came from the cache`;
    const text = make("p", { class: "prompt-text" });
    const isOpen = this.prompt.open;
    this.prompt.replaceChildren(make("summary", {}, said), share(numCached / numPrompt), text);
    this.prompt.hidden = false;
    const fill = () => this.prompt.open && !text.hasChildNodes() && this.#fillPrompt(text, request, numCached);
    this.prompt.ontoggle = fill;
    if (isOpen) fill();
  }

  async #fillPrompt(text, request, numCached) {
    try {
      const { dropped, cached, computed } = await promptParts(this.client, request, numCached);
      text.replaceChildren(
        ...(dropped ? [make("del", {}, dropped)] : []), make("mark", {}, cached), make("span", {}, computed));
    } catch (error) {
      text.replaceChildren(`The prompt's tokens are not known: ${error.message}`);
    }
  }
}

function share(value) {
  return make("progress", { value, max: 1, "aria-label": "Share of the prompt that was cached" });
}
