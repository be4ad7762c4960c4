import dataclasses
import math

import pytest

from server.config import ConfigError, ServerConfig, is_address

WRONG = [
    ("port", -1, "between 0 and 65535"),
    ("port", 65_536, "between 0 and 65535"),
    ("max_concurrent_requests", 0, "at least 1"),
    ("max_best_of", 0, "at least 1"),
    ("max_stop_sequences", -1, "at least 0"),
    ("max_top_n_tokens", -1, "at least 0"),
    ("max_client_batch_size", 0, "at least 1"),
    ("payload_limit_bytes", 0, "at least 1"),
    ("max_backlog_bytes", 0, "at least 1"),
    ("graceful_termination_timeout_s", -0.5, "at least 0"),
    ("graceful_termination_timeout_s", math.nan, "at least 0"),
    ("keep_alive_s", 0.0, "above 0"),
    ("max_stall_s", 0.0, "above 0"),
    ("max_stall_s", math.nan, "above 0"),
    ("hostname", "somewhere.example", "an IP address or localhost"),
    ("hostname", "", "an IP address or localhost"),
    ("log_level", "loud", "one of debug, info, warning, error, critical"),
    ("compute_type", "gpu\r\nx-evil: 1", "visible ASCII"),
    ("compute_type", "", "visible ASCII"),
    ("served_model_name", "", "printable"),
    ("served_model_name", "a\nb", "printable"),
]


@pytest.mark.parametrize(("field", "value", "limit"), WRONG)
def test_a_wrong_value_is_refused_with_field_limit_and_value(field, value, limit):
    with pytest.raises(ConfigError) as refusal:
        ServerConfig(**{field: value})
    sentence = str(refusal.value)
    assert sentence.startswith(f"{field} must be ")
    assert limit in sentence
    assert sentence.endswith(f"Given: {value if not isinstance(value, str) else repr(value)}")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("port", 0),
        ("port", 65_535),
        ("max_concurrent_requests", 1),
        ("max_stop_sequences", 0),
        ("max_top_n_tokens", 0),
        ("graceful_termination_timeout_s", 0.0),
        ("hostname", "::1"),
        ("hostname", "localhost"),
        ("api_keys", ("a!~", "b")),
        ("cors_allow_origin", ("https://a.example",)),
        ("served_model_name", "mein Modell"),
    ],
)
def test_the_edges_of_each_range_are_taken(field, value):
    assert getattr(ServerConfig(**{field: value}), field) == value


@pytest.mark.parametrize("key", ["", "zwei drei", "geheim,offen", "geheim\n", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(key):
    with pytest.raises(ConfigError) as refusal:
        ServerConfig(api_keys=("good", key))
    assert "key 2 of 2" in str(refusal.value)
    assert not key or key not in str(refusal.value)


@pytest.mark.parametrize("origin", ["", "https://a.example https://b.example", "a\r\nb"])
def test_an_origin_that_no_header_can_carry_is_refused(origin):
    with pytest.raises(ConfigError, match=r"^cors_allow_origin must be an origin"):
        ServerConfig(cors_allow_origin=(origin,))


def test_the_defaults_are_those_of_tgi():
    config = ServerConfig()
    assert (config.hostname, config.port) == ("0.0.0.0", 3000)
    assert config.max_concurrent_requests == 128
    assert (config.max_best_of, config.max_stop_sequences, config.max_top_n_tokens) == (2, 4, 5)
    assert config.max_client_batch_size == 4
    assert config.payload_limit_bytes == 2_000_000
    assert config.graceful_termination_timeout_s == 90


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ServerConfig().port = 80


def test_only_addresses_and_localhost_can_be_listened_on():
    assert [is_address(name) for name in ("127.0.0.1", "::", "localhost")] == [True] * 3
    assert [is_address(name) for name in ("", "4f1a2b", "256.0.0.1", "[::1]")] == [False] * 4
