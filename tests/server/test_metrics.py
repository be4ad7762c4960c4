import math
import random
import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine import EngineStats, FinishReason, Limits, ModelInfo, SequenceStats, StepStats, Usage
from server.errors import ErrorType
from server.metrics import Metrics, Served, failure_of
from server.millrace_metrics import GAP_S, ROUTES, Refusal, StreamEnd
from server.series import Counter, Histogram
from server.tgi_metrics import Failure

MODEL = ModelInfo(
    model_id='org/"m"\\x\ny',
    revision=None,
    dtype="float32",
    device="cpu",
    num_parameters=1000,
    vocab_size=100,
    max_position=4096,
)
LIMITS = Limits(
    num_blocks=100,
    block_size=32,
    max_batch_size=64,
    max_batch_tokens=512,
    max_waiting=128,
    max_waiting_tokens=1000,
    max_queue_s=None,
    max_input_tokens=1000,
    max_total_tokens=2000,
)
NOW = EngineStats(
    num_running=3,
    num_waiting=2,
    num_waiting_tokens=70,
    num_blocks=100,
    num_free_blocks=40,
    num_cached_blocks=5,
    block_size=32,
    num_running_tokens=500,
    seconds_since_step=0.25,
    finish_rate=1.5,
)

# Name, type and labels: what TGI's own dashboard asks for, and the rest of its metrics.
TGI = {
    "tgi_request_count": ("counter", {}),
    "tgi_request_success": ("counter", {}),
    "tgi_request_failure": ("counter", {"err": set(Failure)}),
    "tgi_request_duration": ("histogram", {}),
    "tgi_request_validation_duration": ("histogram", {}),
    "tgi_request_queue_duration": ("histogram", {}),
    "tgi_request_inference_duration": ("histogram", {}),
    "tgi_request_mean_time_per_token_duration": ("histogram", {}),
    "tgi_request_input_length": ("histogram", {}),
    "tgi_request_max_new_tokens": ("histogram", {}),
    "tgi_request_generated_tokens": ("histogram", {}),
    "tgi_request_skipped_tokens": (
        "summary",
        {"quantile": {"0", "0.5", "0.9", "0.95", "0.99", "0.999", "1"}},
    ),
    "tgi_queue_size": ("gauge", {}),
    "tgi_batch_current_size": ("gauge", {}),
    "tgi_batch_current_max_tokens": ("gauge", {}),
    "tgi_batch_next_size": ("histogram", {}),
    "tgi_batch_inference_count": ("counter", {"method": {"prefill", "decode"}}),
    "tgi_batch_inference_success": ("counter", {"method": {"prefill", "decode"}}),
    "tgi_batch_inference_failure": ("counter", {"method": {"decode"}}),
    "tgi_batch_inference_duration": ("histogram", {"method": {"prefill", "decode"}}),
    "tgi_batch_forward_duration": ("histogram", {"method": {"prefill", "decode"}}),
    "tgi_batch_decode_duration": ("histogram", {"method": {"prefill", "decode"}}),
    "tgi_batch_filter_duration": ("histogram", {"method": {"prefill", "decode"}}),
    "tgi_batch_concat": ("counter", {"reason": {"chunking"}}),
    "tgi_batch_concat_duration": ("histogram", {"method": {"decode"}}),
}


def step(**changed):
    plain = {
        "duration_s": 0.03,
        "schedule_s": 0.0002,
        "update_s": 0.0004,
        "num_prefill_tokens": 0,
        "num_decode_tokens": 0,
        "num_running": 3,
        "num_waiting": 0,
        "num_joined": 0,
        "num_preempted": 0,
        "num_free_blocks": 40,
    }
    return StepStats(**(plain | changed))


def sequence(reason, num_output_tokens=20):
    usage = Usage(
        num_prompt_tokens=12,
        num_cached_tokens=8,
        num_output_tokens=num_output_tokens,
        queue_s=0.2,
        inference_s=0.9,
        first_token_s=0.3,
    )
    return SequenceStats(reason, usage)


@pytest.fixture
def metrics():
    made = Metrics()
    made.bind(
        Served(
            version="0.1.0",
            model=MODEL,
            limits=LIMITS,
            read_engine=lambda: NOW,
            read_permits=lambda: (5, 128),
        )
    )
    return made


