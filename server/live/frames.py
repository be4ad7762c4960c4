"""Frames: the events of the live feed as types, and how each is made from the server's numbers.

Numbers and words of ours only: no prompt, no answer, nothing that a client chose. Moments are
milliseconds since the server started, so that a watcher can draw them on one axis. Knows no HTTP.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from engine import EngineStats, SequenceProgress
from server.dialects import wire
from server.dialects.answers import Count, Sentence, Text, Word
from server.live.journal import MAX_ENDED, EndedRequest, Journal, OpenRequest
from server.live.why import Room, why

SCHEMA = 1
MAX_SHOWN = 64
"""Open requests in a frame, the oldest: so the size of a frame has a bound."""

Total = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Ms = Annotated[float, Meta(ge=0.0, le=1e15)]
Words = Annotated[list[Word], Meta(max_length=64)]


class HelloEvent(Struct, tag_field="type", tag="hello"):
    """The first event: what does not change while the server runs."""

    schema: Annotated[Count, Meta(description="Grows when a field goes or changes its meaning.")]
    server_version: Word
    model_id: Text
    started_unix_ms: Annotated[Total, Meta(description="Another one is another server.")]
    frame_ms: Annotated[Ms, Meta(description="The least time between two frames.")]
    max_rows: Count
    max_permits: Count
    num_blocks: Count
    block_size: Count
    max_shown: Count
    max_ended: Count


class SequenceState(Struct):
    """How far one sequence of a request has come."""

    state: Annotated[Word, Meta(extra_json_schema={"enum": ["waiting", "running"]})]
    num_prompt_tokens: Count
    num_cached_tokens: Count
    num_computed_tokens: Count
    num_output_tokens: Count
    num_preempted: Count
    submitted_ms: Ms
    started_ms: Ms | None
    first_token_ms: Ms | None


class RequestState(Struct):
    """One open request; without sequences it is being read or checked, or it is a generator's."""

    request: Annotated[Total, Meta(description="Counts arrivals since the server started.")]
    route: Word
    is_stream: bool
    arrived_ms: Ms
    sequences: Annotated[list[SequenceState], Meta(max_length=4096)]


class StepState(Struct):
    """The last step."""

    duration_ms: Ms
    num_prefill_tokens: Count
    num_decode_tokens: Count


class FrameEvent(Struct, tag_field="type", tag="frame"):
    """Everything as it is now; no frame depends on another, so one may be missed."""

    now_ms: Ms
    is_draining: bool
    num_waiting: Count
    num_waiting_tokens: Count
    num_running: Count
    num_blocks_used: Count
    num_blocks_cached: Annotated[Count, Meta(description="Unused, but with a known prefix.")]
    num_permits_held: Count
    num_steps: Total
    num_generated_tokens: Total
    num_requests: Total
    num_refused: dict[Word, Total]
    step: StepState | None
    num_open: Count
    requests: Annotated[list[RequestState], Meta(max_length=MAX_SHOWN)]


class EndedEvent(Struct, tag_field="type", tag="ended"):
    """One request that has ended; of several sequences the times are those of the slowest."""

    request: Total
    route: Word
    is_stream: bool
    outcome: Word
    status: Annotated[int, Meta(ge=100, le=599)]
    reasons: Words
    refusal: Word | None
    num_values: Annotated[Count | None, Meta(description="Of a published generator.")]
    num_sequences: Count
    num_prompt_tokens: Count
    num_cached_tokens: Count
    num_generated_tokens: Count
    num_preempted: Count
    arrived_ms: Ms
    validation_ms: Ms
    queue_ms: Ms
    prefill_ms: Ms
    decode_ms: Ms
    sending_ms: Ms
    total_ms: Ms
    tokens_per_s: Annotated[float, Meta(ge=0.0, le=1e12)] | None
    why: Annotated[Sentence, Meta(description="Why it took as long as it did.")]


class ByeEvent(Struct, tag_field="type", tag="bye"):
    """The last event: the server stops. A feed that ends without it was cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What is shown, and whom to ask for it."""

    version: str
    model_id: str
    started_unix_s: float
    started_at: float
    """The same moment on the engine's clock, in seconds."""
    room: Room
    num_blocks: int
    block_size: int
    read_now: Callable[[], float]
    read_engine: Callable[[], EngineStats]
    read_progress: Callable[[], Iterable[SequenceProgress]]
    read_num_permits: Callable[[], int]
    read_is_draining: Callable[[], bool]


