// The view "Live": what the server is doing now, drawn from its feed while somebody looks.

import { make } from "./dom.js";
import { Axis } from "./live_axis.js";
import { Feed } from "./live_feed.js";
import { Lists } from "./live_lists.js";
import { Model } from "./live_model.js";
import { Numbers } from "./live_numbers.js";
import { Story } from "./live_story.js";

const WORDS_MS = 400; // lists and sentences change more slowly than drawings: they are read

const KINDS = [
  ["waiting", "waiting"],
  ["prompt", "prompt"],
  ["flow", "tokens, higher is faster"],
  ["sending", "sending"],
  ["answered", "answered"],
  ["client_gone", "client left"],
  ["failed", "refused or failed"],
];

export function mount(section, { client }) {
  return new Live(section, client);
}

class Live {
  #model = new Model();
  #selected = null;
  #ticking = null;
  #readAt = 0;
  #isPaused = false;
  #stillness = matchMedia("(prefers-reduced-motion: reduce)");

  constructor(section, client) {
    this.numbers = new Numbers();
    this.story = new Story();
    this.axis = new Axis(this.#model, (number) => this.#select(number));
    this.lists = new Lists((number) => this.#select(number));
    this.lists.all.addEventListener("change", () => this.#showWords());
    this.said = make("p", { class: "connection", role: "status" }, "Connecting");
    this.pauseButton = make("button", { type: "button", "aria-pressed": "false", onclick: () => this.#pause() }, "Pause");
    this.feed = new Feed(client, (event, at) => this.#take(event, at), (isOpen, message) => this.#tell(isOpen, message));
    section.append(this.#layOut());
    new ResizeObserver(([entry]) => this.#resize(entry.contentRect.width)).observe(this.place);
    document.addEventListener("visibilitychange", () => this.#look());
    this.section = section;
  }

  show() {
    this.isShown = true;
    this.#look();
  }

  hide() {
    this.isShown = false;
    this.#look();
  }

  #layOut() {
    this.place = make("div", { class: "place" }, this.axis.svg);
    return make("div", { class: "live stack" },
      make("div", { class: "row apart" }, make("h2", {}, "Live"),
        make("div", { class: "row" }, this.said, this.pauseButton)),
      make("p", { class: "lead" }, "Every request is a lane: it waits, its prompt is computed, its tokens flow. No text is shown here, only what happens to it."),
      this.numbers.element,
      make("div", { class: "card" }, this.place,
        make("ul", { class: "key-list", "aria-label": "What the colours mean" },
          ...KINDS.map(([kind, name]) => make("li", { class: kind }, name)))),
      this.story.element,
      this.lists.element);
  }

  /** Follow while somebody looks, and only then. */
  #look() {
    if (this.isShown && document.visibilityState === "visible" && !this.#isPaused) {
      this.feed.start();
      this.#ticking ??= requestAnimationFrame(() => this.#tick());
    } else {
      this.feed.stop();
      cancelAnimationFrame(this.#ticking);
      this.#ticking = null;
    }
  }

  #pause() {
    this.#isPaused = !this.#isPaused;
    this.pauseButton.setAttribute("aria-pressed", this.#isPaused);
    if (this.#isPaused) this.#tell(false, "Paused");
    this.#look();
  }

  #tell(isOpen, message) {
    this.said.classList.toggle("open", isOpen);
    if (this.said.textContent !== message) this.said.textContent = message;
  }

  #take(event, at) {
    this.#model.take(event, at);
    if (event.type !== "frame") return;
    this.numbers.show(event, this.#model.hello, this.#model.rate());
    this.axis.update(this.#selected);
    if (this.#stillness.matches) this.axis.scroll();
    if (at - this.#readAt >= WORDS_MS || event.num_open === 0) this.#showWords();
  }

  #tick() {
    this.#ticking = requestAnimationFrame(() => this.#tick());
    if (this.#model.frame === null) return;
    if (!this.#stillness.matches && this.said.classList.contains("open")) this.axis.scroll();
  }

  #select(number) {
    if (number === this.#selected) return;
    this.#selected = number;
    this.axis.update(number);
    this.#showWords();
  }

  #showWords() {
    if (!this.#model.hello) return;
    this.#readAt = performance.now();
    this.lists.show(this.#model, this.#selected);
    const request = this.#model.requests.get(this.#selected)
      ?? this.#model.ended.find(({ number }) => number === this.#selected);
    if (request) this.story.show(request, this.#model.now());
    else this.story.clear();
  }

  #resize(width) {
    this.axis.resize(width);
    if (this.#model.frame === null) return;
    this.axis.update(this.#selected);
    this.axis.scroll();
  }
}
