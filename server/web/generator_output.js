// What a generator yields, shown as it comes: text grows, pictures are refined in place, the rest is
// a row of values. Knows neither form nor server.

import { make } from "./dom.js";

const MOST_SHOWN = 200;
/** Older values leave the page, so that an endless generator does not fill it. */
const PICTURE = "data:image/";

export class Output {
  constructor(name) {
    this.name = name;
    this.picture = make("img", { class: "generator-picture", alt: "" });
    this.caption = make("figcaption", { class: "hint number" });
    this.figure = make("figure", {}, this.picture, this.caption);
    this.list = make("ol", { class: "generator-values" });
    this.element = make("div", { class: "generator-output stack tight" }, this.figure, this.list);
    this.clear();
  }

  clear() {
    this.lastText = null; // the value that the next text may be a longer form of
    this.figure.hidden = true;
    this.list.hidden = true;
    this.list.replaceChildren();
  }

  /** Show the next value, the `index`-th. */
  show(value, index) {
    const url = pictureIn(value);
    if (url !== null) this.#showPicture(url, index);
    if (isPicture(value)) return;
    const last = this.list.lastElementChild;
    if (last && typeof value === "string" && this.lastText !== null && value.startsWith(this.lastText)) {
      last.textContent = value;
    } else {
      this.#append(value);
    }
    this.lastText = typeof value === "string" && value !== "" ? value : null;
  }

  /** Show what the generator returned. */
  showResult(result) {
    if (isPicture(result)) this.#showPicture(result, "result");
    else this.#append(result).classList.add("result");
  }

  #showPicture(url, index) {
    this.figure.hidden = false;
    this.picture.src = url;
    this.picture.alt = `Picture ${index} of ${this.name}`;
    this.caption.textContent = index === "result" ? "The result" : `Picture ${index}`;
  }

  #append(value) {
    const text = typeof value === "string" ? value : JSON.stringify(value, shortened);
    const item = make("li", { class: kindOf(value) }, text);
    this.list.hidden = false;
    this.list.append(item);
    if (this.list.childElementCount > MOST_SHOWN) this.list.firstElementChild.remove();
    return item;
  }
}

function isPicture(value) {
  return typeof value === "string" && value.startsWith(PICTURE);
}

// A picture is a value, or what one of a value's fields holds.
function pictureIn(value) {
  if (isPicture(value)) return value;
  if (value === null || typeof value !== "object") return null;
  return Object.values(value).find(isPicture) ?? null;
}

function kindOf(value) {
  if (typeof value === "number" || typeof value === "boolean") return "chip number";
  return typeof value === "string" ? "text" : "json";
}

function shortened(key, value) {
  return isPicture(value) ? "(the picture)" : value;
}
