// Why streaming: one request sent twice at once, streamed and whole, and what the reader gains.

import { axis } from "./why_chart.js";
import { account, gain, gainUntil } from "./why_gain.js";
import { notice } from "./notice.js";
import { Side } from "./why_side.js";

const SEED = 1;
/** The same dice on both sides, for a server that throws any. */

export function mount(section, app) {
  new Why(app);
}

class Why {
  constructor({ client, info }) {
    this.client = client;
    this.running = null; // the AbortController of the run
    this.form = document.getElementById("why-form");
    this.prompt = document.getElementById("why-prompt");
    this.length = document.getElementById("why-length");
    this.mostTokens = info.max_total_tokens;
    this.length.max = info.max_total_tokens;
    this.sendButton = this.form.querySelector("[type=submit]");
    this.stopButton = document.getElementById("why-stop");
    this.said = document.getElementById("why-gain");
    this.detail = document.getElementById("why-detail");
    this.problem = document.getElementById("why-problem");
    this.streamed = new Side("Streamed", { path: "/generate_stream", waiting: "Waiting for the first words" });
    this.whole = new Side("Not streamed", { path: "/generate", waiting: "Waiting for all of it" });
    this.sides = [this.streamed, this.whole];
    document.getElementById("why-sides").append(...this.sides.map((side) => side.element));
    this.#draw(0);
    this.#listen();
  }

  #listen() {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    this.stopButton.addEventListener("click", () => this.stop());
    document.getElementById("why").addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.stop();
      const isSent = event.key === "Enter" && (event.ctrlKey || event.metaKey);
      if (isSent && event.target === this.prompt) this.form.requestSubmit();
    });
  }

  /** Send both at once; both are drawn until neither runs. */
  async run() {
    this.running?.abort();
    const running = new AbortController();
    this.running = running;
    const body = this.#body();
    this.#begin(Math.min(body.parameters.max_new_tokens, this.mostTokens));
    const { signal } = running;
    const ends = await Promise.allSettled([this.#stream(body, signal), this.#wait(body, signal)]);
    if (this.running === running) this.#finish(ends);
  }

  /** Leave both; what has come stays. */
  stop() {
    if (!this.running) return;
    this.running.abort();
    for (const side of this.sides) if (side.endS === null) side.tell("stopped", "stopped by you");
    this.said.textContent = gainUntil(this.#elapsedS(), ...this.sides);
    this.#rest();
  }

  #body() {
    const parameters = { max_new_tokens: Number(this.length.value), seed: SEED, details: true };
    return { inputs: this.prompt.value, parameters };
  }

  #begin(limit) {
    this.startedAt = performance.now();
    for (const side of this.sides) {
      side.begin(this.startedAt, limit);
      side.tell("waiting", "waiting");
    }
    this.said.textContent = "Both are on their way …";
    this.detail.textContent = "";
    this.problem.replaceChildren();
    this.stopButton.disabled = false;
    document.getElementById("why-run").scrollIntoView({ block: "nearest" });
    this.#tick(this.running);
  }

  async #stream(body, signal) {
    const side = this.streamed;
    for await (const { data, at } of this.client.stream("/generate_stream", body, { signal })) {
      if (signal.aborted) return;
      side.add(data.token.special ? "" : data.token.text, 1, at);
      if (side.arrivals.length === 1) side.tell("running", "writing");
      if (data.generated_text !== null) side.end(at);
    }
    side.tell("whole", "all there");
  }

  async #wait(body, signal) {
    const side = this.whole;
    const { generated_text: text, details } = await this.client.post("/generate", body, { signal });
    if (signal.aborted) return;
    const at = performance.now();
    side.add(text, details.generated_tokens, at);
    side.end(at);
    side.tell("whole", "all there");
  }

  #finish(ends) {
    this.sides.forEach((side, i) => ends[i].reason && side.tell("failed", "did not end"));
    const failed = ends.findIndex((end) => end.reason);
    this.said.textContent = gain(this.streamed, this.whole);
    if (failed < 0) this.detail.textContent = account(this.streamed, this.whole);
    else this.#fail(ends[failed].reason, this.sides[failed]);
    this.#rest();
  }

  #fail(error, side) {
    this.problem.replaceChildren(notice(error, side.arrivals.length, () => {
      this.sendButton.focus(); // the button that had it goes
      this.run();
    }));
  }

  #rest() {
    this.running = null;
    if (document.activeElement === this.stopButton) this.sendButton.focus();
    this.stopButton.disabled = true;
    this.#draw(this.#lastS());
  }

  #elapsedS() {
    return (performance.now() - this.startedAt) / 1000;
  }

  #lastS() {
    const ends = this.sides.map((side) => side.endS);
    return ends.includes(null) ? this.#elapsedS() : Math.max(...ends);
  }

  #tick(running) {
    if (this.running !== running) return;
    this.#draw(this.#elapsedS());
    requestAnimationFrame(() => this.#tick(running));
  }

  // One axis for both; a side that has ended stands still on it.
  #draw(nowS) {
    const shared = axis(nowS);
    for (const side of this.sides) side.draw(side.endS ?? nowS, shared, this.running !== null);
  }
}
