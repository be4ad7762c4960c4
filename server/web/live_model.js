// What the feed has told: the last frame, and each request of the last half minute. Draws nothing.

export const WINDOW_MS = 30_000;
export const NUM_LANES = 16;
const GAP_MS = 350; // between two requests of one lane, so that they can be told apart
const SLOW_MS = 600;
const RATE_MS = 1_000; // what a rate is measured over

/** One request; moments in milliseconds on the server's clock, null while they are to come. */
export class Request {
  constructor(number, route, isStream, arrived) {
    Object.assign(this, { number, route, isStream, arrived });
    this.started = this.isGenerator ? arrived : null;
    this.first = this.isGenerator ? arrived : null;
    this.last = null; // its last token, known at its end
    this.end = null;
    this.numPrompt = this.numCached = this.numTokens = this.numPreempted = 0;
    this.samples = []; // pairs [moment, tokens by then]
    this.lane = null;
    this.story = null; // the event that told its end
  }

  get isRefusal() {
    return this.story !== null && isUnserved(this.story);
  }

  get isGenerator() {
    return this.route.startsWith("/generators/");
  }

  /** Where it is, in a word. */
  get state() {
    if (this.end !== null) return this.story?.outcome.replaceAll("_", " ") ?? "ended";
    if (this.isGenerator) return "in its generator";
    if (this.first !== null) return "generating";
    if (this.started !== null) return "reading the prompt";
    return this.numPrompt ? "waiting" : "arriving";
  }

  /** Take its sequences from a frame. */
  update(state, now) {
    const sum = (field) => state.sequences.reduce((total, sequence) => total + sequence[field], 0);
    const earliest = (field) => Math.min(...state.sequences.map((s) => s[field] ?? Infinity));
    const moment = (field) => (Number.isFinite(earliest(field)) ? earliest(field) : null);
    if (state.sequences.length === 0) return; // between its last token and its last byte
    this.started = moment("started_ms") ?? this.started;
    this.first = moment("first_token_ms") ?? this.first;
    this.numPrompt = sum("num_prompt_tokens");
    this.numCached = sum("num_cached_tokens");
    this.numTokens = sum("num_output_tokens");
    this.numPreempted = sum("num_preempted");
    if (this.first !== null) this.samples.push([now, this.numTokens]);
  }

  /** Take its end. */
  finish(story) {
    this.story = story;
    this.end = story.arrived_ms + story.total_ms;
    if (isUnserved(story)) return;
    if (this.isGenerator) {
      this.#finishGenerator(story);
      return;
    }
    this.started = story.arrived_ms + story.validation_ms + story.queue_ms;
    this.numPrompt = story.num_prompt_tokens;
    this.numCached = story.num_cached_tokens;
    this.numTokens = story.num_generated_tokens;
    this.last = this.started + story.prefill_ms + story.decode_ms;
    if (this.numTokens === 0) return;
    this.first ??= this.started + story.prefill_ms;
    this.samples = this.samples.filter(([moment]) => moment < this.last);
    this.samples.push([Math.max(this.last, this.first + 1), this.numTokens]);
  }

  // What it yielded is drawn as tokens are; when each came is not known.
  #finishGenerator(story) {
    this.started = this.first = story.arrived_ms + story.validation_ms;
    this.last = Math.max(this.end, this.first + 1);
    this.numTokens = story.num_values;
    this.samples = [[this.last, story.num_values]];
  }

  /** Give [from, to, tokens per second], piece by piece; slow tokens share a piece. */
  flow() {
    const pieces = [];
    let [from, before] = [this.first, 0];
    for (const [to, tokens] of this.samples) {
      const isLast = to === this.samples.at(-1)[0];
      if (to <= from || (!isLast && to - from < SLOW_MS && tokens - before < 3)) continue;
      pieces.push([from, to, ((tokens - before) / (to - from)) * 1000]);
      [from, before] = [to, tokens];
    }
    return pieces;
  }
}

/** Tell whether a request was refused or turned down before anything was done for it. */
function isUnserved(story) {
  return story.num_sequences === 0 && story.num_values === null;
}

export class Model {
  constructor() {
    this.reset(null);
  }

  /** Forget everything: another server speaks. */
  reset(hello) {
    this.hello = hello;
    this.frame = null;
    this.requests = new Map();
    this.ended = []; // requests that have ended, the newest first
    this.totals = []; // pairs [moment, tokens of all requests by then]
    this.clock = -Infinity; // the server's clock less ours
  }

  /** Take an event that arrived at `at` by `performance.now()`. */
  take(event, at) {
    if (event.type === "hello" && event.started_unix_ms !== this.hello?.started_unix_ms) this.reset(event);
    else if (event.type === "frame") this.#takeFrame(event, at);
    else if (event.type === "ended") this.#takeEnded(event);
  }

  /** The server's time, in milliseconds since its start. */
  now() {
    return this.frame === null ? 0 : performance.now() + this.clock;
  }

  /** Tokens per second of all requests, over the last second. */
  rate() {
    const last = this.totals.at(-1);
    if (!last || !this.frame.num_open) return 0;
    const first = this.totals.findLast(([moment]) => moment <= last[0] - RATE_MS) ?? this.totals[0];
    return last[0] > first[0] ? ((last[1] - first[1]) / (last[0] - first[0])) * 1000 : 0;
  }

  open() {
    return [...this.requests.values()].filter((request) => request.end === null);
  }

  #takeFrame(frame, at) {
    // the frame that was quickest on its way tells the time best
    this.clock = Math.max(frame.now_ms - at, this.clock - 1);
    const shown = new Set(frame.requests.map((state) => state.request));
    for (const state of frame.requests) {
      this.#request(state, null).update(state, frame.now_ms);
    }
    for (const request of this.open()) {
      if (!shown.has(request.number) && frame.num_open <= this.hello.max_shown) request.end = frame.now_ms;
    }
    this.totals.push([frame.now_ms, frame.num_generated_tokens]);
    this.frame = frame;
    this.#forget(frame.now_ms - WINDOW_MS - 2_000);
  }

  #takeEnded(story) {
    if (this.ended.some((request) => request.number === story.request)) return; // told before
    const request = this.#request(story, story.arrived_ms + story.total_ms);
    request.finish(story);
    this.ended = [request, ...this.ended].slice(0, this.hello.max_ended);
  }

  #request(told, end) {
    const known = this.requests.get(told.request);
    if (known) return known;
    const request = new Request(told.request, told.route, told.is_stream, told.arrived_ms);
    const isNoBar = end !== null && isUnserved(told);
    request.lane = isNoBar ? null : this.#freeLane(told.arrived_ms, end ?? Infinity);
    this.requests.set(told.request, request);
    return request;
  }

  /** Find the first lane in which nothing else is drawn at that time. */
  #freeLane(start, end) {
    const taken = new Set();
    for (const { lane, arrived, end: until } of this.requests.values()) {
      if (arrived < end + GAP_MS && (until ?? Infinity) > start - GAP_MS) taken.add(lane);
    }
    for (let lane = 0; lane < NUM_LANES; lane++) if (!taken.has(lane)) return lane;
    return null;
  }

  #forget(before) {
    for (const [number, { end }] of this.requests) {
      if (end !== null && end < before) this.requests.delete(number);
    }
    while (this.totals.length > 2 && this.totals[1][0] < before) this.totals.shift();
  }
}
