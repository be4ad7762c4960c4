// The fields of a request's parameters, made from the server's own description of them: names,
// meanings and bounds are those of /api-doc/openapi.json. What is empty is not sent.

import { make } from "./dom.js";

const COMMON = [
  "max_new_tokens", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop",
];
/** What the page sets itself, what streams cannot have, second names, and what is not supported. */
export const LEFT_OUT = {
  prompt: ["details", "best_of", "decoder_input_details", "ignore_eos_token", "grammar", "adapter_id"],
  chat: [
    "model", "messages", "stream", "stream_options", "logprobs", "max_completion_tokens",
    "max_new_tokens", "min_new_tokens", "n", "adapter_id", "grammar", "response_format",
    "tools", "tool_choice", "parallel_tool_calls", "chat_template", "chat_template_kwargs",
    "reasoning_effort",
  ],
};
const SCHEMAS = { prompt: "Parameters", chat: "ChatBody" };
const INITIAL = { max_new_tokens: 128, max_tokens: 128, top_n_tokens: 5, top_logprobs: 5 };
const BOUNDS = { minimum: "≥", exclusiveMinimum: ">", maximum: "≤", exclusiveMaximum: "<" };
/** A bound from here on is a type's width and tells nobody anything. */
const WIDEST = 2 ** 31 - 1;

export class Parameters {
  /** Fill the place with the fields of a mode, "prompt" or "chat". */
  constructor(place, mode, api) {
    const { properties } = api.components.schemas[SCHEMAS[mode]];
    const names = Object.keys(properties).filter((name) => !LEFT_OUT[mode].includes(name));
    const made = (name) => this.#field(mode, name, properties[name]);
    this.inputs = new Map();
    const common = COMMON.filter((name) => names.includes(name));
    const rest = names.filter((name) => !common.includes(name)).sort();
    place.append(
      make("div", { class: "fields" }, ...common.map(made)),
      make("details", {}, make("summary", {}, "All parameters"),
        make("div", { class: "fields" }, ...rest.map(made)), note(mode)));
  }

  /** What is filled in, as it goes into a body. */
  values() {
    const filled = [...this.inputs].filter(([, { input }]) => input.value !== "");
    return Object.fromEntries(filled.map(([name, { input, kind }]) => [name, VALUES[kind](input.value)]));
  }

  #field(mode, name, schema) {
    const kind = kindOf(schema);
    const id = `${mode}-${name}`;
    const input = control(kind, {
      id, name: id, "aria-describedby": `${id}-hint`, placeholder: PLACEHOLDERS[kind],
    });
    const initial = Math.min(INITIAL[name] ?? NaN, schema.maximum ?? Infinity);
    if (initial) input.setAttribute("value", initial);
    this.inputs.set(name, { input, kind });
    return make("div", { class: "field" },
      make("label", { for: id }, make("code", {}, name)), input,
      make("p", { id: `${id}-hint`, class: "hint" }, hint(schema)));
  }
}

const VALUES = {
  number: exactNumber,
  flag: (text) => text === "yes",
  lines: (text) => text.split("\n").filter((line) => line),
  object: objectOr,
};
const PLACEHOLDERS = { number: "default", lines: "one a line", object: '{"42": -1.5}' };

// A seed has 64 bits, a number 53: where a browser can, it is sent as it is written.
function exactNumber(text) {
  const number = Number(text);
  const isExact = !Number.isInteger(number) || Number.isSafeInteger(number);
  return isExact || !JSON.rawJSON || !/^-?\d+$/.test(text) ? number : JSON.rawJSON(text);
}

// What is no JSON goes as text: the server's message names the field.
function objectOr(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function kindOf(schema) {
  if (schema.anyOf) return "lines";
  const [type] = [schema.type].flat();
  return { boolean: "flag", array: "lines", object: "object" }[type] ?? "number";
}

function control(kind, attributes) {
  if (kind === "flag") {
    const options = [["", "default"], ["yes", "yes"], ["no", "no"]];
    return make("select", attributes, ...options.map(([value, text]) => make("option", { value }, text)));
  }
  if (kind === "number") return make("input", { type: "number", step: "any", inputmode: "decimal", ...attributes });
  return make("textarea", { rows: 2, spellcheck: "false", ...attributes });
}

function hint(schema) {
  const bounds = Object.entries(BOUNDS)
    .filter(([key]) => Math.abs(schema[key] ?? Infinity) < WIDEST)
    .map(([key, sign]) => `${sign}\u00a0${schema[key]}`);
  return [schema.description, bounds.length ? `${bounds.join(", ")}.` : ""].join(" ").trim();
}

function note(mode) {
  if (mode === "chat") return null;
  return make("p", { class: "hint" },
    "best_of and decoder_input_details are for answers in one piece; a stream cannot have them.");
}
