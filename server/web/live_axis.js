// The time axis of the live view: a lane for each request, scrolling under a fixed window.

import { makeSvg } from "./dom.js";
import { Bar, stepPath } from "./live_bar.js";
import { NUM_LANES, WINDOW_MS } from "./live_model.js";

const DELAY_MS = 250; // what is drawn is a little late, so that all of it is known
const TOTAL_HEIGHT = 56;
const LANE_HEIGHT = 24;
const LANE_STEP = 30;
const LEAST_LANES = 4;
const FOOT = 26;
const SECOND_STEPS = [30, 25, 20, 15, 10, 5, 0];

export class Axis {
  #model;
  #onSelect;
  #bars = new Map();
  #base = 0; // the moment that is drawn at x = 0 of what scrolls
  #width = 0;
  #numLanes = LEAST_LANES;
  #rate = 50; // tokens per second that fill a lane
  #totalRate = 50;

  constructor(model, onSelect) {
    this.#model = model;
    this.#onSelect = onSelect;
    this.#total = makeSvg("path", { class: "total" });
    this.#lanes = makeSvg("g");
    this.#moving = makeSvg("g", {}, this.#total, this.#lanes);
    this.#frame = makeSvg("g", { "aria-hidden": "true" });
    this.svg = makeSvg("svg", {
      class: "axis", role: "group",
      "aria-label": "Requests of the last 30 seconds, oldest first; the arrow keys lead from one to the next",
      onkeydown: (event) => this.#walk(event),
    }, this.#frame, this.#moving);
  }

  #total;
  #lanes;
  #moving;
  #frame;

  /** Fit the drawing to its place. */
  resize(width) {
    this.#width = width;
    this.#layOut();
  }

  /** Draw what the model has learnt; `selected` is a request's number. */
  update(selected) {
    const { requests } = this.#model;
    this.#grow(requests);
    const now = this.#model.now();
    if (now - this.#base > WINDOW_MS || now < this.#base) this.#layOut();
    for (const [number, bar] of this.#bars) {
      if (!requests.has(number)) this.#remove(number, bar);
    }
    for (const request of requests.values()) this.#draw(request, selected);
    this.#total.setAttribute("d", this.#totalPath());
    this.#keepOneStop();
  }

  /** Move the window to now. */
  scroll() {
    const now = this.#model.now() - DELAY_MS;
    this.#moving.setAttribute("transform", `translate(${this.#width - this.#x(now)} 0)`);
  }

  /** Give the focus to a request's bar, where it is drawn. */
  focus(number) {
    this.#bars.get(number)?.element.focus();
  }

  #x(moment) {
    return ((moment - this.#base) * this.#width) / WINDOW_MS;
  }

  /** Make room for more lanes and for faster tokens, and draw all anew where that changes. */
  #grow(requests) {
    let lanes = LEAST_LANES;
    let [rate, total] = [50, 50];
    for (const request of requests.values()) {
      lanes = Math.max(lanes, (request.lane ?? -1) + 1);
      for (const [, , each] of request.flow()) rate = Math.max(rate, each);
    }
    for (const [, , each] of this.#totalPieces()) total = Math.max(total, each);
    const isGrown = lanes > this.#numLanes || lanes < this.#numLanes - 3;
    [rate, total] = [rounded(rate), rounded(total)];
    if (!isGrown && rate === this.#rate && total === this.#totalRate) return;
    if (isGrown) this.#numLanes = Math.min(lanes, NUM_LANES);
    [this.#rate, this.#totalRate] = [rate, total];
    this.#layOut();
  }

  #layOut() {
    this.#base = this.#model.now();
    const height = TOTAL_HEIGHT + 14 + this.#numLanes * LANE_STEP + FOOT;
    this.svg.setAttribute("viewBox", `0 0 ${Math.max(1, this.#width)} ${height}`);
    this.svg.setAttribute("height", height);
    for (const bar of this.#bars.values()) bar.isStale = true;
    this.#drawFrame(height);
  }

  #drawFrame(height) {
    const bottom = height - FOOT + 4;
    const step = this.#width < 560 ? 10 : 5;
    const marks = SECOND_STEPS.filter((second) => second % step === 0).map((second) => {
      const x = this.#width * (1 - (second * 1000) / WINDOW_MS);
      const anchor = second === 30 ? "start" : second === 0 ? "end" : "middle";
      return makeSvg("g", {},
        makeSvg("line", { class: "grid", x1: x, x2: x, y1: 0, y2: bottom }),
        makeSvg("text", { x, y: bottom + 16, "text-anchor": anchor }, second ? `${second} s ago` : "now"));
    });
    const lanes = Array.from({ length: this.#numLanes }, (_, lane) => makeSvg("line", {
      class: "bed", x1: 0, x2: this.#width, y1: this.#bottom(lane), y2: this.#bottom(lane),
    }));
    this.#frame.replaceChildren(...marks, ...lanes,
      makeSvg("line", { class: "bed", x1: 0, x2: this.#width, y1: TOTAL_HEIGHT, y2: TOTAL_HEIGHT }),
      makeSvg("text", { class: "scale", x: 0, y: 12 },
        `all tokens, up to ${this.#totalRate.toLocaleString("en")} a second`));
  }

  #bottom(lane) {
    return TOTAL_HEIGHT + 14 + lane * LANE_STEP + LANE_HEIGHT;
  }

  #draw(request, selected) {
    if (request.lane === null && !request.isRefusal) return;
    const { number } = request;
    let bar = this.#bars.get(number);
    if (!bar) {
      bar = new Bar(request, () => this.#onSelect(number));
      this.#bars.set(number, bar);
      this.#lanes.append(bar.element);
    }
    const bottom = request.isRefusal ? TOTAL_HEIGHT : this.#bottom(request.lane);
    bar.draw({
      x: (moment) => this.#x(moment), now: this.#model.now(), bottom,
      height: LANE_HEIGHT, rate: this.#rate,
    });
    bar.element.setAttribute("aria-pressed", number === selected);
  }

  #remove(number, bar) {
    const next = bar.element.matches(":focus") ? bar.element.nextElementSibling : null;
    bar.element.remove();
    this.#bars.delete(number);
    next?.focus();
  }

  #totalPieces() {
    const pieces = [];
    let from = this.#model.totals[0];
    for (const to of this.#model.totals) {
      if (!from || to[0] - from[0] < 200) continue;
      pieces.push([from[0], to[0], ((to[1] - from[1]) / (to[0] - from[0])) * 1000]);
      from = to;
    }
    return pieces;
  }

  #totalPath() {
    return stepPath(this.#totalPieces(), (m) => this.#x(m), TOTAL_HEIGHT, TOTAL_HEIGHT - 18, this.#totalRate);
  }

  // Tab leads to one bar only, the arrow keys from there to the others.
  #keepOneStop() {
    const bars = [...this.#lanes.children];
    const stop = bars.find((bar) => bar.matches(":focus, [aria-pressed=true]")) ?? bars.at(-1);
    for (const bar of bars) bar.setAttribute("tabindex", bar === stop ? 0 : -1);
  }

  #walk(event) {
    const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!way) return;
    event.preventDefault();
    const bars = [...this.#lanes.children];
    bars[bars.indexOf(document.activeElement) + way]?.focus();
  }
}

/** The next round number. */
function rounded(rate) {
  const power = 10 ** Math.floor(Math.log10(rate));
  return [1, 1.5, 2, 3, 4, 5, 7.5, 10].map((step) => step * power).find((step) => step >= rate);
}