def live(metrics):
    """Lead a server's life in small: every event at least once."""
    for route in ("/generate", "/generate", "/v1/chat/completions"):
        metrics.request_received(route)
    metrics.prompt_admitted(0.001, 12, 20)
    metrics.on_prefix_lookup(12, 8)
    metrics.on_started(0.2)
    metrics.on_step(step(num_prefill_tokens=12, num_joined=1, num_decode_tokens=2))
    metrics.on_tokens((0.3,), (0.03, 0.04))
    metrics.on_step(step(num_decode_tokens=3, num_preempted=1))
    metrics.on_step(step(num_decode_tokens=4, num_draft_tokens=3, num_accepted=(2, 0)))
    metrics.on_step(step(num_decode_tokens=3, is_failed=True))
    for reason in FinishReason:
        metrics.on_finished(sequence(reason))
    metrics.stream_opened()
    metrics.stream_opened()
    metrics.stream_ended(StreamEnd.FINISHED)
    metrics.keep_alive_sent()
    metrics.bytes_sent(100)
    metrics.loop_lagged(0.002)
    metrics.request_finished(1.5)
    for failure in Failure:
        metrics.request_failed(failure)
    metrics.request_failed(Failure.OVERLOADED, Refusal.NO_PERMIT)


def families_of(metrics):
    text = metrics.render().decode()
    # For an old counter the parser invents a name with _total; the text has it as TGI has it.
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples_of(metrics):
    """Give every sample by its very text, labels and all."""
    lines = metrics.render().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(number) for name, number in pairs}


def test_every_tgi_name_has_its_type_and_labels_after_a_life_of_requests(metrics):
    live(metrics)
    families = families_of(metrics)
    for name, (kind, labels) in TGI.items():
        assert families[name].type == kind, name
        seen = {}
        for sample in families[name].samples:
            for label in set(sample.labels) - {"le"}:
                seen.setdefault(label, set()).add(sample.labels[label])
        assert seen == labels, name
    assert {name for name in families if name.startswith("tgi_")} == set(TGI)


def test_tgi_counters_have_no_total_in_their_names(metrics):
    live(metrics)
    text = metrics.render().decode()
    assert "\n# TYPE tgi_request_count counter\ntgi_request_count 3\n" in text
    assert '\ntgi_request_failure{err="dropped"} 1\n' in text
    assert "tgi_" in text
    assert not any("_total" in line for line in text.splitlines() if "tgi_" in line)


def test_a_tgi_series_appears_with_its_first_value_and_ours_are_always_there(metrics):
    before = families_of(metrics)
    gauges = {"tgi_queue_size", "tgi_batch_current_size", "tgi_batch_current_max_tokens"}
    assert {name for name in before if name.startswith("tgi_")} == gauges
    ours = {name for name in samples_of(metrics) if name.startswith("millrace_")}
    metrics.request_failed(Failure.DROPPED)
    live(metrics)
    assert {name for name in samples_of(metrics) if name.startswith("millrace_")} == ours


def test_each_request_is_counted_once_and_ends_once(metrics):
    for _ in range(3):
        metrics.request_received("/v1/chat/completions")
    metrics.request_finished(1.5)
    metrics.request_failed(Failure.VALIDATION)
    metrics.request_failed(Failure.OVERLOADED, Refusal.QUEUE_EXPIRED)
    seen = samples_of(metrics)
    assert seen["tgi_request_count"] == 3
    assert seen["tgi_request_success"] == 1
    assert seen['tgi_request_failure{err="validation"}'] == 1
    assert seen['tgi_request_failure{err="overloaded"}'] == 1
    assert seen["tgi_request_duration_count"] == 1
    assert seen["tgi_request_duration_sum"] == 1.5
    assert seen['millrace_requests_total{route="/v1/chat/completions"}'] == 3
    assert seen['millrace_requests_ended_total{outcome="finished"}'] == 1
    assert seen['millrace_requests_ended_total{outcome="overloaded"}'] == 1
    assert seen['millrace_requests_refused_total{reason="queue_expired"}'] == 1
    assert sum(seen[name] for name in seen if name.startswith("millrace_requests_refused")) == 1
    assert seen['millrace_request_duration_seconds_bucket{le="2.5"}'] == 1
    assert seen['millrace_request_duration_seconds_bucket{le="1"}'] == 0


