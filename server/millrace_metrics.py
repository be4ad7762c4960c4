"""The metrics under our own names: what each is called, its labels, and its buckets.

They are there from the first scrape. Knows neither TGI's names nor who counts.
"""

from enum import StrEnum

from engine import EngineStats, FinishReason, SequenceStats, StepStats
from server.series import ALONE, Counter, Histogram, gauge
from server.tgi_metrics import Failure

ROUTES = (
    "/",
    "/generate",
    "/generate_stream",
    "/generators/{name}",
    "/invocations",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/messages",
    "/v1/responses",
    "/vertex",
)
OTHER_ROUTE = "other"
FINISHED = "finished"
"""The outcome of a request that was answered whole, beside the failures."""


class Refusal(StrEnum):
    """Why a request that was right in itself was not taken in."""

    NO_PERMIT = "no_permit"
    QUEUE_FULL = "queue_full"
    QUEUE_EXPIRED = "queue_expired"
    DRAINING = "draining"


class StreamEnd(StrEnum):
    """How a stream ended that had begun."""

    FINISHED = "finished"
    ERROR = "error"
    CLIENT_GONE = "client_gone"
    READER_STALLED = "reader_stalled"
    SHUTDOWN = "shutdown"


# Bounds in seconds, and in tokens for a step.
REQUEST_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
WAIT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
GAP_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 10)
STEP_S = (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15)
STEP_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)

_PHASES = ("prefill", "decode")


class HttpMetrics:
    """What the HTTP side tells."""

    def __init__(self) -> None:
        outcomes = (FINISHED, *Failure)
        routes = (*ROUTES, OTHER_ROUTE)
        self.requests = _counter("requests_total", "Generation requests", "route", routes)
        self.ended = _counter("requests_ended_total", "Requests by their end", "outcome", outcomes)
        self.refused = _counter(
            "requests_refused_total", "Requests there was no room for", "reason", tuple(Refusal)
        )
        self.duration = _histogram(
            "request_duration_seconds", "From arrival to the end, of whole answers", REQUEST_S
        )
        self.streams_ended = _counter(
            "streams_ended_total", "Streams by their end", "reason", tuple(StreamEnd)
        )
        self.keep_alives = _counter("keep_alives_total", "Comments sent into silence")
        self.sent_bytes = _counter("sent_bytes_total", "Bytes of answers")
        self.loop_lag = _histogram(
            "event_loop_lag_seconds", "How late the event loop woke a task", WAIT_S
        )

    def lines(self) -> list[str]:
        """Give all lines."""
        return [line for family in vars(self).values() for line in family.lines()]


class EngineMetrics:
    """What the engine tells."""

    def __init__(self) -> None:
        self.first_token = _histogram(
            "time_to_first_token_seconds", "From submission to the first token", WAIT_S
        )
        self.gap = _histogram("inter_token_latency_seconds", "Between two tokens", GAP_S)
        self.queue_time = _histogram("queue_time_seconds", "In the waiting room", WAIT_S)
        self.ended = _counter(
            "sequences_ended_total", "Sequences by their end", "reason", tuple(FinishReason)
        )
        self.prompt_tokens = _counter("prompt_tokens_total", "Prompt tokens of ended sequences")
        self.generated_tokens = _counter(
            "generated_tokens_total", "Generated tokens of ended sequences"
        )
        self.looked_up = _counter(
            "prefix_cache_lookup_tokens_total", "Prompt tokens looked for in the cache"
        )
        self.hit = _counter("prefix_cache_hit_tokens_total", "Prompt tokens found in the cache")
        self.drafted = _counter("draft_tokens_total", "Tokens that were guessed ahead")
        self.accepted = _counter(
            "accepted_tokens_total", "Guessed tokens that were right and given out"
        )
        self.preemptions = _counter("preemptions_total", "Sequences put back for want of blocks")
        self.steps = _counter("steps_total", "Steps")
        self.failed_steps = _counter("steps_failed_total", "Steps that failed")
        self.step = _histogram("step_duration_seconds", "Forward pass and sampling", STEP_S)
        self.overhead = _histogram(
            "step_overhead_seconds", "Composing a step and giving out its tokens", STEP_S
        )
        self.step_tokens = _histogram(
            "step_tokens", "Tokens of a step that had any", STEP_TOKENS, "phase", _PHASES
        )

    def on_step(self, stats: StepStats) -> None:
        """Count a step."""
        self.steps.add()
        self.preemptions.add(by=stats.num_preempted)
        if stats.is_failed:
            self.failed_steps.add()
            return
        self.step.observe(stats.duration_s)
        self.overhead.observe(stats.schedule_s + stats.update_s)
        if stats.num_draft_tokens:
            self.drafted.add(by=stats.num_draft_tokens)
            self.accepted.add(by=sum(stats.num_accepted))
        if stats.num_prefill_tokens:
            self.step_tokens.observe(stats.num_prefill_tokens, "prefill")
        if stats.num_decode_tokens:
            self.step_tokens.observe(stats.num_decode_tokens, "decode")

    def on_finished(self, stats: SequenceStats) -> None:
        """Count a sequence that has ended."""
        self.ended.add(stats.reason)
        self.prompt_tokens.add(by=stats.usage.num_prompt_tokens)
        self.generated_tokens.add(by=stats.usage.num_output_tokens)

    def lines(self) -> list[str]:
        """Give all lines."""
        return [line for family in vars(self).values() for line in family.lines()]


def state(stats: EngineStats) -> list[str]:
    """Give the gauges of the engine as it is now."""
    num_used = stats.num_blocks - stats.num_free_blocks
    gauges = (
        ("queue_depth", "Sequences that wait", stats.num_waiting),
        ("queue_tokens", "Prompt tokens that wait", stats.num_waiting_tokens),
        ("requests_running", "Sequences that run", stats.num_running),
        ("kv_cache_blocks", "Blocks of the KV cache", stats.num_blocks),
        ("kv_cache_blocks_used", "Blocks that sequences own", num_used),
        ("kv_cache_blocks_cached", "Free blocks with a known prefix", stats.num_cached_blocks),
        ("kv_cache_usage_ratio", "Share of blocks that sequences own", num_used / stats.num_blocks),
        ("engine_seconds_since_step", "Age of the last step", stats.seconds_since_step),
    )
    return [line for name, help, value in gauges for line in gauge(f"millrace_{name}", help, value)]


def _counter(name: str, help: str, label: str = "", values: tuple[str, ...] = ALONE) -> Counter:
    return Counter(f"millrace_{name}", help, label, values)


def _histogram(
    name: str,
    help: str,
    bounds: tuple[float, ...],
    label: str = "",
    values: tuple[str, ...] = ALONE,
) -> Histogram:
    return Histogram(f"millrace_{name}", help, bounds, label, values)
