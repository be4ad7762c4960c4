// The playground: joins what is typed, what is sent, and what comes. One request runs at a time.

import { isAbort } from "./api.js";
import { Answer } from "./answer.js";
import { Conversation } from "./conversation.js";
import { Parameters } from "./parameters.js";
import { chatRequest, firstTokenMs, promptRequest, uncached } from "./requests.js";
import { NEEDS, SNIPPETS } from "./snippets.js";
import { fillLegend, TokenCard } from "./tokens.js";

/** Without a key pressed for so long, typing has paused. */
const PAUSE_MS = 600;

export async function mount(section, app) {
  const api = await app.client.get("/api-doc/openapi.json");
  new Playground(section, app, api);
}

class Playground {
  constructor(section, { client, info }, api) {
    this.section = section;
    this.client = client;
    this.modelId = info.model_id;
    this.running = null; // the AbortController of what runs
    this.answer = null; // where its answer goes
    const say = (text) => { this.#at("said").textContent = text; };
    this.card = new TokenCard(section, say);
    this.parameters = {};
    for (const mode of ["prompt", "chat"]) {
      this.parameters[mode] = new Parameters(this.#at(`${mode}-parameters`), mode, api);
    }
    const makeAnswer = () => new Answer(client, this.card, say);
    this.promptAnswer = makeAnswer();
    this.promptAnswer.element.classList.add("card");
    this.promptAnswer.prompt.open = true;
    this.#at("prompt-answer").append(this.promptAnswer.element);
    this.conversation = new Conversation(this.#at("messages"), makeAnswer, () => this.#ask());
    fillLegend(this.#at("legend"));
    this.#listen();
    this.#refresh();
  }

  #at(id) {
    return document.getElementById(id);
  }

  get mode() {
    return this.section.querySelector("[name=mode]:checked").value;
  }

  #listen() {
    const on = (id, event, act) => this.#at(id).addEventListener(event, act);
    const submits = (id, act) => on(id, "submit", (event) => {
      event.preventDefault();
      act();
    });
    submits("prompt-form", () => this.#generate());
    submits("chat-form", () => this.#send());
    submits("settings", () => {});
    on("prompt", "input", (event) => event.isComposing || this.#typed());
    on("prompt", "compositionend", () => this.#typed());
    on("rerun", "change", () => this.#switchRerun());
    on("clear", "click", () => this.#clear());
    on("copy", "click", () => this.#copy());
    on("settings", "reset", () => setTimeout(() => this.#refresh()));
    this.section.addEventListener("input", () => this.#refresh());
    document.addEventListener("keydown", (event) => this.section.hidden || this.#key(event));
    addEventListener("millrace:key", () => this.#refresh());
    for (const button of this.section.querySelectorAll(".stop")) {
      button.addEventListener("click", () => this.#stop());
    }
  }

  #key(event) {
    if (event.key === "Escape") {
      this.card.hide();
      this.#stop();
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (this.mode === "prompt") this.#generate();
      else this.#send();
    }
  }

  // -- what would be sent now

  #promptRequest() {
    return promptRequest(this.#at("prompt").value, this.parameters.prompt.values());
  }

  #chatRequest(answer, more = []) {
    const system = this.#at("system").value.trim();
    const first = system ? [{ role: "system", content: system }] : [];
    const messages = [...first, ...this.conversation.messages(answer), ...more];
    return chatRequest(this.modelId, messages, this.parameters.chat.values());
  }

  #currentRequest() {
    if (this.mode === "prompt") return this.#promptRequest();
    const content = this.#at("message").value;
    return this.#chatRequest(null, content ? [{ role: "user", content }] : []);
  }

  // -- sending and stopping

  async #run(request, answer, again, isAgain) {
    this.running?.abort();
    const running = new AbortController();
    Object.assign(this, { running, answer });
    this.#refresh();
    const isWhole = await answer.run(request, running.signal, again, isAgain);
    if (this.running === running) this.#rest();
    return isWhole;
  }

  #rest() {
    this.running = null;
    this.#refresh();
  }

  #stop() {
    if (!this.running) return;
    this.running.abort();
    this.answer.stopped();
    this.#rest();
  }

  #generate(isAgain = false) {
    return this.#run(this.#promptRequest(), this.promptAnswer, () => this.#generate(true), isAgain);
  }

  #send() {
    const field = this.#at("message");
    if (!field.value.trim()) return field.focus();
    this.conversation.addUser(field.value);
    field.value = "";
    return this.#ask();
  }

  #ask(answer = this.conversation.addAnswer()) {
    return this.#run(this.#chatRequest(answer), answer, () => this.#ask(answer), true);
  }

  #clear() {
    this.#stop();
    this.conversation.clear();
    this.#refresh();
    this.#at("message").focus();
  }

  // -- re-run as you type

  #switchRerun() {
    const isOn = this.#at("rerun").checked;
    this.#at("rerun-hint").hidden = !isOn;
    if (isOn) this.#typed();
  }

  async #typed() {
    if (!this.#at("rerun").checked) return;
    clearTimeout(this.pause);
    if (!this.#at("prompt").value) return this.#stop();
    const paused = new Promise((resolve) => { this.pause = setTimeout(resolve, PAUSE_MS); });
    const request = this.#promptRequest();
    if (!(await this.#generate(true))) return;
    await paused; // for ever, when another key comes first
    await this.#compare(request);
  }

  // Once nothing else of ours runs: both times are of a request that was alone.
  async #compare(request) {
    if (this.running || !this.#at("rerun").checked) return;
    const running = new AbortController();
    Object.assign(this, { running, answer: this.promptAnswer });
    try {
      this.promptAnswer.saved(await firstTokenMs(this.client, uncached(request), running.signal));
    } catch (error) {
      if (!isAbort(error)) this.promptAnswer.notSaved(error);
    }
    if (this.running === running) this.#rest();
  }

  // -- what the page shows of it

  #refresh() {
    const { mode } = this;
    for (const other of ["prompt", "chat"]) {
      this.#at(`${other}-mode`).hidden = other !== mode;
      this.#at(`${other}-parameters`).hidden = other !== mode;
    }
    for (const button of this.section.querySelectorAll(".stop")) button.disabled = !this.running;
    this.section.classList.toggle("coloured", this.#at("colour").checked);
    const language = this.section.querySelector("[name=language]:checked").value;
    const request = this.#currentRequest();
    const hasKey = Boolean(this.client.key);
    this.#at("snippet").textContent = SNIPPETS[language](request, location.origin, hasKey);
    const key = hasKey ? " The key is read from API_KEY." : "";
    this.#at("code-hint").textContent = NEEDS[language](request) + key;
  }

  // Outside localhost and https there is no clipboard: then the code is selected.
  async #copy() {
    const snippet = this.#at("snippet");
    try {
      await navigator.clipboard.writeText(snippet.textContent);
      this.#at("said").textContent = this.#at("copy").textContent = "Copied";
      setTimeout(() => { this.#at("copy").textContent = "Copy"; }, 2000);
    } catch {
      getSelection().selectAllChildren(snippet);
      this.#at("code-hint").textContent = "Selected: copy it with Ctrl+C.";
    }
  }
}
