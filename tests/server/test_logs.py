import json
import logging
import math
import re

import pytest

from server import logs
from server.logs import JsonFormatter, RequestRecord, TextFormatter, escape, log_request

HOSTILE = "a\r\nb\x1b[2J\u2028c\u2029d\x85e\x00f\x7fg\u202eh\ud800i\tj"
A_RECORD = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) \S+: ")
KEYS = ["timestamp", "level", "target", "message", "fields", "exception"]


@pytest.fixture
def configure():
    """logs.configure, undone after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield logs.configure
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in logs.OURS:
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(False)


def record(message, *args, fields=None, exc_info=None):
    made = logging.LogRecord("server.x", logging.INFO, "x.py", 1, message, args, exc_info)
    made.created = 1767225600.0625
    if fields is not None:
        made.fields = fields
    return made


def caught(error):
    try:
        raise error
    except type(error) as raised:
        return (type(raised), raised, raised.__traceback__)


def lines_of(text):
    """Split as the most generous reader of lines would."""
    return text.splitlines()


def test_a_text_line_has_time_level_logger_message_and_fields():
    line = TextFormatter().format(
        record("model %s", "loaded", fields={"seconds": 4.2, "at": "a b"})
    )
    assert line == '2026-01-01T00:00:00.062Z INFO server.x: model loaded seconds=4.2 at="a b"'


def test_a_field_that_is_none_is_left_out_of_text_and_null_in_json():
    made = record("m", fields={"a": None, "b": 0})
    assert TextFormatter().format(made).endswith("server.x: m b=0")
    assert json.loads(JsonFormatter().format(made))["fields"] == {"a": None, "b": 0}


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
@pytest.mark.parametrize(
    "made",
    [
        record(HOSTILE),
        record("path %s", HOSTILE),
        record("m", fields={"path": HOSTILE}),
        record("m", fields={"many": [HOSTILE]}),
    ],
    ids=["message", "argument", "field", "inside a field"],
)
def test_nothing_a_client_sends_can_end_or_repaint_a_line(formatter, made):
    text = formatter.format(made)
    assert len(lines_of(text)) == 1
    assert text.isprintable()
    assert all(shown in text for shown in ("\\r", "\\n", "\\u2028", "1b[2J"))


def test_a_field_cannot_pretend_to_be_two():
    line = TextFormatter().format(record("m", fields={"path": 'x" status=200 y="'}))
    assert line.endswith(r'm path="x\" status=200 y=\""')


@pytest.mark.parametrize("text", ["plain", "Müller 漢字 🙂", r"C:\new"])
def test_what_people_can_read_is_not_escaped(text):
    assert escape(text) == text


def test_a_traceback_in_text_is_readable_and_none_of_its_lines_is_a_record():
    forged = f"boom\n2026-01-01T00:00:00.000Z INFO server.x: all is well\r\x1b[2J{HOSTILE}"
    lines = lines_of(TextFormatter().format(record("failed", exc_info=caught(ValueError(forged)))))
    assert [bool(A_RECORD.match(line)) for line in lines] == [True] + [False] * (len(lines) - 1)
    assert all(line.startswith("    ") for line in lines[1:])
    assert all(line.isprintable() for line in lines)
    assert lines[1] == "    Traceback (most recent call last):"
    assert any("in caught" in line for line in lines)


def test_a_traceback_in_json_stays_on_the_line():
    line = JsonFormatter().format(record("failed", exc_info=caught(ValueError(HOSTILE))))
    assert len(lines_of(line)) == 1
    assert line.isascii()
    exception = json.loads(line)["exception"]
    assert exception.startswith("Traceback (most recent call last):\n")
    assert "ValueError: a\r\nb" in exception


def test_each_json_line_has_the_same_keys_and_only_numbers_json_knows():
    for made in (record("m"), record("m", fields={"a": math.nan, "b": math.inf, "c": 1.5})):
        line = json.loads(JsonFormatter().format(made), parse_constant=pytest.fail)
        assert list(line) == KEYS
    assert line["fields"] == {"a": None, "b": None, "c": 1.5}
    assert (line["timestamp"], line["level"]) == ("2026-01-01T00:00:00.062Z", "INFO")
    assert (line["target"], line["message"], line["exception"]) == ("server.x", "m", None)


def test_a_request_is_one_line_with_all_its_numbers(configure, capsys):
    configure(True, "info")
    log_request(
        RequestRecord(
            request_id="r-1\r\n",
            route="/generate",
            status=200,
            reasons=("length", "eos_token"),
            is_stream=True,
            is_client_gone=True,
            num_prompt_tokens=12,
            num_cached_tokens=8,
            num_generated_tokens=50,
            validation_ms=1.23456,
            queue_ms=2.0,
            inference_ms=2000.0,
            first_token_ms=40.0,
            total_ms=2003.5,
        )
    )
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["fields"] == {
        "request_id": "r-1\r\n",
        "route": "/generate",
        "status": 200,
        "reasons": "length,eos_token",
        "is_stream": True,
        "is_client_gone": True,
        "num_prompt_tokens": 12,
        "num_cached_tokens": 8,
        "num_generated_tokens": 50,
        "num_values": None,
        "validation_ms": 1.235,
        "queue_ms": 2.0,
        "inference_ms": 2000.0,
        "first_token_ms": 40.0,
        "total_ms": 2003.5,
        "tokens_per_second": 25.0,
    }


@pytest.mark.parametrize(("status", "level"), [(200, "INFO"), (429, "INFO"), (500, "WARNING")])
def test_only_our_own_faults_are_warnings(configure, capsys, status, level):
    configure(False, "info")
    log_request(RequestRecord(request_id="r", route="/", status=status, total_ms=1.0))
    assert f" {level} server.requests: request finished" in capsys.readouterr().out


def test_a_level_holds_for_us_and_others_speak_from_warnings_on(configure, capsys):
    configure(False, "debug")
    logging.getLogger("server.x").debug("ours")
    logging.getLogger("engine.y").debug("ours too")
    logging.getLogger("somebody").info("theirs")
    logging.getLogger("somebody").warning("theirs, loud")
    out = capsys.readouterr().out
    assert ["ours" in out, "ours too" in out, "theirs\n" in out] == [True, True, False]
    assert "theirs, loud" in out
    configure(False, "error")
    logging.getLogger("server.x").warning("ours again")
    logging.getLogger("somebody").warning("theirs again")
    assert capsys.readouterr().out == ""


def test_configuring_again_does_not_double_the_lines(configure, capsys):
    configure(False, "info")
    configure(True, "info")
    logging.getLogger("server.x").info("once")
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["message"] == "once"
