// Tokens one by one: a span each, coloured by probability, and a card with what might have come.

import { make, makeSvg } from "./dom.js";

const LEVELS = [
  { least: 0.9, label: "above 90 %" },
  { least: 0.5, label: "50 to 90 %" },
  { least: 0.2, label: "20 to 50 %" },
  { least: 0.05, label: "5 to 20 %" },
  { least: 0, label: "below 5 %" },
];
const NUM_KEYS = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 };

/** Explain the colours. */
export function fillLegend(list) {
  list.append(...LEVELS.map(({ label }, level) =>
    make("li", {}, make("span", { class: "swatch", "data-level": level }), label)));
}

/** The tokens of one answer; with the keyboard one goes from token to token by arrow keys. */
export class TokenView {
  constructor(card, label) {
    this.card = card;
    this.tokens = [];
    this.active = -1;
    this.element = make("div", {
      class: "tokens", role: "group", tabindex: 0, "aria-label": label,
      "aria-description": "Arrow keys go from token to token.",
      onkeydown: (event) => this.#move(event),
      onpointerover: (event) => this.#point(event),
      onclick: (event) => this.#point(event),
      onpointerleave: () => this.card.hide(),
      onblur: () => this.#activate(-1),
    });
  }

  /** Show one more token. */
  append(token) {
    const probability = probabilityOf(token);
    const level = LEVELS.findIndex(({ least }) => probability >= least);
    const kind = token.isSpecial ? "token special" : "token";
    this.tokens.push(token);
    this.element.append(make("span", { class: kind, "data-level": level }, token.text));
  }

  /** The text so far. */
  get text() {
    return this.tokens.map((token) => (token.isSpecial ? "" : token.text)).join("");
  }

  clear() {
    this.tokens = [];
    this.element.replaceChildren();
    this.#activate(-1);
  }

  #point({ target }) {
    const index = [...this.element.children].indexOf(target);
    if (index >= 0) this.card.show(this.tokens[index], target);
  }

  #move(event) {
    const ends = { Home: 0, End: this.tokens.length - 1 };
    const next = ends[event.key] ?? this.active + NUM_KEYS[event.key];
    if (Number.isNaN(next) || !this.tokens.length) return;
    event.preventDefault();
    this.#activate(Math.max(0, Math.min(next, this.tokens.length - 1)));
  }

  #activate(index) {
    this.element.children[this.active]?.classList.remove("active");
    this.active = index;
    const span = this.element.children[index];
    if (!span) return this.card.hide();
    span.classList.add("active");
    span.scrollIntoView({ block: "nearest" });
    this.card.show(this.tokens[index], span);
    this.card.say(sentence(this.tokens[index]));
  }
}

/** The card beside a token: its probability, and the alternatives. */
export class TokenCard {
  constructor(place, say) {
    this.say = say;
    this.element = make("div", { class: "token-card", role: "tooltip", hidden: true });
    place.append(this.element);
  }

  /** Show it below the token, within the window. */
  show(token, span) {
    this.element.replaceChildren(
      make("p", { class: "row apart" },
        make("code", {}, visible(token.raw)), make("strong", {}, percent(probabilityOf(token)))),
      make("p", { class: "hint number" }, `logprob ${logprob(token)}`),
      alternatives(token));
    this.element.hidden = false;
    const { left, bottom } = span.getClientRects()[0] ?? span.getBoundingClientRect();
    const room = document.documentElement.clientWidth - this.element.offsetWidth - 8;
    this.element.style.left = `${Math.max(8, Math.min(left, room)) + window.scrollX}px`;
    this.element.style.top = `${bottom + window.scrollY + 6}px`;
  }

  hide() {
    this.element.hidden = true;
  }
}

function alternatives({ top, raw }) {
  if (!top.length) return make("p", { class: "hint" }, "Ask for top tokens to see alternatives.");
  const rows = top.map((other) => make("tr", { class: other.text === raw ? "chosen" : null },
    make("td", {}, make("code", {}, visible(other.text))),
    make("td", {}, bar(probabilityOf(other))),
    make("td", { class: "number" }, percent(probabilityOf(other)))));
  return make("table", {},
    make("caption", { class: "visually-hidden" }, "Likeliest tokens"), make("tbody", {}, ...rows));
}

function bar(share) {
  return makeSvg("svg", { class: "bar", width: 90, height: 8, "aria-hidden": "true" },
    makeSvg("rect", { width: Math.max(1, 90 * share), height: 8, rx: 2 }));
}

function sentence(token) {
  const others = token.top.filter((other) => other.text !== token.raw)
    .map((other) => `${visible(other.text)} ${percent(probabilityOf(other))}`);
  const instead = others.length ? `; instead: ${others.join(", ")}` : "";
  return `${visible(token.raw)} ${percent(probabilityOf(token))}, logprob ${logprob(token)}${instead}`;
}

function probabilityOf(token) {
  return token.logprob === null ? 0 : Math.exp(token.logprob);
}

function percent(share) {
  return share > 0 && share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
}

function logprob(token) {
  return token.logprob === null ? "−∞" : token.logprob.toFixed(3).replace("-", "−");
}

function visible(text) {
  const shown = text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
  return shown === "" ? "(part of a character)" : shown;
}
