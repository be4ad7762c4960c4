"""Metrics: what the engine and the HTTP side tell, counted under our names and under TGI's.

The names are in `millrace_metrics.py` and `tgi_metrics.py`. Every label has a closed set of values,
none of which a client can choose. Knows no HTTP.
"""

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest

from engine import EngineStats, Limits, ModelInfo, SequenceStats, StepStats
from server.errors import ErrorType
from server.millrace_metrics import (
    FINISHED,
    OTHER_ROUTE,
    ROUTES,
    EngineMetrics,
    HttpMetrics,
    Refusal,
    StreamEnd,
    state,
)
from server.series import gauge
from server.tgi_metrics import Failure, TgiMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What is known once the model is loaded, and whom to ask for the state at a scrape."""

    version: str
    model: ModelInfo
    limits: Limits
    read_engine: Callable[[], EngineStats | None]
    """None while there is no engine to ask."""
    read_permits: Callable[[], tuple[int, int]]
    """Permits held and their limit."""
    read_generators: Callable[[], tuple[int, int]] = lambda: (0, 0)
    """Published generators that run, and those that nobody reads any more."""


def failure_of(error_type: ErrorType) -> Failure:
    """Say by which of TGI's failures a problem counts."""
    match error_type:
        case ErrorType.OVERLOADED:
            return Failure.OVERLOADED
        case ErrorType.TEMPLATE_ERROR:
            return Failure.TEMPLATE
        case ErrorType.INCOMPLETE_GENERATION:
            return Failure.INCOMPLETE
        case ErrorType.GENERATION | ErrorType.INTERNAL | ErrorType.HEALTHCHECK:
            return Failure.GENERATION
        case _:
            return Failure.VALIDATION


class Metrics:
    """Counts for one server; an `engine.Observer`, and the HTTP side's own calls.

    It is made before the engine, which is given it, and told the rest by `bind`. Each request calls
    `request_received` once and then either `request_finished` or `request_failed` once.
    """

    def __init__(self) -> None:
        self._http = HttpMetrics()
        self._engine = EngineMetrics()
        self._num_open_streams = 0
        self._num_watchers = 0
        self._tgi = TgiMetrics(1, 1)  # its buckets depend on the limits, which `bind` brings
        self._served: Served | None = None
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        GCCollector(registry=self._process)

    def bind(self, served: Served) -> None:
        """Take what only loading could tell; TGI's counts begin here."""
        self._served = served
        self._tgi = TgiMetrics(served.limits.max_input_tokens, served.limits.max_total_tokens)

    # The HTTP side

    def request_received(self, route: str) -> None:
        """Count a generation request, once, at its arrival; `route` is the path that matched."""
        self._tgi.count.add()
        self._http.requests.add(route if route in ROUTES else OTHER_ROUTE)

    def request_finished(self, duration_s: float) -> None:
        """Count a request that was answered whole, and its time from arrival to end."""
        self._tgi.success.add()
        self._tgi.duration.observe(duration_s)
        self._http.ended.add(FINISHED)
        self._http.duration.observe(duration_s)

    def request_failed(self, failure: Failure, refusal: Refusal | None = None) -> None:
        """Count a request without a whole answer; `refusal` says why it was not taken in."""
        self._tgi.failure.add(failure)
        self._http.ended.add(failure)
        if refusal is not None:
            self._http.refused.add(refusal)

    def prompt_admitted(
        self, validation_s: float, num_prompt_tokens: int, max_new_tokens: int
    ) -> None:
        """Count one sequence of a request, as it goes to the engine."""
        self._tgi.validation.observe(validation_s)
        self._tgi.input_length.observe(num_prompt_tokens)
        self._tgi.max_new_tokens.observe(max_new_tokens)

    def stream_opened(self) -> None:
        """Count a stream whose headers were sent."""
        self._num_open_streams += 1

    def stream_ended(self, how: StreamEnd) -> None:
        """Count the end of a stream that was opened."""
        self._num_open_streams -= 1
        self._http.streams_ended.add(how)

    def watchers_changed(self, count: int) -> None:
        """Note how many watch the live feed now."""
        self._num_watchers = count

    def keep_alive_sent(self) -> None:
        """Count a comment sent into silence."""
        self._http.keep_alives.add()

    def bytes_sent(self, num_bytes: int) -> None:
        """Count bytes of answers handed to the transport."""
        self._http.sent_bytes.add(by=num_bytes)

    def loop_lagged(self, lag_s: float) -> None:
        """Count how late the event loop woke a task that wanted to be woken."""
        self._http.loop_lag.observe(lag_s)

    # engine.Observer

    def on_step(self, stats: StepStats) -> None:
        """Count a step."""
        self._tgi.on_step(stats)
        self._engine.on_step(stats)

    def on_started(self, queue_s: float) -> None:
        """Count a sequence that left the waiting room."""
        self._engine.queue_time.observe(queue_s)

    def on_tokens(self, first_token_s: tuple[float, ...], gaps_s: tuple[float, ...]) -> None:
        """Count one step's new tokens by their delays."""
        self._engine.first_token.observe_all(first_token_s)
        self._engine.gap.observe_all(gaps_s)

    def on_prefix_lookup(self, num_tokens: int, num_hit_tokens: int) -> None:
        """Count a look into the prefix cache."""
        self._engine.looked_up.add(by=num_tokens)
        self._engine.hit.add(by=num_hit_tokens)

    def on_finished(self, stats: SequenceStats) -> None:
        """Count the end of a sequence."""
        self._tgi.on_finished(stats)
        self._engine.on_finished(stats)

    # The scrape

    def render(self) -> bytes:
        """Give all of it in Prometheus' text format, in UTF-8."""
        served = self._served
        stats = served.read_engine() if served else None
        lines = [
            *(_facts(served) if served else ()),
            *(state(stats) if stats else ()),
            *gauge("millrace_streams_open", "Streams that have begun", self._num_open_streams),
            *gauge("millrace_watchers", "Readers of the live feed", self._num_watchers),
            *self._http.lines(),
            *self._engine.lines(),
            *self._tgi.lines(stats),
        ]
        return "\n".join(lines).encode() + b"\n" + bytes(generate_latest(self._process))


def _facts(served: Served) -> list[str]:
    model, limits = served.model, served.limits
    num_held, num_permits = served.read_permits()
    num_generators, num_abandoned = served.read_generators()
    return [
        *gauge(
            "millrace_info",
            "What is served, by what",
            1,
            version=served.version,
            model=model.model_id,
            dtype=model.dtype,
            device=model.device,
        ),
        *gauge(
            "millrace_cache_config_info",
            "Shape of the KV cache",
            1,
            block_size=str(limits.block_size),
            num_blocks=str(limits.num_blocks),
        ),
        *gauge("millrace_permits_held", "Sequences taken in", num_held),
        *gauge("millrace_permits_limit", "Sequences that may be taken in", num_permits),
        *gauge("millrace_generators_running", "Published generators that run", num_generators),
        *gauge(
            "millrace_generators_abandoned",
            "Those of them whose client has left and that have not yielded since",
            num_abandoned,
        ),
    ]
