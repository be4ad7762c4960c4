"""why: from one ended request's numbers to one sentence that says why it took as long as it did.

What took most of the time comes first. Every word is ours: nothing of a prompt, an answer or a
client's header is among the numbers. Knows no HTTP and no engine at work.
"""

from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple

from engine import Circumstances, FinishReason, LongStep, WaitedFor
from server.millrace_metrics import Refusal


class Outcome(StrEnum):
    """How a request ended, whatever its sequences say."""

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"
    CLIENT_GONE = "client_gone"
    READER_STALLED = "reader_stalled"
    SHUTDOWN = "shutdown"


_UNDISTURBED = Circumstances()


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One ended request in numbers; of several sequences the times are those of the slowest."""

    outcome: Outcome
    status: int
    reasons: tuple[str, ...]
    """A finish reason for each sequence, or the type of the error."""
    refusal: Refusal | None = None
    num_values: int | None = None
    """What a published generator has yielded; None where none was begun."""
    num_sequences: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0
    total_s: float
    validation_s: float = 0.0
    queue_s: float = 0.0
    prefill_s: float = 0.0
    """From the first step to the first token."""
    decode_s: float = 0.0
    """From the first token to the last."""
    around: Circumstances = _UNDISTURBED

    @property
    def sending_s(self) -> float:
        """What passed from the last token to the last byte."""
        done_s = self.validation_s + self.queue_s + self.prefill_s + self.decode_s
        return max(0.0, self.total_s - done_s)

    @property
    def tokens_per_s(self) -> float | None:
        """Rate after the first token of each sequence; None where there was no second."""
        num_later = self.num_generated_tokens - self.num_sequences
        return num_later / self.decode_s if num_later > 0 and self.decode_s > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How much the server takes on at once."""

    max_rows: int
    max_permits: int


_LEAST_SHARE = 0.05
"""Of the whole time, for a part to be told that need not be."""
_LEAST_S = 0.001
_PAUSE_FACTOR = 3.0
"""A step so many times as long as the mean is a pause."""
_LEAST_PAUSE_S = 0.02


class Part(NamedTuple):
    """Some of the time, and what it was spent with."""

    seconds: float
    phrase: str
    is_told: bool = False
    """However short it was."""


def why(story: Story, room: Room) -> str:
    """Say in one sentence why the request took as long as it did."""
    if story.refusal is not None:
        return f"It was refused {_refused(story, room)}."
    if story.num_values is not None:
        return _published(story, _count(story.num_values, "value"))
    if story.num_sequences == 0:
        return _before_generation(story)
    parts = _parts(story, room)
    largest = max(parts, key=attrgetter("seconds"))
    clauses = [_opening(story) + _dominant(story, largest), *_others(story, parts, largest)]
    clauses += _pause(story) + _ending(story)
    return "; ".join(clauses) + "."


def _refused(story: Story, room: Room) -> str:
    match story.refusal:
        case Refusal.NO_PERMIT:
            permits = _all(room.max_permits, "permit", "permits")
            return f"at once: {permits} held by requests that came before"
        case Refusal.QUEUE_FULL:
            return "at once: the waiting room was full"
        case Refusal.QUEUE_EXPIRED:
            waited = _waiting(story.around, room)
            return (
                f"after {_time(story.total_s)}, as long as a request may wait here, spent {waited}"
            )
        case _:
            return "at once: the server is stopping and takes nothing new"


def _published(story: Story, values: str) -> str:
    """Tell of a published generator, which the engine knows nothing of."""
    after = _time(story.total_s)
    match story.outcome:
        case Outcome.ANSWERED:
            return f"It took {after}, all of it spent by its generator on {values}."
        case Outcome.FAILED:
            return f"Its generator failed after {after} and {values}."
        case Outcome.SHUTDOWN:
            return f"It was ended after {after} and {values}: the server stopped."
        case Outcome.READER_STALLED:
            return f"It was cut off after {after} and {values}: its reader took nothing more."
        case _:
            return f"The client left after {after} and {values}."


def _before_generation(story: Story) -> str:
    """Tell of a request that never reached the engine."""
    after = _time(story.total_s)
    match story.outcome:
        case Outcome.CLIENT_GONE:
            return f"The client left after {after}, before anything was generated."
        case Outcome.FAILED if story.status >= 500:
            return (
                f"It failed after {after} by a fault of the server, before anything was generated."
            )
        case _:
            return f"It was turned down after {after}: {story.status}, {', '.join(story.reasons)}."


def _opening(story: Story) -> str:
    after = _time(story.total_s)
    match story.outcome:
        case Outcome.CLIENT_GONE:
            return f"The client left after {after}"
        case Outcome.READER_STALLED:
            return f"It was cut off after {after} because its reader had stopped reading"
        case Outcome.SHUTDOWN:
            return f"It was ended after {after} because the server stopped"
        case Outcome.FAILED:
            return f"It failed after {after} ({', '.join(story.reasons)})"
        case _:
            return f"It took {after}"


