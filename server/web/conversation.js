// The turns of a chat: any of them can be edited, any answer asked for again. Sends nothing itself.

import { make } from "./dom.js";

const NAMES = { user: "You", assistant: "Model" };

export class Conversation {
  /** `makeAnswer()` gives an Answer; `ask()` is called when the last turn wants an answer. */
  constructor(list, makeAnswer, ask) {
    this.list = list;
    this.makeAnswer = makeAnswer;
    this.ask = ask;
    this.turns = [];
  }

  /** The messages before an answer, or all of them; an answer of which nothing came is none. */
  messages(answer) {
    const end = this.turns.findIndex((turn) => answer && turn.answer === answer);
    const said = this.turns.slice(0, end < 0 ? undefined : end)
      .map((turn) => ({ role: turn.role, content: turn.answer?.text ?? turn.content }));
    return said.filter(({ role, content }) => role === "user" || content);
  }

  addUser(content) {
    const turn = this.#add({ role: "user", content });
    this.#showText(turn);
  }

  /** Begin the model's turn. */
  addAnswer() {
    const turn = this.#add({ role: "assistant", answer: this.makeAnswer() });
    turn.body.append(turn.answer.element);
    return turn.answer;
  }

  clear() {
    this.#cut(0);
  }

  #add(turn) {
    const number = this.turns.push(turn);
    const name = NAMES[turn.role];
    const act = (text, onclick) => make("button", {
      type: "button", class: "plain", onclick, "aria-label": `${text} message ${number}`,
    }, text);
    turn.body = make("div", { class: "body" });
    turn.actions = make("div", { class: "actions" }, act("Edit", () => this.#edit(turn)));
    if (turn.role === "assistant") turn.actions.append(act("Regenerate", () => this.#regenerate(turn)));
    turn.element = make("li", { class: `card turn ${turn.role}` },
      make("div", { class: "row apart" }, make("h3", {}, name), turn.actions), turn.body);
    this.list.append(turn.element);
    return turn;
  }

  #cut(length) {
    for (const turn of this.turns.splice(length)) turn.element.remove();
  }

  #askAfter(index) {
    this.#cut(index + 1);
    this.ask();
  }

  #regenerate(turn) {
    this.#askAfter(this.turns.indexOf(turn) - 1);
  }

  #showText(turn) {
    turn.body.replaceChildren(make("p", { class: "said" }, turn.content));
    turn.actions.hidden = false;
  }

  // What follows an edited question is no answer to it any more; an edited answer stays in its place.
  #edit(turn) {
    const isUser = turn.role === "user";
    const field = make("textarea", { rows: 4, "aria-label": `Text of message ${this.turns.indexOf(turn) + 1}` });
    field.value = turn.answer?.text ?? turn.content;
    const before = [...turn.body.childNodes];
    const close = () => {
      turn.actions.hidden = false;
      turn.actions.firstChild.focus();
    };
    const save = () => {
      Object.assign(turn, { content: field.value, answer: undefined });
      this.#showText(turn);
      close();
      if (isUser) this.#askAfter(this.turns.indexOf(turn));
    };
    const cancel = () => {
      turn.body.replaceChildren(...before);
      close();
    };
    const keys = (event) => {
      if (event.key === "Enter" && event.ctrlKey) save();
      else if (event.key === "Escape") cancel();
      else return;
      event.preventDefault();
      event.stopPropagation();
    };
    turn.actions.hidden = true;
    turn.body.replaceChildren(make("div", { class: "stack tight", onkeydown: keys }, field,
      make("div", { class: "row" },
        make("button", { type: "button", class: "primary", onclick: save }, isUser ? "Save and ask again" : "Save"),
        make("button", { type: "button", onclick: cancel }, "Cancel"))));
    field.focus();
  }
}
