// Making elements. Everything is put in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** Make an HTML element; properties that start with "on" listen, the rest are attributes. */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Make an SVG element. */
export function makeSvg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** The children of `parent`, one for each key. A key that stays keeps its element: a click or the focus on it survives. */
export class Children {
  #parent;
  #make;
  #kept = new Map();

  /** `makeOne(key)` gives an object with an `element`. */
  constructor(parent, makeOne) {
    this.#parent = parent;
    this.#make = makeOne;
  }

  /** Show these keys in this order, and give their objects. */
  show(keys) {
    const wanted = new Set(keys);
    for (const [key, { element }] of this.#kept) {
      if (wanted.has(key)) continue;
      element.remove();
      this.#kept.delete(key);
    }
    return keys.map((key, place) => {
      if (!this.#kept.has(key)) this.#kept.set(key, this.#make(key));
      const child = this.#kept.get(key);
      const there = this.#parent.children[place] ?? null;
      if (there !== child.element) this.#parent.insertBefore(child.element, there);
      return child;
    });
  }
}
