// The shell: which view is shown, the model's name, the key. Each view fills its own section.

import { Client } from "./api.js";
import { make } from "./dom.js";

const VIEWS = ["playground", "why", "live", "generators"];

const client = new Client();
const app = { client, info: null };
const mounted = new Map();
let current = null;

/** Show the view that the address names, and tell the one before that it is hidden. */
async function show() {
  const asked = location.hash.slice(1);
  if (current && asked && !VIEWS.includes(asked)) return; // a link within the page
  const name = VIEWS.includes(asked) ? asked : VIEWS[0];
  if (name === current) return;
  mounted.get(current)?.hide?.();
  current = name;
  for (const view of VIEWS) document.getElementById(view).hidden = view !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const section = document.getElementById(name);
  document.title = name === VIEWS[0] ? "Millrace" : `${section.ariaLabel} · Millrace`;
  const view = await mount(name, section);
  if (name === current) view?.show?.();
}

/** Give the view, made when it is first shown. */
async function mount(name, section) {
  if (!mounted.has(name)) {
    mounted.set(name, null);
    section.inert = true; // until somebody listens to its forms
    try {
      const module = await import(`./${name}.js`);
      mounted.set(name, (await module.mount(section, app)) ?? {});
    } catch (error) {
      console.error(error);
      tell(`This view did not load: ${error.message}`, section);
    } finally {
      section.inert = false;
    }
  }
  return mounted.get(name);
}

function watchKey() {
  const form = document.getElementById("key");
  const field = document.getElementById("key-value");
  client.onKeyWanted = () => {
    form.hidden = false;
    field.focus();
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    client.key = field.value.trim();
    field.value = "";
    form.hidden = Boolean(client.key);
    if (client.key) window.dispatchEvent(new Event("millrace:key")); // views may ask again
  });
}

function tell(message, place) {
  place.append(make("p", { class: "notice bad", role: "alert" }, message));
}

async function start() {
  watchKey();
  try {
    app.info = await client.get("/info");
  } catch (error) {
    tell(`${error.message} Reload the page once it is back.`, document.getElementById("main"));
    return;
  }
  document.getElementById("model").textContent = app.info.model_id;
  window.addEventListener("hashchange", show);
  await show();
}

start();
