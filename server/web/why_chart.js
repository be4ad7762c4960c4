// The chart of one side: how much of the text was on the screen at which time. Measures nothing.

import { make, makeSvg } from "./dom.js";
import { marks } from "./why_gain.js";

const WIDTH = 1000;
const HEIGHT = 100;
const NAMES = { first: "first words", half: "half", end: "end" };
const HEIGHTS = { first: 0, half: 0.5, end: 1 };
const STEPS = [[1, 0.25], [1.5, 0.5], [2, 0.5], [3, 1], [4, 1], [5, 1], [6, 2], [8, 2], [10, 2.5]];
/** How long an axis may be, and how far apart its ticks are then; for each power of ten. */
const MAX_POINTS = 400;

/** Give an axis that holds so many seconds: its length and the distance of its ticks. */
export function axis(elapsedS) {
  const power = 10 ** Math.floor(Math.log10(Math.max(elapsedS, 0.5)));
  const [length, tick] = STEPS.find(([size]) => size * power >= elapsedS);
  return { length: length * power, tick: tick * power };
}

export class Chart {
  constructor() {
    this.past = makeSvg("rect", { class: "past", height: HEIGHT });
    this.area = makeSvg("path", { class: "area" });
    const svg = makeSvg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none" },
      this.past, this.area);
    this.pins = Object.fromEntries(Object.entries(NAMES).map(([name, label]) =>
      [name, make("span", { class: `pin ${name}`, hidden: true }, make("span", {}, label))]));
    this.plot = make("div", { class: "plot" }, svg, ...Object.values(this.pins));
    this.ticks = make("div", { class: "ticks number" });
    // the clocks beside it say the same in words
    this.element = make("div", { class: "arrivals", "aria-hidden": "true" }, this.plot, this.ticks);
  }

  /** Draw what a side has until now, on an axis that both sides share. */
  draw(side, elapsedS, { length, tick }) {
    this.past.setAttribute("width", WIDTH * Math.min(elapsedS / length, 1));
    this.area.setAttribute("d", outline(side, elapsedS, length));
    for (const [name, at] of Object.entries(marks(side))) this.#pin(name, at, length);
    this.#drawTicks(length, tick);
  }

  #pin(name, at, length) {
    const pin = this.pins[name];
    pin.hidden = at === null;
    if (at === null) return;
    pin.style.left = percent(at / length);
    pin.style.bottom = percent(HEIGHTS[name]);
    pin.classList.toggle("late", at / length > 0.55);
  }

  #drawTicks(length, tick) {
    if (this.length === length) return;
    this.length = length;
    const times = Array.from({ length: Math.floor(length / tick + 1e-9) + 1 }, (_, i) => i * tick);
    this.ticks.replaceChildren(...times.map((time) => {
      const label = make("span", {}, `${Number(time.toFixed(2))} s`);
      label.style.left = percent(time / length);
      return label;
    }));
  }
}

// A staircase, each token a step up: nothing is smoothed. Long answers skip steps, not time.
function outline({ arrivals, endS, limit }, elapsedS, length) {
  const total = endS === null ? limit : arrivals.length;
  const x = (at) => ((WIDTH * at) / length).toFixed(1);
  const y = (number) => (HEIGHT * (1 - Math.min(number / total, 1))).toFixed(1);
  const stride = Math.ceil(arrivals.length / MAX_POINTS) || 1;
  let path = `M0 ${HEIGHT}`;
  for (let number = stride; number <= arrivals.length; number += stride) {
    path += `H${x(arrivals[number - 1])}V${y(number)}`;
  }
  return `${path}H${x(Math.min(elapsedS, length))}V${HEIGHT}Z`;
}

function percent(share) {
  return `${(100 * share).toFixed(2)}%`;
}
