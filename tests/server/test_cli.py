from dataclasses import replace
from pathlib import Path

import pytest

import engine
from engine import AdapterSource, EngineConfig
from server.cli.option import Plan
from server.cli.options import OPTIONS
from server.cli.serve import BUILT_IN_MODEL, BUILT_IN_NAME, EXAMPLES, configs_from, notices
from server.config import ConfigError, ServerConfig

BY_NAME = {option.name: option for option in OPTIONS}
BUILT_IN = EngineConfig(model=str(BUILT_IN_MODEL))
SERVED = ServerConfig(served_model_name=BUILT_IN_NAME, generators=EXAMPLES)
TEMPLATE = __file__  # any file will do: only that it exists is looked at

# Flag: the fields it sets, its value on the command line, what the fields become.
SAMPLES = {
    "--model-id": ("engine.model", "org/m", "org/m"),
    "--revision": ("engine.revision", "main", "main"),
    "--device": ("engine.device", "cuda", "cuda"),
    "--dtype": ("engine.dtype", "float32", "float32"),
    "--trust-remote-code": ("engine.trust_remote_code", None, True),
    "--tokenizer-config-path": ("engine.chat_template_path", TEMPLATE, Path(TEMPLATE)),
    "--huggingface-hub-cache": ("engine.cache_dir", "cache", Path("cache")),
    "--tool-call-parser": ("server.tool_call_parser", "hermes", "hermes"),
    "--reasoning-parser": ("server.reasoning_parser", "think", "think"),
    "--served-model-name": ("server.served_model_name", "mine", "mine"),
    "--lora-adapters": (
        "engine.lora_adapters",
        "a=./b/c@v1, org/d@main,/e",
        (
            AdapterSource("a", "./b/c", "v1"),
            AdapterSource("org/d", "org/d", "main"),
            AdapterSource("/e", "/e"),
        ),
    ),
    "--ignore-unknown-adapters": ("server.is_unknown_adapter_ignored", None, True),
    "--max-concurrent-requests": ("server.max_concurrent_requests", "7", 7),
    "--max-best-of": ("server.max_best_of", "7", 7),
    "--max-stop-sequences": ("server.max_stop_sequences", "7", 7),
    "--max-top-n-tokens": ("server.max_top_n_tokens", "7", 7),
    "--max-client-batch-size": ("server.max_client_batch_size", "7", 7),
    "--payload-limit": ("server.payload_limit_bytes", "7", 7),
    "--max-input-tokens": ("engine.max_input_tokens", "7", 7),
    "--max-input-length": ("engine.max_input_tokens", "7", 7),
    "--max-total-tokens": ("engine.max_total_tokens", "7", 7),
    "--max-queue-size": ("engine.max_waiting", "7", 7),
    "--max-queue-tokens": ("engine.max_waiting_tokens", "7", 7),
    "--max-queue-time": ("engine.max_queue_s", "0.5", 0.5),
    "--disable-grammar-support": ("engine.is_grammar_disabled", None, True),
    "--enable-prefill-logprobs": (
        "server.is_prompt_logprobs_enabled engine.is_prompt_logprobs_enabled",
        None,
        True,
    ),
    "--max-batch-size": ("engine.max_batch_size", "7", 7),
    "--max-batch-prefill-tokens": ("engine.max_batch_tokens", "700", 700),
    "--max-inter-token-latency": ("engine.max_inter_token_ms", "7.5", 7.5),
    "--max-batch-total-tokens": ("engine.max_cache_tokens", "7", 7),
    "--memory-fraction": ("engine.memory_fraction", "0.25", 0.25),
    "--cuda-memory-fraction": ("engine.memory_fraction", "0.25", 0.25),
    "--block-size": ("engine.block_size", "7", 7),
    "--quantize": ("engine.quantize", "int8", "int8"),
    "--kernels": ("engine.has_kernels", "no", False),
    "--prefix-caching": ("engine.is_prefix_caching", "no", False),
    "--events": ("server.is_events", "no", False),
    "--web": ("server.is_web", "no", False),
    "--demo": ("server.is_demo", None, True),
    "--demo-port": ("server.demo_port", "7", 7),
    "--generator": ("server.generators", "app:count", ("app:count",)),
    "--speculate": ("engine.max_drafts", "7", 7),
    "--num-threads": ("engine.num_threads", "7", 7),
    "--validation-workers": ("engine.num_tokenizer_workers", "7", 7),
    "--watermark-gamma": ("engine.watermark_gamma", "0.25", 0.25),
    "--watermark-delta": ("engine.watermark_delta", "1.5", 1.5),
    "--hostname": ("server.hostname", "::1", "::1"),
    "--port": ("server.port", "7", 7),
    "--cors-allow-origin": (
        "server.cors_allow_origin",
        "https://a.example",
        ("https://a.example",),
    ),
    "--compute-type": ("server.compute_type", "cpu+mine", "cpu+mine"),
    "--api-key": ("server.api_keys", "key", ("key",)),
    "--log-level": ("server.log_level", "warn", "warning"),
    "--json-output": ("server.is_json_output", None, True),
    "--graceful-termination-timeout": ("server.graceful_termination_timeout_s", "7", 7.0),
}
NEEDS = {"--cuda-memory-fraction": ["--device", "cuda"]}

