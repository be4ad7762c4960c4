"""Exchange: what one generation request has come to, told once to metrics and log at its end."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

from aiohttp import web

from engine import EngineStopped, Finish, TokenStream, Usage
from server.errors import Problem
from server.live.journal import Journal
from server.live.why import Outcome, Story
from server.logs import RequestRecord, log_request
from server.metrics import Metrics, failure_of
from server.millrace_metrics import Refusal, StreamEnd
from server.sse import EventStream
from server.tgi_metrics import Failure

_LABEL = re.compile(r"[\w.:+-]{1,128}", re.ASCII)


class Exchange:
    """Numbers of one request; made at its arrival, closed when it is over however it ends."""

    def __init__(self, request: web.Request, metrics: Metrics, journal: Journal) -> None:
        self.request_id = uuid4().hex
        """Made by us, and unique; the client's `x-request-id` is only a label in the log."""
        self.is_client_gone = False
        self.refusal: Refusal | None = None
        self.num_values: int | None = None
        """What a published generator has yielded; None on the model's routes."""
        self.fault: BaseException | None = None
        """What a published generator failed by; the log line bears its traceback."""
        self.events: EventStream | None = None
        self.num_characters = 0
        self.validation_s = 0.0
        self._label = label_of(request) or self.request_id
        resource = request.match_info.route.resource
        self._route = request.path  # a route of ours, or a published generator of the operator's
        self._metrics = metrics
        self._journal = journal
        self._arrived = time.monotonic()
        self._entry = journal.begin(self._route, self._arrived)
        self._finishes: list[Finish] = []
        self._problem: Problem | None = None
        self._is_finished = False
        metrics.request_received(resource.canonical if resource is not None else "")

    def parsed(self, *, is_stream: bool) -> None:
        """Note what kind of answer is wanted."""
        self._entry.is_stream = is_stream

    def validated(self) -> None:
        """Note that checks and encoding are done."""
        self.validation_s = time.monotonic() - self._arrived

    def submitted(self, sequence_id: int) -> None:
        """Note that one of its sequences is in the engine."""
        self._entry.sequence_ids.append(sequence_id)

    @contextmanager
    def reading(self, tokens: TokenStream) -> Iterator[TokenStream]:
        """Close the stream however its reader ends, and note what that cuts short."""
        try:
            yield tokens
        finally:
            self._finishes += tokens.close()

    def add(self, finish: Finish) -> None:
        """Note the end of one of its sequences."""
        self._finishes.append(finish)

    def finished(self) -> None:
        """Note that the answer is whole, whatever the client does with its last bytes."""
        self._is_finished = True

    def failed(self, problem: Problem) -> None:
        """Note that there is no whole answer, and why."""
        self._problem = problem

    def timings(self) -> dict[str, str]:
        """Write TGI's headers of an answer that is not streamed: x-total-time and so on, in ms."""
        usages = [finish.usage for finish in self._finishes]
        total_s = time.monotonic() - self._arrived
        inference_s = sum(usage.inference_s for usage in usages)
        num_generated = sum(usage.num_output_tokens for usage in usages)
        return {
            "x-compute-time": str(total_s),
            "x-total-time": _ms(total_s),
            "x-validation-time": _ms(self.validation_s),
            "x-queue-time": _ms(sum(usage.queue_s for usage in usages)),
            "x-inference-time": _ms(inference_s),
            "x-time-per-token": _ms(inference_s / max(1, num_generated)),
            "x-prompt-tokens": str(sum(usage.num_prompt_tokens for usage in usages)),
            "x-generated-tokens": str(num_generated),
        }

    def close(self) -> None:
        """Tell metrics and log, once."""
        duration_s = time.monotonic() - self._arrived
        if self._is_finished:
            self._metrics.request_finished(duration_s)
        elif self._problem is not None:
            self._metrics.request_failed(failure_of(self._problem.error_type), self.refusal)
        else:
            self._metrics.request_failed(Failure.DROPPED)
        if self.events is not None:
            self._close_stream(self.events)
        log_request(self._record(duration_s), None if self._is_shut_down() else self.fault)
        self._journal.end(self._entry, self._story(duration_s))

    def _close_stream(self, events: EventStream) -> None:
        self._metrics.bytes_sent(events.num_bytes)
        if events.is_started:
            self._metrics.stream_ended(self._stream_end(events))

    def _stream_end(self, events: EventStream) -> StreamEnd:
        if self._is_finished:
            return StreamEnd.FINISHED
        if events.is_stalled:
            return StreamEnd.READER_STALLED
        if self._is_shut_down():
            return StreamEnd.SHUTDOWN
        return StreamEnd.CLIENT_GONE if self._problem is None else StreamEnd.ERROR

    def _is_shut_down(self) -> bool:
        errors = (self.fault, *(finish.error for finish in self._finishes))
        return any(isinstance(error, EngineStopped) for error in errors)

    def _reasons(self) -> tuple[str, ...]:
        if self._problem is not None:
            return (str(self.refusal or self._problem.error_type),)
        return tuple(str(finish.reason) for finish in self._finishes)

    def _status(self) -> int:
        is_begun = self.events is not None and self.events.is_started
        return 200 if self._problem is None or is_begun else self._problem.status

    def _record(self, duration_s: float) -> RequestRecord:
        usages = [finish.usage for finish in self._finishes]
        first = [usage.first_token_s for usage in usages if usage.first_token_s is not None]
        return RequestRecord(
            request_id=self._label,
            route=self._route,
            status=self._status(),
            reasons=self._reasons(),
            is_stream=self._entry.is_stream,
            is_client_gone=self.is_client_gone and not self._is_finished,
            num_prompt_tokens=sum(usage.num_prompt_tokens for usage in usages),
            num_cached_tokens=sum(usage.num_cached_tokens for usage in usages),
            num_generated_tokens=sum(usage.num_output_tokens for usage in usages),
            num_values=self.num_values,
            validation_ms=self.validation_s * 1000,
            queue_ms=_longest(usages, "queue_s"),
            inference_ms=_longest(usages, "inference_s"),
            first_token_ms=min(first) * 1000 if first else None,
            total_ms=duration_s * 1000,
        )

    def _story(self, duration_s: float) -> Story:
        story = Story(
            outcome=self._outcome(),
            status=self._status(),
            reasons=self._reasons(),
            refusal=self.refusal,
            total_s=duration_s,
            validation_s=self.validation_s,
            num_values=self.num_values,
        )
        usages = [finish.usage for finish in self._finishes]
        return story if not usages else _with_usages(story, usages)

    def _outcome(self) -> Outcome:
        if self._is_finished:
            return Outcome.ANSWERED
        if self.refusal is not None:
            return Outcome.REFUSED
        if self.events is not None and self.events.is_stalled:
            return Outcome.READER_STALLED
        if self._is_shut_down():
            return Outcome.SHUTDOWN
        return Outcome.CLIENT_GONE if self._problem is None else Outcome.FAILED