def test_steps_are_counted_by_what_they_hold_and_failed_ones_have_no_time(metrics):
    metrics.on_step(step(num_prefill_tokens=12, num_decode_tokens=2, num_joined=1))
    metrics.on_step(step(num_decode_tokens=3, num_preempted=2))
    metrics.on_step(step(num_decode_tokens=3, is_failed=True))
    seen = samples_of(metrics)
    assert seen["millrace_steps_total"] == 3
    assert seen["millrace_steps_failed_total"] == 1
    assert seen["millrace_preemptions_total"] == 2
    assert seen["millrace_step_duration_seconds_count"] == 2
    assert seen["millrace_step_duration_seconds_sum"] == pytest.approx(0.06)
    assert seen["millrace_step_overhead_seconds_sum"] == pytest.approx(0.0012)
    assert seen['millrace_step_tokens_sum{phase="prefill"}'] == 12
    assert seen['millrace_step_tokens_count{phase="prefill"}'] == 1
    assert seen['millrace_step_tokens_sum{phase="decode"}'] == 5
    assert seen['tgi_batch_inference_count{method="prefill"}'] == 1
    assert seen['tgi_batch_inference_count{method="decode"}'] == 2
    assert seen['tgi_batch_inference_success{method="decode"}'] == 1
    assert seen['tgi_batch_inference_failure{method="decode"}'] == 1
    assert seen['tgi_batch_inference_duration_sum{method="prefill"}'] == pytest.approx(0.0306)
    assert seen['tgi_batch_forward_duration_sum{method="decode"}'] == pytest.approx(0.03)
    assert seen['tgi_batch_decode_duration_sum{method="decode"}'] == pytest.approx(0.0004)
    assert seen['tgi_batch_filter_duration_sum{method="decode"}'] == pytest.approx(0.0002)
    assert seen['tgi_batch_next_size_bucket{le="1"}'] == 1
    assert seen['tgi_batch_concat{reason="chunking"}'] == 1


def test_drafts_are_counted_and_tgi_sees_how_many_of_each_row_were_right(metrics):
    for num_accepted in ((2, 0), (2, 4), ()):
        num_draft_tokens = 4 * len(num_accepted)
        metrics.on_step(step(num_draft_tokens=num_draft_tokens, num_accepted=num_accepted))
    seen = samples_of(metrics)
    assert seen["millrace_draft_tokens_total"] == 16
    assert seen["millrace_accepted_tokens_total"] == 8
    assert seen["tgi_request_skipped_tokens_sum"] == 8
    assert seen["tgi_request_skipped_tokens_count"] == 4
    quantiles = {q: seen[f'tgi_request_skipped_tokens{{quantile="{q}"}}'] for q in (0, 0.5, 0.9, 1)}
    assert quantiles == {0: 0, 0.5: 2, 0.9: 4, 1: 4}


def test_a_join_of_an_idle_engine_is_no_concat(metrics):
    metrics.on_step(step(num_prefill_tokens=12, num_joined=3, num_running=3))
    seen = samples_of(metrics)
    assert seen['tgi_batch_next_size_bucket{le="2"}'] == 0
    assert seen['tgi_batch_next_size_bucket{le="3"}'] == 1
    assert 'tgi_batch_concat{reason="chunking"}' not in seen


def test_tokens_are_counted_by_their_delays(metrics):
    metrics.on_tokens((0.3, 0.7), (0.01, 0.011, 0.6))
    metrics.on_tokens((), ())
    metrics.on_started(0.2)
    metrics.on_prefix_lookup(64, 32)
    seen = samples_of(metrics)
    assert seen["millrace_time_to_first_token_seconds_count"] == 2
    assert seen["millrace_time_to_first_token_seconds_sum"] == pytest.approx(1.0)
    assert seen['millrace_time_to_first_token_seconds_bucket{le="0.5"}'] == 1
    assert seen['millrace_inter_token_latency_seconds_bucket{le="0.01"}'] == 1
    assert seen['millrace_inter_token_latency_seconds_bucket{le="0.02"}'] == 2
    assert seen['millrace_inter_token_latency_seconds_bucket{le="+Inf"}'] == 3
    assert seen["millrace_inter_token_latency_seconds_sum"] == pytest.approx(0.621)
    assert seen['millrace_queue_time_seconds_bucket{le="0.25"}'] == 1
    assert seen["millrace_prefix_cache_lookup_tokens_total"] == 64
    assert seen["millrace_prefix_cache_hit_tokens_total"] == 32


