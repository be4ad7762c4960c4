// Generators: what the operator has published, each with a form, a way to run it, and what it yields.

import { isAbort } from "./api.js";
import { make } from "./dom.js";
import { Fields } from "./generator_fields.js";
import { Output } from "./generator_output.js";
import { notice } from "./notice.js";
import { SNIPPETS } from "./snippets.js";

const EXAMPLE = `import time

def countdown(start: int = 10):
    """Count down, a number a second."""
    for number in range(start, 0, -1):
        yield number
        time.sleep(1)
    return "lift-off"
`;
const COMMAND = "millrace serve --generator steps:countdown";
const WORDS = { many: "values", kept: "What came so far is kept.", failed: "The generator failed." };

export async function mount(section, { client }) {
  const published = await client.get("/generators");
  const cards = published.map((generator) => new Card(client, generator));
  section.append(
    make("div", { class: "stack generators" },
      make("div", {},
        make("h2", {}, "Generators"),
        make("p", { class: "lead" }, "Any Python function with a ", make("code", {}, "yield"),
          " in it becomes a stream: each value is sent the moment it is there, and the next one is asked for after that.")),
      make("div", { class: "generator-cards" }, ...cards.map((card) => card.element)),
      howTo(published.length === 0)));
}

class Card {
  constructor(client, { name, description, parameters }) {
    this.client = client;
    this.path = `/generators/${name}`;
    this.running = null; // the AbortController of the run
    this.fields = new Fields(name, parameters);
    this.output = new Output(name);
    this.runButton = make("button", { type: "submit", class: "primary" }, "Run");
    this.stopButton = make("button", { type: "button", disabled: true, onclick: () => this.stop() }, "Stop");
    this.clock = make("span", { class: "hint number" });
    this.said = make("p", { role: "status", class: "hint number" });
    this.problem = make("div", {});
    this.code = make("pre", { tabindex: 0, "aria-label": `${name} as a command` });
    const form = make("form", { class: "stack tight", onsubmit: (event) => this.#submitted(event) },
      this.fields.element,
      make("div", { class: "row" }, this.runButton, this.stopButton, this.clock));
    form.addEventListener("input", () => this.#showCode());
    this.element = make("article", { class: "card stack tight", "aria-labelledby": `${name}-title` },
      make("div", {},
        make("h3", { id: `${name}-title` }, make("code", {}, name)),
        description ? make("p", { class: "hint" }, description) : null),
      form, this.problem, this.output.element, this.said,
      make("details", {}, make("summary", {}, "As a command"), this.code));
    this.element.addEventListener("keydown", (event) => event.key === "Escape" && this.stop());
    addEventListener("millrace:key", () => this.#showCode());
    this.#showCode();
  }

  /** Leave the stream; the server closes the generator at its next yield. */
  stop() {
    this.running?.abort();
  }

  #submitted(event) {
    event.preventDefault();
    if (!this.running && this.fields.check()) this.run();
  }

  /** Run it from the start; what it yields is shown as it comes. */
  async run() {
    this.running = new AbortController();
    this.#begin();
    try {
      const stream = this.client.stream(this.path, this.fields.read(), this.running);
      for await (const { data } of stream) this.#take(data);
      this.said.textContent = `Ended after ${this.#soFar()}.`;
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#rest();
    }
  }

  #begin() {
    this.numValues = 0;
    this.startedAt = performance.now();
    this.output.clear();
    this.problem.replaceChildren();
    this.said.textContent = "";
    this.stopButton.disabled = false;
    moveFocus(this.runButton, this.stopButton);
    this.runButton.disabled = true;
    this.element.classList.add("running");
    this.#tick();
    this.timer = setInterval(() => this.#tick(), 100);
  }

  #rest() {
    clearInterval(this.timer);
    this.running = null;
    this.clock.textContent = "";
    this.runButton.disabled = false;
    moveFocus(this.stopButton, this.runButton);
    this.stopButton.disabled = true;
    this.element.classList.remove("running");
  }

  #take(data) {
    if (data.end) {
      if (data.result !== undefined) this.output.showResult(data.result);
      return;
    }
    this.numValues = data.index;
    this.output.show(data.value, data.index);
    this.#tick();
  }

  #fail(error) {
    if (isAbort(error)) {
      this.said.textContent = `Stopped after ${this.#soFar()}.`;
      return;
    }
    if (error.kind === undefined) throw error;
    this.problem.replaceChildren(notice(error, this.numValues, () => this.run(), WORDS));
  }

  #tick() {
    this.clock.textContent = this.#soFar();
  }

  #soFar() {
    const ms = performance.now() - this.startedAt;
    const values = this.numValues === 1 ? "1 value" : `${this.numValues} values`;
    return `${values} in ${ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`}`;
  }

  #showCode() {
    let body;
    try {
      body = this.fields.read();
    } catch {
      return; // JSON that is only half typed
    }
    this.code.textContent = SNIPPETS.curl({ path: this.path, body }, location.origin, Boolean(this.client.key));
  }
}

// A button that is disabled loses the focus, and Escape would reach nobody.
function moveFocus(from, to) {
  if (document.activeElement === from) to.focus({ preventScroll: true });
}

function howTo(isOpen) {
  return make("details", { class: "card how-to", open: isOpen },
    make("summary", {}, isOpen ? "Nothing is published yet. Publish a generator of yours" : "Publish a generator of yours"),
    make("div", { class: "stack tight" },
      make("p", {}, "Write a function with a ", make("code", {}, "yield"), " in a file ", make("code", {}, "steps.py"), ":"),
      make("pre", { tabindex: 0, "aria-label": "Example" }, EXAMPLE),
      make("p", {}, "Start the server beside it:"),
      make("pre", { tabindex: 0, "aria-label": "Command" }, COMMAND),
      make("p", { class: "hint" }, "It appears here with a form made from its parameters. Numbers, text, JSON, numpy arrays and PIL "
        + "pictures can be yielded; annotations are checked before the function runs.")));
}