# tgi-launcher's flags and environment names.
TGI_FLAGS = {
    "model-id",
    "revision",
    "validation-workers",
    "sharded",
    "num-shard",
    "quantize",
    "speculate",
    "dtype",
    "kv-cache-dtype",
    "trust-remote-code",
    "max-concurrent-requests",
    "max-best-of",
    "max-stop-sequences",
    "max-top-n-tokens",
    "max-input-tokens",
    "max-input-length",
    "max-total-tokens",
    "waiting-served-ratio",
    "max-batch-prefill-tokens",
    "max-batch-total-tokens",
    "max-waiting-tokens",
    "max-batch-size",
    "max-client-batch-size",
    "cuda-graphs",
    "hostname",
    "port",
    "prometheus-port",
    "shard-uds-path",
    "master-addr",
    "master-port",
    "huggingface-hub-cache",
    "weights-cache-override",
    "disable-custom-kernels",
    "cuda-memory-fraction",
    "rope-scaling",
    "rope-factor",
    "json-output",
    "otlp-endpoint",
    "otlp-service-name",
    "cors-allow-origin",
    "api-key",
    "watermark-gamma",
    "watermark-delta",
    "ngrok",
    "ngrok-authtoken",
    "ngrok-edge",
    "tokenizer-config-path",
    "disable-grammar-support",
    "env",
    "lora-adapters",
    "usage-stats",
    "payload-limit",
    "enable-prefill-logprobs",
    "graceful-termination-timeout",
}

ACCEPTED = {
    "--waiting-served-ratio": "0.3",
    "--max-waiting-tokens": "20",
    "--cuda-graphs": "0",
    "--disable-custom-kernels": None,
    "--prometheus-port": "9001",
    "--otlp-endpoint": "http://localhost:4317",
    "--otlp-service-name": "x",
    "--usage-stats": "off",
    "--weights-cache-override": "cache",
    "--shard-uds-path": "socket",
    "--master-addr": "localhost",
    "--master-port": "29500",
    "--ngrok-authtoken": "x",
    "--ngrok-edge": "x",
}
REFUSED = {
    "--ngrok": None,
    "--sharded": "true",
    "--num-shard": "2",
    "--kv-cache-dtype": "fp8_e5m2",
    "--rope-scaling": "dynamic",
    "--rope-factor": "2.0",
}


def words_of(flag, text):
    """Write an option as on a command line."""
    if BY_NAME[flag].off:
        return [BY_NAME[flag].off]
    return [flag] if text is None else [flag, text]


def fields_of(flag, configs):
    paths = (path.split(".") for path in SAMPLES[flag][0].split())
    return [getattr(configs[config], field) for config, field in paths]


def test_the_table_has_every_flag_of_tgi_under_its_environment_name():
    assert {f"--{flag}" for flag in TGI_FLAGS} <= set(BY_NAME)
    for flag in TGI_FLAGS - {"env"}:
        assert BY_NAME[f"--{flag}"].env[0] == flag.upper().replace("-", "_")


