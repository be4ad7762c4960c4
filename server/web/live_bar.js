// One request on the time axis: its wait, its prompt, the flow of its tokens, and how it ended.

import { makeSvg } from "./dom.js";

const LEAST_WIDTH = 2;
const LEAST_HEIGHT = 2; // so that a slow stream is a thin one, not a gap

export class Bar {
  #request;
  #parts;
  isStale = true; // the axis has changed under it

  constructor(request, onSelect) {
    this.#request = request;
    this.#parts = {
      hit: makeSvg("rect", { class: "hit", rx: 4 }),
      waiting: makeSvg("rect", { class: "waiting", rx: 2 }),
      prompt: makeSvg("rect", { class: "prompt", rx: 2 }),
      flow: makeSvg("path", { class: "flow" }),
      sending: makeSvg("rect", { class: "sending", rx: 2 }),
      mark: makeSvg("path", { class: "mark" }),
      label: makeSvg("text", { class: "label" }, `#${request.number}`),
    };
    this.element = makeSvg("g", {
      class: "bar", role: "button", tabindex: -1, onclick: onSelect, onfocus: onSelect,
      onkeydown: (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          onSelect();
        }
      },
    }, ...Object.values(this.#parts));
  }

  /** Put it where it belongs; what has ended is drawn once. */
  draw(place) {
    if (this.#request.end !== null && !this.isStale) return;
    this.isStale = this.#request.end === null;
    if (this.#request.isRefusal) this.#drawRefusal(place);
    else this.#drawSpans(place);
    this.element.setAttribute("aria-label", this.#name());
  }

  #name() {
    const { number, route, state, numTokens } = this.#request;
    return `Request ${number}, ${route}: ${state}, ${numTokens} tokens`;
  }

  #drawRefusal({ x, bottom }) {
    const at = x(this.#request.arrived);
    this.#parts.mark.setAttribute("d", `M${at} ${bottom - 7}l7 7l-7 7l-7 -7Z`);
    this.#parts.label.textContent = "";
    place(this.#parts.hit, at - 12, bottom - 12, 24, 24);
    this.element.dataset.outcome = this.#request.story.outcome;
  }

  #drawSpans({ x, now, bottom, height, rate }) {
    const { arrived, started, first, last, end } = this.#request;
    const until = end ?? now;
    const span = (part, from, to, tall) => {
      const width = from === null ? 0 : Math.max(LEAST_WIDTH, x(to) - x(from));
      place(part, from === null ? 0 : x(from), bottom - tall, width, tall);
    };
    const { hit, waiting, prompt, flow, sending, mark, label } = this.#parts;
    span(hit, arrived, until, height);
    span(waiting, arrived, started ?? until, 6);
    span(prompt, started, first ?? last ?? until, 12);
    span(sending, last !== null && end > last ? last : null, end, 3);
    flow.setAttribute("d", first === null ? "" : stepPath(this.#request.flow(), x, bottom, height, rate));
    label.setAttribute("x", x(arrived) + 3);
    label.setAttribute("y", bottom - height + 8);
    label.setAttribute("visibility", x(until) - x(arrived) > 34 ? "visible" : "hidden");
    if (end === null) return;
    const outcome = this.#request.story?.outcome ?? "answered";
    this.element.dataset.outcome = outcome;
    mark.setAttribute("d", markPath(outcome, x(end), bottom));
  }
}

/** Draw rates as an area of steps above `bottom`. */
export function stepPath(pieces, x, bottom, height, fullRate) {
  if (pieces.length === 0) return "";
  const level = (rate) => (bottom - Math.max(LEAST_HEIGHT, Math.min(1, rate / fullRate) * height)).toFixed(1);
  let path = `M${x(pieces[0][0]).toFixed(1)} ${bottom}`;
  let end = pieces[0][0];
  for (const [from, to, rate] of pieces) {
    if (from > end) path += `V${bottom}H${x(from).toFixed(1)}`;
    path += `V${level(rate)}H${x(to).toFixed(1)}`;
    end = to;
  }
  return `${path}V${bottom}Z`;
}

function markPath(outcome, x, y) {
  if (outcome === "answered") return `M${x - 4} ${y}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z`;
  if (outcome === "client_gone") return `M${x - 5} ${y - 5}v10l9 -5Z`;
  return `M${x} ${y - 6}l6 6l-6 6l-6 -6Z`;
}

function place(rect, x, y, width, height) {
  rect.setAttribute("x", x.toFixed(1));
  rect.setAttribute("y", y);
  rect.setAttribute("width", Math.max(0, width).toFixed(1));
  rect.setAttribute("height", height);
}
