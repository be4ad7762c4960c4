// What went wrong, what to do about it, and a way to try again. Keeps no text and sends nothing.

import { make } from "./dom.js";

const WORDS = { many: "tokens", kept: "The text so far is kept.", failed: "The generation failed." };

/**
 * Phrase an ApiError; `retry` is called when the reader asks for another try. `numTokens` is how many
 * came; where they are not tokens, `words` says what they are.
 */
export function notice(error, numTokens, retry, words = WORDS) {
  const { title, advice, canRetry } = explain(error, numTokens, words);
  const text = make("p", { role: "alert" }, make("strong", {}, title), ` ${advice}`);
  const element = make("div", { class: "notice bad stack tight" }, text);
  if (canRetry) element.append(retryButton(error.retryAfterS ?? 0, retry));
  return element;
}

function explain(error, numTokens, words) {
  const message = error.message.replace(/\.$/, "");
  const kept = numTokens ? ` ${words.kept}` : "";
  if (error.errorType === "overloaded") {
    return { title: "The server is full.", advice: `It takes no more requests just now.${kept}`, canRetry: true };
  }
  if (error.status === 401) {
    const advice = "Enter it at the top of the page, then try again.";
    return { title: "This server asks for a key.", advice, canRetry: true };
  }
  if (error.kind === "cut") {
    const advice = `${error.message}${kept} The server may have stopped, or the network is gone.`;
    return { title: `Cut off after ${numTokens} ${words.many}.`, advice, canRetry: true };
  }
  if (error.kind === "network") {
    const advice = "It may have stopped, or the network is gone. Try again when it is back.";
    return { title: error.message, advice, canRetry: true };
  }
  if (error.status >= 400 && error.status < 424) {
    return { title: "The server refused this request.", advice: `${message}. Change it and send again.`, canRetry: false };
  }
  return { title: words.failed, advice: `${message}.${kept}`, canRetry: true };
}

// The seconds count down on the button, which nobody reads out each time.
function retryButton(waitS, retry) {
  const button = make("button", { type: "button", class: "retry", onclick: retry });
  const until = performance.now() + 1000 * waitS;
  const timer = setInterval(tick, 200);
  function tick() {
    const leftS = Math.ceil((until - performance.now()) / 1000);
    button.disabled = leftS > 0;
    button.textContent = leftS > 0 ? `Try again in ${leftS} s` : "Try again";
    if (leftS <= 0) clearInterval(timer);
  }
  tick();
  return make("div", {}, button);
}