def test_every_option_is_in_one_of_the_samples_of_this_file():
    by_plan = {plan: {o.name for o in OPTIONS if o.plan is plan} for plan in Plan}
    assert set(SAMPLES) | {"--env"} == by_plan[Plan.IMPLEMENTED]
    assert set(ACCEPTED) == by_plan[Plan.ACCEPTED]
    assert set(REFUSED) == by_plan[Plan.REFUSED]


@pytest.mark.parametrize("flag", SAMPLES)
def test_an_implemented_flag_changes_its_fields(command, flag):
    _, text, expected = SAMPLES[flag]
    needed = NEEDS.get(flag, [])
    without = fields_of(flag, command.serve(*needed))
    assert expected not in without
    given = fields_of(flag, command.serve(*needed, *words_of(flag, text)))
    assert given == [expected] * len(without)
    assert given


@pytest.mark.parametrize("flag", SAMPLES)
def test_underscores_are_taken_for_hyphens(command, flag):
    _, text, expected = SAMPLES[flag]
    first, *rest = words_of(flag, text)
    underscored = "--" + first.removeprefix("--").replace("-", "_")
    configs = command.serve(*NEEDS.get(flag, []), underscored, *rest)
    assert fields_of(flag, configs)[0] == expected


@pytest.mark.parametrize(
    ("flag", "name"), [(flag, name) for flag in SAMPLES for name in BY_NAME[flag].env]
)
def test_an_environment_name_changes_the_same_fields(command, flag, name):
    _, text, expected = SAMPLES[flag]
    configs = command.serve(*NEEDS.get(flag, []), **{name: text or "true"})
    assert set(fields_of(flag, configs)) == {expected}


def test_the_command_line_beats_the_environment(command):
    configs = command.serve("-p", "8001", "--api-key", "a", PORT="8002", API_KEY="b c")
    assert configs["server"].port == 8001
    assert configs["server"].api_keys == ("a",)


def test_tgis_own_environment_name_beats_sagemakers(command):
    assert command.serve(MODEL_ID="a", HF_MODEL_ID="b")["engine"].model == "a"
    assert command.serve(MODEL_ID="", HF_MODEL_ID="b")["engine"].model == "b"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        *((word, True) for word in ("true", "1", "YES", "on")),
        *((word, False) for word in ("false", "0", "no", "Off")),
        ("", True),
    ],
)
def test_booleans_of_the_environment_are_read_and_empty_is_unset(command, word, expected):
    assert command.serve(PREFIX_CACHING=word)["engine"].is_prefix_caching is expected


def test_the_examples_are_published_only_beside_the_built_in_model(command):
    assert command.serve()["server"].generators == EXAMPLES
    assert command.serve("--model-id", "org/m")["server"].generators == ()
    mine = command.serve("--generator", "a:b", "--generator", "c.d:e")["server"]
    assert mine.generators == ("a:b", "c.d:e")
    assert command.serve(GENERATOR="a:b c.d:e")["server"].generators == ("a:b", "c.d:e")


def test_keys_and_origins_may_be_repeated(command):
    words = ["--api-key", "a", "--api-key", "b", "--cors-allow-origin", "https://a.example"]
    server = command.serve(*words)["server"]
    assert (server.api_keys, server.cors_allow_origin) == (("a", "b"), ("https://a.example",))
    server = command.serve(API_KEY="a b", CORS_ALLOW_ORIGIN="https://a.example *")["server"]
    assert (server.api_keys, server.cors_allow_origin) == (("a", "b"), ())


@pytest.mark.parametrize("flag", ACCEPTED)
@pytest.mark.parametrize("is_env", [False, True])
def test_an_accepted_flag_gives_one_line_and_changes_nothing(command, flag, is_env):
    text = ACCEPTED[flag]
    words = [] if is_env else words_of(flag, text)
    env = {BY_NAME[flag].env[0]: text or "true"} if is_env else {}
    result = command("serve", *words, **env)
    assert result.exit_code == 0
    (line,) = result.output.splitlines()
    assert f" WARNING server.cli.serve: {flag} has no effect: " in line
    assert command.ran == [(SERVED, BUILT_IN)]


def test_an_accepted_switch_that_is_off_gives_no_line(command):
    assert command("serve", DISABLE_CUSTOM_KERNELS="false").output == ""


