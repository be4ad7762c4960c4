// One side of the comparison: its text, its three clocks, its chart. Shows what comes when it comes.

import { Chart } from "./why_chart.js";
import { make } from "./dom.js";
import { marks, seconds } from "./why_gain.js";

const CLOCKS = { first: "First words", half: "Half of the text", end: "The end" };

export class Side {
  constructor(title, { path, waiting }) {
    this.clocks = Object.fromEntries(Object.keys(CLOCKS).map((name) => [name, make("dd", { class: "number" })]));
    const clocks = Object.entries(CLOCKS).map(([name, label]) =>
      make("div", {}, make("dt", {}, label), this.clocks[name]));
    this.state = make("p", { class: "state hint" });
    this.pane = make("div", {
      class: "text", tabindex: 0, role: "group", "aria-label": `${title}: text`, "data-waiting": waiting,
    });
    this.chart = new Chart();
    this.element = make("article", { class: "side card stack tight" },
      make("div", { class: "row apart" }, make("h3", {}, title, " ", make("code", {}, path)), this.state),
      this.chart.element, make("dl", { class: "clocks" }, ...clocks), this.pane);
    this.begin(0, 0);
  }

  /** Forget the last run; `limit` is the number of tokens asked for. */
  begin(startedAt, limit) {
    Object.assign(this, { startedAt, limit, arrivals: [], endS: null, text: "", top: 0 });
    this.pane.replaceChildren();
  }

  /** Show text that has just come; `at` is its time by `performance.now()`. */
  add(text, numTokens, at) {
    this.text += text;
    this.pane.append(text);
    for (let i = 0; i < numTokens; i += 1) this.arrivals.push((at - this.startedAt) / 1000);
  }

  /** Say that all has come. */
  end(at) {
    this.endS = (at - this.startedAt) / 1000;
  }

  /** Say in a word how it stands: "waiting", "running", "whole", "stopped" or "failed". */
  tell(state, label) {
    this.element.dataset.state = state;
    this.state.textContent = label;
  }

  /** Draw the clocks and the chart as they are so many seconds after the start. */
  draw(nowS, axis, isRunning) {
    for (const [name, at] of Object.entries(marks(this))) {
      const clock = this.clocks[name];
      clock.textContent = at === null && !isRunning ? "–" : seconds(at ?? nowS);
      clock.classList.toggle("reached", at !== null);
    }
    this.chart.draw(this, nowS, axis);
    this.#follow();
  }

  // Keep the newest line in view, but let a reader who has scrolled back read.
  #follow() {
    if (this.pane.scrollTop < this.top - 2) return;
    this.pane.scrollTop = this.pane.scrollHeight;
    this.top = this.pane.scrollTop;
  }
}
