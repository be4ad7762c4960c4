// The live view in words: a table of what is open and a list of what has ended.

import { make } from "./dom.js";
import { duration } from "./live_story.js";

const MAX_OPEN = 20;
const MAX_ENDED = 8;

export class Lists {
  #onSelect;
  #ended = "";

  constructor(onSelect) {
    this.#onSelect = onSelect;
    this.rows = make("tbody");
    this.more = make("p", { class: "hint" });
    this.list = make("ol", { class: "ended" });
    this.all = make("input", { type: "checkbox", id: "live-all" });
    const heads = ["Request", "Where it is", "Prompt", "Tokens", "Age"];
    this.element = make("div", { class: "lists" },
      make("section", { class: "card", "aria-label": "Open now" },
        make("h3", {}, "Open now"),
        make("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "Open requests" },
          make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))), this.rows)),
        this.more),
      make("section", { class: "card", "aria-label": "Ended" },
        make("div", { class: "row apart" }, make("h3", {}, "Ended, and why it took as long as it did"),
          make("label", { class: "check" }, this.all, "Show all that are kept")),
        this.list));
  }

  /** Show both lists; the request with the number `selected` is marked. */
  show(model, selected) {
    const open = model.open();
    const now = model.now();
    this.rows.replaceChildren(...open.slice(0, MAX_OPEN).map((request) => this.#row(request, now, selected)));
    const rest = (model.frame?.num_open ?? 0) - Math.min(open.length, MAX_OPEN);
    this.more.textContent = open.length === 0 ? "Nothing is open." : rest > 0 ? `and ${rest} more` : "";
    this.#showEnded(alike(model.ended).slice(0, this.all.checked ? Infinity : MAX_ENDED), selected);
  }

  #showEnded(groups, selected) {
    const key = `${selected} ${groups.map(([request, count]) => `${request.number}+${count}`)}`;
    if (key === this.#ended) return;
    this.#ended = key;
    this.#keepFocus(() => {
      if (groups.length) this.list.replaceChildren(...groups.map((group) => this.#item(...group, selected)));
      else this.list.replaceChildren(make("li", { class: "hint" }, "Nothing has ended yet."));
    });
  }

  // Rows are made anew; who stands on one with the keyboard should not fall off.
  #keepFocus(change) {
    const number = this.element.contains(document.activeElement) ? document.activeElement.dataset.number : null;
    change();
    if (number) this.element.querySelector(`[data-number="${number}"]`)?.focus();
  }

  #row(request, now, selected) {
    const cached = request.numCached ? ` (${request.numCached} cached)` : "";
    const cells = [request.state, `${request.numPrompt}${cached}`, request.numTokens.toLocaleString("en"), duration(now - request.arrived)];
    return make("tr", { class: request.number === selected ? "selected" : null },
      make("th", { scope: "row" }, this.#button(request, selected), " ", make("span", { class: "quiet" }, request.route)),
      ...cells.map((cell) => make("td", { class: "number" }, cell)));
  }

  #item(request, count, selected) {
    const { story, number, route } = request;
    return make("li", { class: number === selected ? "selected" : null },
      make("div", { class: "row" },
        this.#button(request, selected),
        make("span", { class: "quiet" }, count > 1 ? `and ${count - 1} before it, the same` : route),
        make("span", { class: `outcome ${story.outcome}` }, story.outcome.replaceAll("_", " "))),
      make("p", {}, story.why));
  }

  #button(request, selected) {
    const { number } = request;
    return make("button", {
      type: "button", class: "plain", "data-number": number, "aria-pressed": number === selected,
      onclick: () => this.#onSelect(number),
    }, `#${number}`);
  }
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