def label_of(request: web.Request) -> str | None:
    """Return the client's `x-request-id` where it is short and plain."""
    label = request.headers.get("x-request-id", "")
    return label if _LABEL.fullmatch(label) else None


def _with_usages(story: Story, usages: list[Usage]) -> Story:
    """Add what the sequences cost: all tokens, and the times of the one that ended last."""
    last = max(usages, key=lambda usage: usage.queue_s + usage.inference_s)
    until_first_s = last.queue_s + last.inference_s  # without a token all of it was prefill
    if last.first_token_s is not None:
        until_first_s = last.first_token_s
    return replace(
        story,
        num_sequences=len(usages),
        num_prompt_tokens=sum(usage.num_prompt_tokens for usage in usages),
        num_cached_tokens=sum(usage.num_cached_tokens for usage in usages),
        num_generated_tokens=sum(usage.num_output_tokens for usage in usages),
        queue_s=last.queue_s,
        prefill_s=until_first_s - last.queue_s,
        decode_s=last.queue_s + last.inference_s - until_first_s,
        around=last.around,
    )


def _longest(usages: list[Usage], field: str) -> float | None:
    return max((getattr(usage, field) * 1000 for usage in usages), default=None)


def _ms(seconds: float) -> str:
    return str(round(seconds * 1000))