def test_sequences_are_counted_by_reason_and_only_whole_ones_have_tgi_times(metrics):
    for reason in FinishReason:
        metrics.on_finished(sequence(reason))
    metrics.on_finished(sequence(FinishReason.ABORT, num_output_tokens=0))
    seen = samples_of(metrics)
    by_reason = {r: seen[f'millrace_sequences_ended_total{{reason="{r}"}}'] for r in FinishReason}
    assert by_reason == dict.fromkeys(FinishReason, 1) | {FinishReason.ABORT: 2}
    assert seen["millrace_prompt_tokens_total"] == 72
    assert seen["millrace_generated_tokens_total"] == 100
    assert seen["tgi_request_queue_duration_count"] == 3
    assert seen["tgi_request_inference_duration_sum"] == pytest.approx(2.7)
    assert seen["tgi_request_mean_time_per_token_duration_sum"] == pytest.approx(3 * 0.045)
    assert seen["tgi_request_generated_tokens_sum"] == 60


def test_gauges_are_read_at_the_scrape(metrics):
    seen = samples_of(metrics)
    assert (seen["millrace_permits_held"], seen["millrace_permits_limit"]) == (5, 128)
    assert seen["millrace_queue_depth"] == seen["tgi_queue_size"] == 2
    assert seen["millrace_queue_tokens"] == 70
    assert seen["millrace_requests_running"] == seen["tgi_batch_current_size"] == 3
    assert seen["tgi_batch_current_max_tokens"] == 500
    assert seen["millrace_kv_cache_blocks"] == 100
    assert seen["millrace_kv_cache_blocks_used"] == 60
    assert seen["millrace_kv_cache_blocks_cached"] == 5
    assert seen["millrace_kv_cache_usage_ratio"] == 0.6
    assert seen["millrace_engine_seconds_since_step"] == 0.25
    assert seen["millrace_streams_open"] == 0
    metrics.stream_opened()
    metrics.stream_opened()
    metrics.stream_ended(StreamEnd.CLIENT_GONE)
    seen = samples_of(metrics)
    assert seen["millrace_streams_open"] == 1
    assert seen['millrace_streams_ended_total{reason="client_gone"}'] == 1


def test_what_is_served_is_told_in_labels_with_its_quotes_kept(metrics):
    families = families_of(metrics)
    (info,) = families["millrace_info"].samples
    assert info.labels == {
        "version": "0.1.0",
        "model": MODEL.model_id,
        "dtype": "float32",
        "device": "cpu",
    }
    (cache,) = families["millrace_cache_config_info"].samples
    assert cache.labels == {"block_size": "32", "num_blocks": "100"}


def test_the_process_is_shown_too(metrics):
    assert samples_of(metrics)["process_resident_memory_bytes"] > 0


def test_it_renders_before_anything_is_loaded_and_after_the_engine_is_gone():
    unbound = Metrics()
    live(unbound)
    assert samples_of(unbound)["millrace_steps_total"] == 4
    assert "millrace_queue_depth" not in samples_of(unbound)
    unbound.bind(
        Served(
            version="0.1.0",
            model=MODEL,
            limits=LIMITS,
            read_engine=lambda: None,
            read_permits=lambda: (0, 1),
        )
    )
    seen = samples_of(unbound)
    assert "millrace_queue_depth" not in seen
    assert "tgi_queue_size" not in seen
    assert seen["millrace_permits_limit"] == 1


def test_two_servers_in_a_process_share_nothing(metrics):
    live(metrics)
    assert samples_of(Metrics())["millrace_steps_total"] == 0


def test_a_client_cannot_make_series(metrics):
    live(metrics)
    for number in range(1000):
        metrics.request_received(f"/v1/{number}")
    seen = samples_of(metrics)
    assert seen['millrace_requests_total{route="other"}'] == 1000
    routes = {name for name in seen if name.startswith("millrace_requests_total")}
    assert len(routes) == len(ROUTES) + 1