class Frames:
    """Makes the feed's events, as bytes; none of them waits for anything."""

    def __init__(self, watched: Watched, journal: Journal) -> None:
        self._watched = watched
        self._journal = journal

    def hello(self, frame_s: float) -> bytes:
        """Give the first event."""
        watched = self._watched
        return wire.event(
            HelloEvent(
                schema=SCHEMA,
                server_version=watched.version,
                model_id=watched.model_id,
                started_unix_ms=round(watched.started_unix_s * 1000),
                frame_ms=frame_s * 1000,
                max_rows=watched.room.max_rows,
                max_permits=watched.room.max_permits,
                num_blocks=watched.num_blocks,
                block_size=watched.block_size,
                max_shown=MAX_SHOWN,
                max_ended=MAX_ENDED,
            )
        )

    def frame(self) -> bytes:
        """Give the state of now."""
        watched, journal = self._watched, self._journal
        stats = watched.read_engine()
        progress = {sequence.sequence_id: sequence for sequence in watched.read_progress()}
        return _event(
            FrameEvent(
                now_ms=self._ms(watched.read_now()),
                is_draining=watched.read_is_draining(),
                num_waiting=stats.num_waiting,
                num_waiting_tokens=stats.num_waiting_tokens,
                num_running=stats.num_running,
                num_blocks_used=stats.num_blocks - stats.num_free_blocks,
                num_blocks_cached=stats.num_cached_blocks,
                num_permits_held=watched.read_num_permits(),
                num_steps=stats.num_steps,
                num_generated_tokens=stats.num_generated_tokens,
                num_requests=journal.num_requests,
                num_refused={str(reason): n for reason, n in journal.num_refused.items()},
                step=_step(stats),
                num_open=len(journal.open),
                requests=[
                    self._request(request, progress)
                    for request in islice(journal.open.values(), MAX_SHOWN)
                ],
            )
        )

    def ended_after(self, place: int) -> bytes:
        """Give what ended after that many others, in order; nothing where nothing did."""
        return b"".join(_event(self._ended(e)) for e in self._journal.ended_after(place))

    def bye(self) -> bytes:
        """Give the last event."""
        return _event(ByeEvent())

    def _request(self, request: OpenRequest, progress: dict[int, SequenceProgress]) -> RequestState:
        known = (progress.get(sequence_id) for sequence_id in request.sequence_ids)
        return RequestState(
            request.number,
            request.route,
            request.is_stream,
            self._ms(request.arrived_at),
            [self._sequence(sequence) for sequence in known if sequence is not None],
        )

    def _sequence(self, sequence: SequenceProgress) -> SequenceState:
        started_at, first_at = sequence.started_at, sequence.first_token_at
        return SequenceState(
            "running" if sequence.is_running else "waiting",
            sequence.num_prompt_tokens,
            sequence.num_cached_tokens,
            sequence.num_computed_tokens,
            sequence.num_output_tokens,
            sequence.num_preempted,
            self._ms(sequence.submitted_at),
            None if started_at is None else self._ms(started_at),
            None if first_at is None else self._ms(first_at),
        )

    def _ended(self, ended: EndedRequest) -> EndedEvent:
        story = ended.story
        rate = story.tokens_per_s
        return EndedEvent(
            request=ended.number,
            route=ended.route,
            is_stream=ended.is_stream,
            outcome=story.outcome,
            status=story.status,
            reasons=list(story.reasons),
            refusal=story.refusal,
            num_values=story.num_values,
            num_sequences=story.num_sequences,
            num_prompt_tokens=story.num_prompt_tokens,
            num_cached_tokens=story.num_cached_tokens,
            num_generated_tokens=story.num_generated_tokens,
            num_preempted=story.around.num_preempted,
            arrived_ms=self._ms(ended.arrived_at),
            validation_ms=_ms(story.validation_s),
            queue_ms=_ms(story.queue_s),
            prefill_ms=_ms(story.prefill_s),
            decode_ms=_ms(story.decode_s),
            sending_ms=_ms(story.sending_s),
            total_ms=_ms(story.total_s),
            tokens_per_s=None if rate is None else round(rate, 1),
            why=why(story, self._watched.room),
        )

    def _ms(self, moment: float) -> float:
        return _ms(moment - self._watched.started_at)


def _step(stats: EngineStats) -> StepState | None:
    step = stats.last_step
    if step is None:
        return None
    return StepState(_ms(step.duration_s), step.num_prefill_tokens, step.num_decode_tokens)


def _ms(seconds: float) -> float:
    return round(max(0.0, seconds) * 1000, 1)


def _event(event: Struct) -> bytes:
    """Encode without `wire`'s escapes, at a tenth of its cost: all words here are ASCII."""
    return b"data: " + msgspec.json.encode(event) + b"\n\n"
