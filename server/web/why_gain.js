// What a reader gains, in numbers and in a sentence. Computes from what was measured; shows nothing.

/** Show seconds as a reader compares them: 0.04 s, 1.90 s, 12.3 s. */
export function seconds(value) {
  return `${value < 9.995 ? value.toFixed(2) : value.toFixed(1)} s`;
}

/**
 * Give the seconds at which a side had its first words, half of its text and its end; null for what
 * has not come. Until a side ends, half is half of the tokens that were asked for.
 */
export function marks({ arrivals, endS, limit }) {
  const total = endS === null ? limit : arrivals.length;
  return {
    first: arrivals[0] ?? null,
    half: arrivals[Math.ceil(total / 2) - 1] ?? null,
    end: endS,
  };
}

/** Say what the reader of the streamed side gained over the reader of the whole answer. */
export function gain(streamed, whole) {
  const early = marks(streamed);
  const late = marks(whole);
  if (early.end === null || late.end === null) {
    return "No comparison this time: not both sides came to their end.";
  }
  if (early.first === null) return "The model had nothing to say: both answers are empty.";
  const saved = rounded(late.first) - rounded(early.first);
  if (saved < 0.05) {
    return `Both sides were there after ${seconds(late.end)}: so short an answer gains nothing. `
      + "Ask for a longer one.";
  }
  return `Streaming showed the first words after ${seconds(early.first)} instead of `
    + `${seconds(late.first)}: you could read for ${seconds(saved)} while the rest was written.`;
}

/** Say what the reader had when the run was stopped after so many seconds. */
export function gainUntil(stoppedS, streamed, whole) {
  const shown = streamed.arrivals.length;
  const other = whole.arrivals.length;
  if (!shown && !other) return `You stopped after ${seconds(stoppedS)}, before the first words.`;
  return `You stopped after ${seconds(stoppedS)}: streaming had shown you ${tokens(shown)} by then, `
    + `the other side ${other || "none"}.`;
}

/** Say how much was written, how fast, and whether both sides say the same. */
export function account(streamed, whole) {
  const { first, end } = marks(streamed);
  const number = streamed.arrivals.length;
  const rate = number > 1 && end > first ? Math.round((number - 1) / (end - first)) : null;
  const speed = rate === null ? "" : `, ${rate.toLocaleString("en")} tokens a second on each side`;
  if (streamed.text !== whole.text) return `The two texts differ${speed}.`;
  return `Both sides say the same, word for word: ${tokens(number)}${speed}.`;
}

function rounded(value) {
  return Number(value.toFixed(2));
}

function tokens(number) {
  return number === 1 ? "1 token" : `${number.toLocaleString("en")} tokens`;
}