@pytest.mark.parametrize("flag", REFUSED)
@pytest.mark.parametrize("is_env", [False, True])
def test_a_refused_flag_ends_it_with_one_sentence(command, flag, is_env):
    text = REFUSED[flag]
    words = [] if is_env else words_of(flag, text)
    result = command("serve", *words, **({BY_NAME[flag].env[0]: text or "true"} if is_env else {}))
    assert (result.exit_code, result.stdout, command.ran) == (1, "", [])
    (sentence,) = result.stderr.splitlines()
    shown = flag if text in (None, "true") else f"{flag} {text}"
    assert sentence.startswith(f"Error: {shown} is refused: ")
    assert sentence.endswith(BY_NAME[flag].because)


@pytest.mark.parametrize(
    "env",
    [
        {"SHARDED": "false", "NUM_SHARD": "1"},
        {"SM_NUM_GPUS": "0", "NGROK": "false", "ROPE_FACTOR": "1.0"},
        {"KV_CACHE_DTYPE": "auto", "QUANTIZE": "", "LORA_ADAPTERS": ""},
    ],
)
def test_values_that_ask_for_what_is_so_anyway_are_taken_in_silence(command, env):
    result = command("serve", **env)
    assert (result.exit_code, result.output, len(command.ran)) == (0, "", 1)


@pytest.mark.parametrize(
    ("adapters", "sentence"),
    [
        ("a=b=c", "'a=b=c' is not of the form NAME=PATH or PATH, @REVISION behind it"),
        ("x,a=", "'a=' is not of the form NAME=PATH or PATH, @REVISION behind it"),
        ("=b", "'=b' is not of the form NAME=PATH or PATH, @REVISION behind it"),
        ("a@b@c", "'a@b@c' is not of the form NAME=PATH or PATH, @REVISION behind it"),
        ("a=x,a=y", "--lora-adapters names a more than once"),
        (
            "org/m=x",
            "--lora-adapters must not use the model's own name; give NAME=PATH. Given: org/m",
        ),
    ],
)
def test_adapters_that_cannot_be_told_apart_are_refused(command, adapters, sentence):
    result = command("serve", "--model-id", "org/m", "--lora-adapters", adapters)
    assert (result.exit_code > 0, command.ran) == (True, [])
    assert sentence in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("env", "flag"),
    [({"SM_NUM_GPUS": "4"}, "--num-shard"), ({"KV_CACHE_DTYPE": "fp8"}, "--kv-cache-dtype")],
)
def test_sagemakers_names_are_refused_where_the_flag_is(command, env, flag):
    result = command("serve", **env)
    assert result.exit_code == 1
    assert f"{flag} " in result.stderr


def test_a_containers_own_name_is_not_taken_for_an_address(command):
    result = command("serve", HOSTNAME="4f1a2b3c4d5e")
    assert (result.exit_code, result.output) == (0, "")
    assert command.ran[0][0].hostname == "0.0.0.0"


