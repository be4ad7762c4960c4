// The live view in words: a table of what is open and a list of what has ended.

import { Children, make } from "./dom.js";
import { duration } from "./live_story.js";

const MAX_OPEN = 20;
const MAX_ENDED = 8;

export class Lists {
  constructor(onSelect) {
    const rows = make("tbody");
    this.more = make("p", { class: "hint" });
    this.none = make("p", { class: "hint" }, "Nothing has ended yet.");
    const list = make("ol", { class: "ended" });
    this.all = make("input", { type: "checkbox", id: "live-all" });
    this.open = new Children(rows, (number) => new Row(number, onSelect));
    this.ended = new Children(list, (number) => new Item(number, onSelect));
    const heads = ["Request", "Where it is", "Prompt", "Tokens", "Age"];
    this.element = make("div", { class: "lists" },
      make("section", { class: "card", "aria-label": "Open now" },
        make("h3", {}, "Open now"),
        make("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Open requests" },
          make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))), rows)),
        this.more),
      make("section", { class: "card", "aria-label": "Ended" },
        make("div", { class: "row apart" }, make("h3", {}, "Ended, and why it took as long as it did"),
          make("label", { class: "check" }, this.all, "Show all that are kept")),
        this.none, list));
  }

  /** Show both lists; the request with the number `selected` is marked. */
  show(model, selected) {
    const open = model.open();
    const shown = open.slice(0, MAX_OPEN);
    const now = model.now();
    this.open.show(shown.map(({ number }) => number))
      .forEach((row, place) => row.update(shown[place], now, selected));
    const rest = (model.frame?.num_open ?? 0) - shown.length;
    this.more.textContent = open.length === 0 ? "Nothing is open." : rest > 0 ? `and ${rest} more` : "";
    const groups = alike(model.ended).slice(0, this.all.checked ? Infinity : MAX_ENDED);
    this.none.hidden = groups.length > 0;
    this.ended.show(groups.map(([{ number }]) => number))
      .forEach((item, place) => item.update(...groups[place], selected));
  }
}

/** An open request: a row of the table. */
class Row {
  constructor(number, onSelect) {
    this.button = selects(number, onSelect);
    this.route = make("span", { class: "quiet" });
    this.cells = Array.from({ length: 4 }, () => make("td", { class: "number" }));
    this.element = make("tr", {}, make("th", { scope: "row" }, this.button, " ", this.route), ...this.cells);
  }

  update(request, now, selected) {
    const cached = request.numCached ? ` (${request.numCached} cached)` : "";
    const texts = [request.state, `${request.numPrompt}${cached}`, request.numTokens.toLocaleString("en"), duration(now - request.arrived)];
    this.route.textContent = request.route;
    texts.forEach((text, place) => { this.cells[place].textContent = text; });
    mark(this, request.number === selected);
  }
}

/** An ended request, or several refusals alike, with the sentence that says why. */
class Item {
  constructor(number, onSelect) {
    this.button = selects(number, onSelect);
    this.route = make("span", { class: "quiet" });
    this.outcome = make("span");
    this.why = make("p");
    this.element = make("li", {}, make("div", { class: "row" }, this.button, this.route, this.outcome), this.why);
  }

  update({ story, number, route }, count, selected) {
    this.route.textContent = count > 1 ? `and ${count - 1} before it, the same` : route;
    this.outcome.className = `outcome ${story.outcome}`;
    this.outcome.textContent = story.outcome.replaceAll("_", " ");
    this.why.textContent = story.why;
    mark(this, number === selected);
  }
}

function selects(number, onSelect) {
  return make("button", { type: "button", class: "plain", "data-number": number, onclick: () => onSelect(number) }, `#${number}`);
}

function mark({ element, button }, isSelected) {
  element.classList.toggle("selected", isSelected);
  button.setAttribute("aria-pressed", isSelected);
}

/** Put refusals of one kind that follow each other together: pairs [the newest, how many]. */
function alike(ended) {
  const groups = [];
  for (const request of ended) {
    const last = groups.at(-1);
    if (last && request.story.refusal && request.story.why === last[0].story.why) last[1] += 1;
    else groups.push([request, 1]);
  }
  return groups;
}
