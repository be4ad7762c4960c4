"""Answer: what the events of one stream add up to, in either family of dialects, and how fast.

Knows no connections; moments are handed in, in seconds of one clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.client.failure import ExitCode, Failure, error_event


@dataclass(frozen=True, slots=True)
class AnswerToken:
    """One token as the server showed it."""

    text: str
    logprob: float | None


@dataclass(eq=False, slots=True)
class Answer:
    """Fills event by event."""

    sent: float = 0.0
    text: str = ""
    thoughts: str = ""
    """What was thought before it, where the server tells them apart."""
    tokens: list[AnswerToken] = field(default_factory=list)
    """Where the server shows them: TGI always, OpenAI's completions with `logprobs`."""
    first: float | None = None
    """When the first event came that carries a token."""
    last: float = 0.0
    num_events: int = 0
    """Those that carry a token."""
    finish_reason: str | None = None
    num_tokens: int | None = None
    """By the server's count."""
    num_prompt_tokens: int | None = None
    num_cached_tokens: int | None = None
    seed: int | None = None

    def add(self, event: Mapping[str, Any], now: float) -> str:
        """Take an event and give the text it adds; raises Failure for an error event."""
        if (failure := error_event(event)) is not None:
            raise failure
        try:
            text = self._native(event, now) if "token" in event else self._openai(event, now)
        except (AttributeError, KeyError, TypeError) as error:
            raise Failure(f"not an event of TGI or OpenAI: {str(event)[:200]}") from error
        self.text += text
        return text

    def check_end(self) -> None:
        """Raise Failure unless the last event said that it is the last."""
        if self.finish_reason is None:
            raise Failure("the answer has no end: the server went away", ExitCode.UNREACHABLE)

    @property
    def count(self) -> int:
        """Give the number of tokens, by the server's count as soon as it is known."""
        return self.num_events if self.num_tokens is None else self.num_tokens

    @property
    def tokens_per_s(self) -> float | None:
        """Give the pace after the first token."""
        if self.first is None or self.count < 2 or self.last <= self.first:
            return None
        return (self.count - 1) / (self.last - self.first)

    def _native(self, event: Mapping[str, Any], now: float) -> str:
        token = event["token"]
        self._came(now, [AnswerToken(token["text"], token.get("logprob"))])
        if event.get("generated_text") is not None:
            details = event.get("details") or {}
            self.finish_reason = details.get("finish_reason", "unknown")
            self.num_tokens = details.get("generated_tokens")
            self.num_prompt_tokens = details.get("input_length")
            self.num_cached_tokens = details.get("cached_tokens")
            self.seed = details.get("seed")
        return "" if token.get("special") else str(token["text"])

    def _openai(self, event: Mapping[str, Any], now: float) -> str:
        if (usage := event.get("usage")) is not None:
            self.num_tokens = usage["completion_tokens"]
            self.num_prompt_tokens = usage["prompt_tokens"]
            self.num_cached_tokens = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
        return "".join([self._choice(choice, now) for choice in event.get("choices") or ()])

    def _choice(self, choice: Mapping[str, Any], now: float) -> str:
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        delta = choice.get("delta", choice)
        text = delta.get("text", delta.get("content"))
        thought = delta.get("reasoning_content") or ""
        self.thoughts += thought
        # The first chunk of a chat only greets: it has a role, and no token.
        if text or thought or (text is not None and "role" not in delta):
            self._came(now, _shown(choice.get("logprobs") or {}))
        return text or ""

    def _came(self, now: float, tokens: Iterable[AnswerToken]) -> None:
        self.first = now if self.first is None else self.first
        self.last = now
        self.num_events += 1
        self.tokens.extend(tokens)


def _shown(logprobs: Mapping[str, Any]) -> list[AnswerToken]:
    columns = (logprobs.get("tokens") or (), logprobs.get("token_logprobs") or ())
    return [AnswerToken(text, logprob) for text, logprob in zip(*columns, strict=False)]
