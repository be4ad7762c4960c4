"""TGI's metrics by their old names, for dashboards that exist; without TGI's double counting.

A series appears with its first value, as it does there. Knows no metric of our own. Names, labels
and buckets: https://github.com/huggingface/text-generation-inference/blob/db931fcf/router/src/server.rs
"""

from collections.abc import Iterable
from enum import StrEnum

from engine import EngineStats, FinishReason, SequenceStats, StepStats
from server.series import ALONE, Counter, Histogram, Summary, gauge


class Failure(StrEnum):
    """Why a request got no whole answer: TGI's values of the label `err`."""

    OVERLOADED = "overloaded"
    VALIDATION = "validation"
    GENERATION = "generation"
    INCOMPLETE = "incomplete"
    TEMPLATE = "template"
    DROPPED = "dropped"
    """The client went away."""


DURATIONS = tuple(0.0001 * 1.5**power for power in range(1, 36))
"""Bounds in seconds of every name that ends in `duration`."""

QUANTILES = (0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
"""Of every name that has no buckets."""

BATCH_SIZES = tuple(range(1, 1025))

WHOLE = (FinishReason.LENGTH, FinishReason.EOS_TOKEN, FinishReason.STOP_SEQUENCE)


class TgiMetrics:
    """What TGI would show; both limits are in tokens and give the buckets of lengths."""

    def __init__(self, max_input_tokens: int, max_total_tokens: int) -> None:
        inputs, totals = _hundredths(max_input_tokens), _hundredths(max_total_tokens)
        self.count = _counter("request_count", "Generation requests")
        self.success = _counter("request_success", "Requests answered whole")
        self.failure = _counter("request_failure", "Requests that failed", "err", Failure)
        self.duration = _seconds("request_duration", "From arrival to the end")
        self.validation = _seconds("request_validation_duration", "From arrival to the queue")
        self.queue = _seconds("request_queue_duration", "In the queue")
        self.inference = _seconds("request_inference_duration", "From the first step to the end")
        self.mean_time_per_token = _seconds(
            "request_mean_time_per_token_duration", "Inference time by generated token"
        )
        self.input_length = _sizes("request_input_length", "Prompt tokens", inputs)
        self.max_new_tokens = _sizes("request_max_new_tokens", "Tokens that were allowed", totals)
        self.generated_tokens = _sizes("request_generated_tokens", "Generated tokens", totals)
        self.skipped_tokens = Summary(
            "tgi_request_skipped_tokens",
            "Guesses of a row and step that were right",
            QUANTILES,
        )
        self.next_size = _sizes("batch_next_size", "Sequences that join at once", BATCH_SIZES)
        self.concat = _counter("batch_concat", "Joins of a running batch", "reason", ("chunking",))
        self.concat_duration = _seconds(
            "batch_concat_duration", "Composing a step that others join", "method", ("decode",)
        )
        methods = ("method", ("prefill", "decode"))
        self.steps = _counter("batch_inference_count", "Steps", *methods)
        self.steps_success = _counter("batch_inference_success", "Steps that worked", *methods)
        self.steps_failure = _counter("batch_inference_failure", "Steps that failed", *methods)
        self.step = _seconds("batch_inference_duration", "A whole step", *methods)
        self.forward = _seconds("batch_forward_duration", "Forward pass and sampling", *methods)
        self.decode = _seconds("batch_decode_duration", "Turning tokens into text", *methods)
        self.filter = _seconds("batch_filter_duration", "Composing the step", *methods)

    def on_step(self, stats: StepStats) -> None:
        """Count a step; one that holds any prompt tokens is a prefill."""
        method = "prefill" if stats.num_prefill_tokens else "decode"
        self.steps.add(method)
        if stats.num_joined:
            self._join(stats)
        if stats.is_failed:
            self.steps_failure.add(method)
            return
        self.steps_success.add(method)
        for number in stats.num_accepted:
            self.skipped_tokens.observe(number)
        self.step.observe(stats.schedule_s + stats.duration_s + stats.update_s, method)
        self.forward.observe(stats.duration_s, method)
        self.decode.observe(stats.update_s, method)
        self.filter.observe(stats.schedule_s, method)

    def on_finished(self, stats: SequenceStats) -> None:
        """Count a whole sequence; TGI keeps no times of the others."""
        if stats.reason not in WHOLE:
            return
        usage = stats.usage
        self.queue.observe(usage.queue_s)
        self.inference.observe(usage.inference_s)
        self.generated_tokens.observe(usage.num_output_tokens)
        if usage.num_output_tokens:
            self.mean_time_per_token.observe(usage.inference_s / usage.num_output_tokens)

    def lines(self, stats: EngineStats | None) -> list[str]:
        """Give all lines, gauges first."""
        families = vars(self).values()
        return _gauges(stats) + [line for family in families for line in family.lines()]

    def _join(self, stats: StepStats) -> None:
        self.next_size.observe(stats.num_joined)
        if stats.num_running > stats.num_joined:
            self.concat.add("chunking")
            self.concat_duration.observe(stats.schedule_s, "decode")


def _gauges(stats: EngineStats | None) -> list[str]:
    if stats is None:
        return []
    return [
        *gauge("tgi_queue_size", "Sequences that wait", stats.num_waiting),
        *gauge("tgi_batch_current_size", "Sequences that run", stats.num_running),
        *gauge(
            "tgi_batch_current_max_tokens",
            "Tokens held by running sequences",
            stats.num_running_tokens,
        ),
    ]


def _hundredths(limit: int) -> tuple[float, ...]:
    return tuple(limit / 100 * step for step in range(1, 101))


def _counter(name: str, help: str, label: str = "", values: Iterable[str] = ALONE) -> Counter:
    return Counter(f"tgi_{name}", help, label, values, is_shy=True)


def _seconds(name: str, help: str, label: str = "", values: Iterable[str] = ALONE) -> Histogram:
    return Histogram(f"tgi_{name}", f"{help}, in seconds", DURATIONS, label, values, is_shy=True)


def _sizes(name: str, help: str, bounds: tuple[float, ...]) -> Histogram:
    return Histogram(f"tgi_{name}", help, bounds, is_shy=True)
