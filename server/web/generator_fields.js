// A form for a generator, made from the JSON Schema of its parameters. Sends nothing.

import { make } from "./dom.js";

/** One field a parameter; `read` gives the body they stand for. */
export class Fields {
  constructor(name, schema) {
    this.fields = Object.entries(schema.properties ?? {}).map(([parameter, part]) =>
      new Field(`${name}-${parameter}`, parameter, resolved(part, schema.$defs ?? {}),
        (schema.required ?? []).includes(parameter)));
    this.element = make("div", { class: "generator-fields" }, ...this.fields.map((f) => f.element));
    this.element.hidden = this.fields.length === 0;
  }

  /** Give the body; a field that is left empty is left out where the function has a default. */
  read() {
    return Object.fromEntries(this.fields
      .map((field) => [field.name, field.read()])
      .filter(([, value]) => value !== undefined));
  }

  /** Tell whether every field can be read; the browser shows the reader what is wrong. */
  check() {
    return this.fields.every((field) => field.check());
  }
}

class Field {
  constructor(id, name, schema, isRequired) {
    this.name = name;
    this.isRequired = isRequired;
    this.kind = kindOf(schema);
    const hint = make("p", { class: "hint", id: `${id}-hint` }, hintOf(schema, this.kind, isRequired));
    this.input = inputOf(id, schema, this.kind, isRequired);
    this.input.setAttribute("aria-describedby", hint.id);
    this.input.addEventListener("input", () => this.input.setCustomValidity(""));
    const label = make("label", { for: id }, make("code", {}, name));
    this.element = make("div", { class: `field ${this.kind}` }, label, this.input, hint);
  }

  read() {
    const { value } = this.input;
    if (this.kind === "boolean") return this.input.checked;
    if (value === "" && !(this.isRequired && this.kind === "string")) return undefined;
    switch (this.kind) {
      case "number": return Number(value);
      case "enum": case "json": return JSON.parse(value);
      case "any": return jsonOrText(value);
      default: return value;
    }
  }

  check() {
    if (this.kind === "json" && this.input.value && !isJson(this.input.value)) {
      this.input.setCustomValidity("This is not JSON.");
    }
    return this.input.reportValidity();
  }
}

// Follow a reference, and look past "or null": an empty field stands for that.
function resolved(schema, types) {
  const { anyOf = [], ...rest } = schema;
  const others = anyOf.filter((part) => part.type !== "null");
  if (anyOf.length && others.length === 1) return { ...resolved(others[0], types), ...rest };
  const name = schema.$ref?.split("/").at(-1);
  return name ? { ...types[name], ...rest } : schema;
}

function kindOf(schema) {
  if (schema.enum) return "enum";
  if (schema.type === "boolean" || schema.type === "string") return schema.type;
  if (schema.type === "integer" || schema.type === "number") return "number";
  const isAny = !schema.type && !schema.anyOf && !schema.$ref;
  return isAny ? "any" : "json";
}

function inputOf(id, schema, kind, isRequired) {
  const attributes = { id, required: isRequired && kind !== "string", spellcheck: "false", autocomplete: "off" };
  const given = schema.default ?? (kind === "any" && isRequired ? 3 : null); // a number is a fair guess
  const shown = given === null ? "" : typeof given === "string" ? given : JSON.stringify(given);
  switch (kind) {
    case "boolean":
      return make("input", { id, type: "checkbox", checked: given === true });
    case "enum":
      return make("select", attributes, ...(isRequired || given !== null ? [] : [make("option", { value: "" }, "default")]),
        ...schema.enum.map((one) => make("option", { value: JSON.stringify(one), selected: one === given }, String(one))));
    case "json":
      return make("textarea", { ...attributes, rows: 2 }, shown);
    case "number": {
      const min = schema.minimum ?? schema.exclusiveMinimum;
      const max = schema.maximum ?? schema.exclusiveMaximum;
      const step = schema.type === "integer" ? 1 : "any";
      return make("input", { ...attributes, type: "number", min, max, step, value: shown });
    }
    default:
      return make("input", { ...attributes, type: "text", value: shown });
  }
}

function hintOf(schema, kind, isRequired) {
  const type = { any: "any JSON, or plain text", json: `JSON, ${schema.type ?? schema.title ?? "as described"}`, number: schema.type };
  const { minimum: low, maximum: high } = schema;
  const range = low !== undefined && high !== undefined ? `${low} to ${high}`
    : low !== undefined ? `at least ${low}` : high !== undefined ? `at most ${high}` : null;
  const words = [schema.description, type[kind] ?? null, range, isRequired || kind === "boolean" ? null : "may be left out"];
  return words.filter(Boolean).join(" · ");
}

function jsonOrText(text) {
  return isJson(text) ? JSON.parse(text) : text;
}

function isJson(text) {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