def _parts(story: Story, room: Room) -> list[Part]:
    """List what the time was spent with, in the order of time."""
    around = story.around
    decode_s = max(0.0, story.decode_s - around.preempted_s)
    has_pace = story.num_generated_tokens > story.num_sequences
    return [
        Part(story.validation_s, "checking and encoding it"),
        Part(story.queue_s, _waiting(around, room)),
        Part(story.prefill_s, _prefill(story), is_told=story.num_cached_tokens > 0),
        Part(decode_s, _decoding(story, decode_s), is_told=has_pace),
        Part(around.preempted_s, _preempted(around)),
        Part(story.sending_s, _sending(story)),
    ]


def _dominant(story: Story, largest: Part) -> str:
    share = largest.seconds / story.total_s if story.total_s > 0 else 0.0
    if share >= 0.9:
        return f", nearly all of it spent {largest.phrase}"
    most = "most" if share > 0.5 else "the largest part"
    return f", {most} of it ({_time(largest.seconds)}) spent {largest.phrase}"


def _others(story: Story, parts: list[Part], largest: Part) -> list[str]:
    """Tell the parts beside the largest that are worth a word, as one clause or none."""
    least_s = max(_LEAST_S, _LEAST_SHARE * story.total_s)
    told = [
        f"{_time(part.seconds)} {part.phrase}"
        for part in parts
        if part is not largest and (part.is_told or part.seconds >= least_s)
    ]
    return [f"it also spent {_and(told)}"] if told else []


def _waiting(around: Circumstances, room: Room) -> str:
    ahead = f"{around.num_ahead:,} ahead of it" if around.num_ahead else ""
    match around.waited_for:
        case WaitedFor.ROW:
            rows = _all(room.max_rows, "row of the batch", "rows of the batch")
            return f"waiting while {rows} taken" + _with(ahead)
        case WaitedFor.BLOCKS:
            return "waiting for blocks of the cache while others held them" + _with(ahead)
        case WaitedFor.PREFIX:
            return "waiting while another computed the beginning of its prompt" + _with(ahead)
        case _ if ahead:
            return f"waiting in line with {ahead}"
        case _:
            return "waiting for the step that was running"


def _all(number: int, one: str, several: str) -> str:
    match number:
        case 1:
            return f"the only {one} was"
        case 2:
            return f"both {several} were"
        case _:
            return f"all {number:,} {several} were"


def _with(ahead: str) -> str:
    return f", with {ahead} in line" if ahead else ""


def _prefill(story: Story) -> str:
    num_tokens, num_cached = story.num_prompt_tokens, story.num_cached_tokens
    prompt = f"on a prompt of {_count(num_tokens, 'token')}"
    if story.num_sequences > 1:
        prompt = f"on {story.num_sequences} prompts of {num_tokens:,} tokens together"
    return f"{prompt}, {num_cached:,} of them from the cache" if num_cached else prompt


def _decoding(story: Story, decode_s: float) -> str:
    tokens = _count(story.num_generated_tokens, "token")
    if story.num_sequences > 1:
        tokens += f" in {story.num_sequences} sequences"
    num_later = story.num_generated_tokens - story.num_sequences
    if num_later <= 0 or decode_s <= 0:
        return f"decoding {tokens}"
    rate = num_later / decode_s
    shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
    return f"decoding {tokens} at {shown} a second, {_company(story.around.mean_rows)}"


def _company(mean_rows: float | None) -> str:
    others = round((mean_rows or 1.0) - 1.0, 1)
    if others <= 0:
        return "alone in its steps"
    shown = f"{others:,.0f}" if others >= 10 or others == int(others) else f"{others:.1f}"
    return f"its steps shared with {shown} other{'' if others == 1 else 's'} on average"


def _preempted(around: Circumstances) -> str:
    times = "once" if around.num_preempted == 1 else f"{around.num_preempted} times"
    return f"set aside {times} because the cache was full"


def _sending(story: Story) -> str:
    if story.outcome is Outcome.READER_STALLED:
        return "waiting for a reader that took nothing"
    return "on a reader that took it slowly"


def _pause(story: Story) -> list[str]:
    """Tell the longest pause between two tokens where it stands out."""
    step, rate = story.around.longest_step, story.tokens_per_s
    if step is None or rate is None or step.duration_s < _LEAST_PAUSE_S:
        return []
    usual_s = story.num_sequences / rate
    if step.duration_s < _PAUSE_FACTOR * usual_s:
        return []
    return [f"its longest pause, {_time(step.duration_s)}, {_cause(step)}"]


def _cause(step: LongStep) -> str:
    if step.num_prefill_tokens:
        return (
            f"came when a step took in {_count(step.num_prefill_tokens, 'prompt token')} of others"
        )
    return "came in a step that only decoded"


_ENDINGS = {
    FinishReason.LENGTH: "it ended at its length limit",
    FinishReason.EOS_TOKEN: "the model ended it",
    FinishReason.STOP_SEQUENCE: "a stop string ended it",
}


def _ending(story: Story) -> list[str]:
    if story.outcome is not Outcome.ANSWERED:
        return []
    endings = [_ENDINGS[FinishReason(reason)] for reason in story.reasons]
    return list(dict.fromkeys(endings)) if len(set(endings)) == 1 else []


def _time(seconds: float) -> str:
    """Write a duration with two or three digits that mean something."""
    if seconds < 0.0095:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest} s"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
