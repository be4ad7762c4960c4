// Following the live feed: one connection, opened again when it breaks, with longer and longer pauses.

import { isAbort } from "./api.js";

const FIRST_PAUSE_S = 1;
const LONGEST_PAUSE_S = 15;

export class Feed {
  #client;
  #onEvent;
  #onState;
  #leaving = null;

  /** `onEvent(event, at)` hears every event, `onState(isOpen, message)` what becomes of the connection. */
  constructor(client, onEvent, onState) {
    this.#client = client;
    this.#onEvent = onEvent;
    this.#onState = onState;
  }

  /** Follow until `stop`; harmless when it does already. */
  start() {
    if (this.#leaving) return;
    this.#leaving = new AbortController();
    this.#follow(this.#leaving.signal);
  }

  /** Hang up. */
  stop() {
    this.#leaving?.abort();
    this.#leaving = null;
  }

  async #follow(signal) {
    let pauseS = FIRST_PAUSE_S;
    while (!signal.aborted) {
      let told = { message: "The feed broke off." };
      try {
        for await (const { data, at } of this.#client.stream("/events", undefined, { signal })) {
          if (data.type === "hello") {
            pauseS = FIRST_PAUSE_S;
            this.#onState(true, "Live");
          }
          if (data.type === "bye") told = { message: "The server has stopped." };
          this.#onEvent(data, at);
        }
      } catch (error) {
        if (signal.aborted || isAbort(error)) return;
        told = explain(error);
      }
      if (signal.aborted) return;
      const waitS = told.waitS ?? pauseS;
      this.#onState(false, told.isFinal ? told.message : `${told.message} Trying again in ${waitS} s.`);
      if (!(await pause(told.isFinal ? Infinity : waitS, signal))) return;
      pauseS = Math.min(2 * pauseS, LONGEST_PAUSE_S);
    }
  }
}

function explain(error) {
  switch (error.status) {
    case 401: return { message: "This server asks for a key: give it above.", isFinal: true };
    case 404: return { message: "The live feed is turned off on this server (--no-events).", isFinal: true };
    case 429: return { message: `${error.message}.`, waitS: error.retryAfterS ?? 5 };
    default: return { message: error.kind === "cut" ? "The feed broke off." : error.message };
  }
}

/** Wait; a new key ends the wait. Gives false where nobody waits any more. */
function pause(seconds, signal) {
  return new Promise((resolve) => {
    const timer = seconds === Infinity ? null : setTimeout(() => done(true), seconds * 1000);
    const again = () => done(true);
    const left = () => done(false);
    function done(isWanted) {
      clearTimeout(timer);
      window.removeEventListener("millrace:key", again);
      signal.removeEventListener("abort", left);
      resolve(isWanted);
    }
    window.addEventListener("millrace:key", again);
    signal.addEventListener("abort", left);
  });
}