def test_a_name_on_the_command_line_is_refused_even_so(command):
    result = command("serve", "--hostname", "somewhere.example", HOSTNAME="127.0.0.1")
    assert result.exit_code == 1
    assert (
        "--hostname must be an IP address or localhost. Given: 'somewhere.example'" in result.stderr
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--port 70000", "--port must be between 0 and 65535. Given: 70000"),
        ("--payload-limit 0", "--payload-limit must be at least 1. Given: 0"),
        ("--max-batch-size 0", "--max-batch-size must be at least 1. Given: 0"),
        ("--max-queue-size -1", "--max-queue-size must not be negative. Given: -1"),
        ("--max-queue-tokens 0", "--max-queue-tokens must be at least 1. Given: 0"),
        ("--max-queue-time 0", "--max-queue-time must be above 0. Given: 0.0"),
        ("--validation-workers 0", "--validation-workers must be at least 1. Given: 0"),
        ("--max-input-length 0", "--max-input-length must be at least 1. Given: 0"),
        ("--memory-fraction 2", "--memory-fraction must be above 0 and at most 1. Given: 2.0"),
        ("--log-level loud", "--log-level must be one of debug, info, warning, error, critical."),
        (
            "--max-input-tokens 9 --max-total-tokens 9",
            "--max-input-tokens (9) must be below --max-total-tokens (9)",
        ),
        (
            "--max-total-tokens 2000 --max-batch-total-tokens 1000",
            "--max-total-tokens must be at most --max-batch-total-tokens (1000). Given: 2000",
        ),
        (
            "--max-batch-prefill-tokens 200 --max-batch-total-tokens 100",
            "--max-batch-prefill-tokens must be at most --max-batch-total-tokens (100). Given: 200",
        ),
        (
            "--max-input-tokens 9 --max-input-length 9",
            "--max-input-tokens and --max-input-length mean the same; give one of them",
        ),
        (
            "--device cuda --memory-fraction 0.5 --cuda-memory-fraction 0.5",
            "--memory-fraction and --cuda-memory-fraction mean the same; give one of them",
        ),
        ("--cuda-memory-fraction 0.5", "--cuda-memory-fraction 0.5 needs --device cuda"),
        ("--demo-port 0", "--demo-port must be between 1 and 65535. Given: 0"),
        (
            "--demo --demo-port 3000",
            "--demo-port must differ from the server's port. Given: 3000",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence_with_flags_limit_and_value(
    command, words, sentence
):
    result = command("serve", *words.split())
    assert (result.exit_code, result.stdout, command.ran) == (1, "", [])
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {sentence}")


@pytest.mark.parametrize(
    "words",
    ["--port http", "--dtype int4", "--sharded maybe", "--unheard-of", "--model-id", "rest"],
)
def test_what_cannot_be_read_is_a_usage_error_without_traceback(command, words):
    result = command("serve", *words.split())
    assert (result.exit_code, command.ran) == (2, [])
    assert "Error: " in result.stderr
    assert "Traceback" not in result.output


def test_a_share_of_the_gpu_is_taken_on_a_gpu_only(command):
    default = EngineConfig(model="m").memory_fraction
    share = ["--cuda-memory-fraction", "0.25"]
    assert command.serve("--device", "cuda", *share)["engine"].memory_fraction == 0.25
    result = command("serve", "--device", "cpu", *share)
    assert command.ran.pop()[1].memory_fraction == default
    (line,) = result.output.splitlines()
    assert "--cuda-memory-fraction has no effect: the model runs on a CPU" in line
    for device in ("auto", "cpu", "cuda"):
        result = command("serve", "--device", device, CUDA_MEMORY_FRACTION="1.0")
        assert (result.exit_code, result.output) == (0, "")
        assert command.ran.pop()[1].memory_fraction == default


def test_without_a_model_id_the_built_in_model_is_served(command):
    model = Path(command.serve()["engine"].model)
    assert model == Path(engine.__file__).parent / "demo"


def test_the_waiting_room_is_as_large_as_the_permits_unless_told_otherwise(command):
    assert command.serve()["engine"].max_waiting == 128
    assert command.serve("--max-concurrent-requests", "500")["engine"].max_waiting == 500
    words = ["--max-concurrent-requests", "500", "--max-queue-size", "20"]
    assert command.serve(*words)["engine"].max_waiting == 20


@pytest.mark.parametrize("name", ["info,text_generation_router=debug", " INFO ", "router=info"])
def test_a_rust_filter_counts_by_its_first_level(command, name):
    assert command.serve(LOG_LEVEL=name)["server"].log_level == "info"


def test_log_lines_are_json_when_asked_for(command):
    result = command("serve", "--json-output", "--usage-stats", "off")
    assert result.output.startswith('{"timestamp": "')


def test_configurations_come_from_plain_values():
    server, config = configs_from({"port": 80, "max_total_tokens": 9, "api_key": (), "dtype": None})
    assert server == replace(SERVED, port=80)
    assert config == EngineConfig(model=str(BUILT_IN_MODEL), max_total_tokens=9)
    assert notices({"cuda_graphs": "0", "usage_stats": None}) == [
        "--cuda-graphs has no effect: no CUDA graphs are captured"
    ]
    with pytest.raises(ConfigError, match=r"^--num-shard 2 is refused: "):
        configs_from({"num_shard": 2})