@pytest.mark.parametrize(
    "event",
    [
        lambda metrics: metrics.request_failed("made up"),
        lambda metrics: metrics.request_failed(Failure.OVERLOADED, "made up"),
        lambda metrics: metrics.stream_ended("made up"),
        lambda metrics: metrics.on_finished(sequence("made up")),
    ],
)
def test_labels_are_closed(metrics, event):
    with pytest.raises(KeyError):
        event(metrics)


def test_every_problem_has_a_tgi_failure():
    assert {failure_of(error_type) for error_type in ErrorType} == set(Failure) - {Failure.DROPPED}
    assert failure_of(ErrorType.OVERLOADED) is Failure.OVERLOADED
    assert failure_of(ErrorType.SUFFIX_NOT_SUPPORTED) is Failure.VALIDATION
    assert failure_of(ErrorType.TEMPLATE_ERROR) is Failure.TEMPLATE
    assert failure_of(ErrorType.GENERATION) is Failure.GENERATION
    assert failure_of(ErrorType.INCOMPLETE_GENERATION) is Failure.INCOMPLETE


def bounds_of(metrics, name):
    (family,) = (family for family in families_of(metrics).values() if family.name == name)
    bounds = [float(s.labels["le"]) for s in family.samples if s.name.endswith("_bucket")]
    assert bounds[-1] == math.inf
    return bounds[:-1]


def test_the_buckets_are_tgis(metrics):
    live(metrics)
    durations = [0.0001 * 1.5**power for power in range(1, 36)]
    assert bounds_of(metrics, "tgi_request_duration") == pytest.approx(durations)
    assert bounds_of(metrics, "tgi_request_input_length") == list(range(10, 1001, 10))
    assert bounds_of(metrics, "tgi_request_max_new_tokens") == list(range(20, 2001, 20))
    assert bounds_of(metrics, "tgi_request_generated_tokens") == list(range(20, 2001, 20))
    assert bounds_of(metrics, "tgi_batch_next_size") == list(range(1, 1025))


@pytest.mark.parametrize("spread", [1e-6, 0.2, 20.0])
def test_many_values_at_once_are_counted_as_one_by_one(spread):
    chance = random.Random(7)
    numbers = tuple(0.02 + chance.random() * spread for _ in range(200)) + GAP_S
    at_once, one_by_one = (Histogram("h", "Help", GAP_S) for _ in range(2))
    for start in range(0, len(numbers), 20):
        at_once.observe_all(numbers[start : start + 20])
    for number in numbers:
        one_by_one.observe(number)
    once, each = ([line.rsplit(" ", 1) for line in h.lines()] for h in (at_once, one_by_one))
    assert [name for name, _ in once] == [name for name, _ in each]
    for (name, number), (_, expected) in zip(once[2:], each[2:], strict=True):
        assert float(number) == pytest.approx(float(expected)), name
    assert once[-1] == ["h_count", str(len(numbers))]


def test_a_value_on_a_bound_lies_below_it():
    histogram = Histogram("h", "Help", (1, 2))
    for number in (1, 1.5, 2, 3):
        histogram.observe(number)
    assert histogram.lines() == [
        "# HELP h Help",
        "# TYPE h histogram",
        'h_bucket{le="1"} 1',
        'h_bucket{le="2"} 3',
        'h_bucket{le="+Inf"} 4',
        "h_sum 7.5",
        "h_count 4",
    ]


def test_a_shy_counter_shows_only_what_has_grown():
    counter = Counter("c", "Help", "kind", ("a", "b"), is_shy=True)
    assert counter.lines() == []
    counter.add("b", 2)
    assert counter.lines() == ["# HELP c Help", "# TYPE c counter", 'c{kind="b"} 2']


def test_promtool_has_nothing_to_say_about_our_names(metrics):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.fail("promtool is missing: install the Debian package prometheus")
    live(metrics)
    done = subprocess.run(
        [promtool, "check", "metrics"], input=metrics.render(), capture_output=True, check=False
    )
    said = (done.stdout + done.stderr).decode().splitlines()
    # TGI's counters are named before the rules that promtool checks.
    assert [line for line in said if not line.startswith("tgi_")] == []
    assert all(line.endswith(('"_total" suffix', '"_count" suffix')) for line in said)
    assert said
