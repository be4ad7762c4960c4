"""Question: what a load asks, in a client's words, and what became of it by the answer's own words.

Speaks three dialects as a client does. Knows neither sockets nor clocks.
"""

import json
import random
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from server.recording import Answer, BadAnswer, Recording, read_answer, read_events

_ENGLISH = (
    "time year people way day man thing woman life child world school state family student group "
    "country problem hand part place case week company system program question work number night "
    "point home water room mother area money story fact month lot right study book eye job word "
    "business issue side kind head house service friend father power hour"
)
_DONE = b"[DONE]"


class Dialect(StrEnum):
    """Which route is asked; all of them stream."""

    TGI = "tgi"
    COMPLETIONS = "completions"
    CHAT = "chat"


class Ending(StrEnum):
    """What became of a request."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """429: there was no room."""
    FAILED = "failed"


PATHS = {
    Dialect.TGI: "/generate_stream",
    Dialect.COMPLETIONS: "/v1/completions",
    Dialect.CHAT: "/v1/chat/completions",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One request, by the clock of the client; moments in seconds."""

    ending: Ending
    due: float
    sent: float
    token_times: tuple[float, ...] = ()
    """When each event came that may carry a token."""
    end: float = 0.0
    num_prompt_tokens: int = 0
    num_tokens: int = 0
    """By the server's own count, which the events bear out."""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One kind of request; greedy, with other words in every prompt, so that no cache helps."""

    dialect: Dialect = Dialect.TGI
    model: str = "model"
    num_prompt_words: int = 64
    num_output_tokens: int = 64
    ignore_eos: bool = True
    """Ask for exactly so many tokens, and take any other number for an error."""
    words: tuple[str, ...] = tuple(_ENGLISH.split())
    """Where each is one token of the model, prompts have an exact length in tokens."""
    prefix: str = ""
    """Stands before the words of every prompt; a server may know it from its cache."""
    is_plain: bool = False
    """Send no field that OpenAI's route does not know, and take the count of tokens for the end:
    some servers refuse `ignore_eos` and send no `[DONE]`."""

    def prompt(self, dice: random.Random) -> str:
        """Make up a prompt."""
        words = dice.choices(self.words, k=self.num_prompt_words)
        return self.prefix + "".join(f" {word}" for word in words)

    def body(self, prompt: str) -> bytes:
        """Write the JSON that asks."""
        asked = self._native(prompt) if self._is_native else self._openai(prompt)
        return json.dumps(asked).encode()

    def outcome(self, recording: Recording) -> Outcome:
        """Say what became of a request; whatever is not whole and rightly counted has failed."""
        try:
            answer = read_answer(recording)
            if answer.status == 429:
                return Outcome(ending=Ending.REFUSED, due=recording.due, sent=recording.sent)
            tally = self._tally(answer)
        except BadAnswer as error:
            return Outcome(
                ending=Ending.FAILED,
                due=recording.due,
                sent=recording.sent,
                error="; ".join(filter(None, (str(error), recording.failure))),
            )
        return Outcome(
            ending=Ending.ANSWERED,
            due=recording.due,
            sent=recording.sent,
            token_times=tuple(tally.times),
            end=recording.reads[-1][0],
            num_prompt_tokens=tally.num_prompt_tokens or 0,
            num_tokens=tally.num_tokens or 0,
        )

    @property
    def _is_native(self) -> bool:
        return self.dialect is Dialect.TGI

    def _native(self, prompt: str) -> dict[str, Any]:
        parameters: dict[str, Any] = {"max_new_tokens": self.num_output_tokens, "details": True}
        if self.ignore_eos:
            parameters["ignore_eos"] = True
        return {"inputs": prompt, "parameters": parameters}

    def _openai(self, prompt: str) -> dict[str, Any]:
        asked: dict[str, Any] = {
            "model": self.model,
            "max_tokens": self.num_output_tokens,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.ignore_eos and not self.is_plain:
            asked["ignore_eos"] = True
        if self.dialect is Dialect.CHAT:
            return asked | {"messages": [{"role": "user", "content": prompt}]}
        return asked | {"prompt": prompt}

    def _tally(self, answer: Answer) -> "_Tally":
        """Count a stream's events; raises BadAnswer where they are not all that was asked for."""
        if answer.status != 200:
            text = answer.body[:160].decode(errors="replace")
            raise BadAnswer(f"HTTP {answer.status}: {text}")
        tally = _Tally()
        for when, data in read_events(answer.pieces):
            if data == _DONE:
                tally.is_ended = True
            else:
                self._add(tally, when, data)
        if not answer.is_whole:
            raise BadAnswer("the answer was cut off")
        if self.is_plain:
            tally.is_ended = tally.num_tokens is not None
        tally.check(self.num_output_tokens, is_exact=self.ignore_eos)
        return tally

    def _add(self, tally: "_Tally", when: float, data: bytes) -> None:
        try:
            event = json.loads(data)
            problem = event.get("error")
            if problem is None and self._is_native:
                tally.add_native(when, event)
            elif problem is None:
                tally.add_openai(when, event)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise BadAnswer(f"not an event of this dialect: {data[:160]!r}") from error
        if problem is not None:
            raise BadAnswer(f"an error event: {str(problem)[:160]}")


@dataclass(eq=False, slots=True)
class _Tally:
    """What the events of one stream add up to."""

    times: list[float] = field(default_factory=list)
    num_sure: int = 0
    """Events that surely carry a token."""
    num_prompt_tokens: int | None = None
    num_tokens: int | None = None
    is_ended: bool = False

    def add_native(self, when: float, event: dict[str, Any]) -> None:
        """Take one of TGI's events: one token each, the last with the details."""
        if event.get("token") is not None:
            self.times.append(when)
            self.num_sure += 1
        if (details := event.get("details")) is not None:
            self.num_prompt_tokens = details.get("input_length")
            self.num_tokens = details["generated_tokens"]
            self.is_ended = True

    def add_openai(self, when: float, event: dict[str, Any]) -> None:
        """Take one of OpenAI's chunks; one without text may carry half a character or nothing."""
        for choice in event.get("choices") or ():
            delta = choice.get("delta", choice)
            text = delta.get("text", delta.get("content", delta.get("reasoning_content")))
            is_greeting = not self.times and not text and "role" in delta
            if text is not None and not is_greeting:
                self.times.append(when)
                self.num_sure += bool(text)
        if (usage := event.get("usage")) is not None:
            self.num_prompt_tokens = usage["prompt_tokens"]
            self.num_tokens = usage["completion_tokens"]

    def check(self, num_asked: int, *, is_exact: bool) -> None:
        """Raise BadAnswer where the stream did not end, or its counts do not agree."""
        num_events = len(self.times)
        if not self.is_ended:
            raise BadAnswer("the stream has no end")
        if self.num_tokens is None:
            raise BadAnswer("the server told no count of tokens")
        if num_events == 0 or not self.num_sure <= self.num_tokens <= num_events:
            raise BadAnswer(f"the server counts {self.num_tokens} tokens, {num_events} events came")
        if self.num_tokens > num_asked or (is_exact and self.num_tokens < num_asked):
            raise BadAnswer(f"{num_asked} tokens were asked for, {self.num_tokens} came")
