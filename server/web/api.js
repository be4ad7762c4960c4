// Talking to the server: JSON, and server-sent events as they arrive. Knows nothing of the page.

const DONE = "[DONE]";

/**
 * What went wrong, in the server's words where it said any.
 *
 * `kind` is "status" (refused before the first event), "event" (an error event ended the stream),
 * "cut" (the stream broke off without an end) or "network" (there was no answer at all).
 */
export class ApiError extends Error {
  constructor(kind, message, { status = null, errorType = null, retryAfterS = null } = {}) {
    super(message);
    this.name = "ApiError";
    Object.assign(this, { kind, status, errorType, retryAfterS });
  }
}

export class Client {
  constructor(origin = location.origin, storage = sessionStorage) {
    this.origin = origin;
    this.storage = storage;
    /** Called when the server asks for a key. */
    this.onKeyWanted = () => {};
  }

  get key() {
    return this.storage.getItem("key") ?? "";
  }

  set key(value) {
    if (value) this.storage.setItem("key", value);
    else this.storage.removeItem("key");
  }

  /** GET a path; give the JSON, or throw ApiError. */
  async get(path, { signal } = {}) {
    return parsed(await (await this.#fetch("GET", path, undefined, signal)).text());
  }

  /** POST a body; give the JSON, or throw ApiError. */
  async post(path, body, { signal } = {}) {
    return parsed(await (await this.#fetch("POST", path, body, signal)).text());
  }

  /**
   * POST a body (without one: GET) and yield each event as `{data, at, event}`: its parsed JSON, when
   * it arrived by `performance.now()`, and its name. Throws ApiError, also for an error event and for
   * a stream that breaks off; leaving the loop or aborting the signal ends the request.
   */
  async *stream(path, body, { signal } = {}) {
    const method = body === undefined ? "GET" : "POST";
    const response = await this.#fetch(method, path, body, signal);
    let isEnded = false;
    for await (const { text, event, at } of events(response, signal)) {
      isEnded ||= text === DONE;
      if (text === DONE) continue;
      const data = parsed(text);
      if (data?.error_type !== undefined && data.error !== undefined) {
        throw errorOf("event", data);
      }
      isEnded ||= typeof data?.generated_text === "string" || data?.end === true;
      yield { data, at, event };
    }
    if (!isEnded && hasEnd(path)) throw cut();
  }

  async #fetch(method, path, body, signal) {
    const headers = { Accept: "application/json, text/event-stream" };
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(this.origin + path, {
        method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError("network", "The server does not answer.");
    }
    if (response.ok) return response;
    if (response.status === 401) this.onKeyWanted();
    throw await refusal(response);
  }
}

/** Tell whether an error only says that we left ourselves. */
export function isAbort(error) {
  return error?.name === "AbortError";
}

async function* events(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (true) {
      const { value, done } = await reader.read();
      const at = performance.now();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = fields(block);
        if (event.text) yield { ...event, at };
      }
    }
  } catch (error) {
    if (signal?.aborted || isAbort(error) || error instanceof ApiError) throw error;
    throw cut();
  } finally {
    reader.cancel().catch(() => {});
  }
}

function fields(block) {
  const lines = block.split("\n");
  const named = (name) => lines
    .filter((line) => line.startsWith(`${name}:`))
    .map((line) => line.slice(name.length + 1).replace(/^ /, ""));
  return { text: named("data").join("\n"), event: named("event")[0] ?? "message" };
}

// Streams that tell their own end: an end without it was a cut, even through a proxy.
function hasEnd(path) {
  return /^\/(v1|generators)\//.test(path) || path === "/generate_stream";
}

function cut() {
  return new ApiError("cut", "The connection broke off before the answer had ended.");
}

async function refusal(response) {
  const { status } = response;
  const retryAfterS = Number(response.headers.get("Retry-After")) || null;
  try {
    return errorOf("status", await response.json(), { status, retryAfterS });
  } catch {
    return new ApiError("status", response.statusText || `Status ${status}`, { status, retryAfterS });
  }
}

// TGI's routes say `error: text`, OpenAI's `error: {message}`; both have `error_type`.
function errorOf(kind, body, more = {}) {
  const message = body.error?.message ?? body.error ?? "The server gave no reason.";
  const status = more.status ?? body.error?.http_status_code ?? null;
  return new ApiError(kind, String(message), { ...more, status, errorType: body.error_type ?? null });
}

// A seed has 64 bits: what a number cannot hold stays as it is written.
function parsed(text) {
  return JSON.parse(text, (key, value, context) =>
    Number.isInteger(value) && !Number.isSafeInteger(value) ? context?.source ?? value : value);
}
