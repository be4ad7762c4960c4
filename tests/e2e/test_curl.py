"""curl, as TGI's documents use it: the very bytes and headers on the wire."""

import asyncio
import gzip
import json
import re
import subprocess
from pathlib import Path

import pytest
from occupancy import given_up
from raw_http import asking
from streams import check, check_chat, check_completions, check_native

pytestmark = pytest.mark.needs("curl")

JSON = ("-H", "Content-Type: application/json")
QUESTION = '{"inputs":"What is Deep Learning?","parameters":{"max_new_tokens":8,"details":true}}'
CHAT = (
    '{"model":"tgi","messages":[{"role":"user","content":"What is deep learning?"}],'
    '"stream":%s,"max_tokens":8,"temperature":0}'
)
WHOLE_HEADERS = {
    "x-compute-type": r"\S+",
    "x-compute-time": r"\d+\.\d+(e-\d+)?",
    "x-compute-characters": r"22",
    "x-total-time": r"\d+",
    "x-validation-time": r"\d+",
    "x-queue-time": r"\d+",
    "x-inference-time": r"\d+",
    "x-time-per-token": r"\d+",
    "x-prompt-tokens": r"[1-9]\d*",
    "x-generated-tokens": r"[1-8]",
}
STREAM_HEADERS = {
    "content-type": r"text/event-stream",
    "cache-control": r"no-cache",
    "x-accel-buffering": r"no",
    "x-compute-type": r"\S+",
    "x-compute-characters": r"22",
    "transfer-encoding": r"chunked",
}
TIMINGS = set(WHOLE_HEADERS) - set(STREAM_HEADERS)


class Answer:
    """What curl showed: the last status, its headers in lower case, the body."""

    def __init__(self, output: bytes, errors: str) -> None:
        head, _, self.body = output.partition(b"\r\n\r\n")
        while re.match(rb"HTTP/1.\d 1\d\d", head):
            head, _, self.body = self.body.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.version, self.status = first.split()[0], int(first.split()[1])
        self.headers = {
            name.lower(): value for name, value in (line.split(": ", 1) for line in lines)
        }
        self.errors = errors

    def json(self):
        return json.loads(self.body)


def curl(*arguments: str, data: bytes | None = None) -> Answer:
    """Run curl and split what it prints."""
    done = subprocess.run(
        ["curl", "-sS", "-N", "-i", "--max-time", "60", *arguments],
        input=data,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return Answer(done.stdout, done.stderr.decode())


def assert_headers(answer: Answer, expected: dict[str, str]) -> None:
    for name, pattern in expected.items():
        assert re.fullmatch(pattern, answer.headers[name]), (name, answer.headers[name])


@pytest.mark.parametrize("path", ["/generate", "/", "/invocations"])
def test_generate_has_tgis_headers(server, path):
    answer = curl(server.url + path, "-X", "POST", "-d", QUESTION, *JSON)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert_headers(answer, WHOLE_HEADERS)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["vary"] == (
        "origin, access-control-request-method, access-control-request-headers"
    )
    body = answer.json()
    assert isinstance(body, dict if path == "/generate" else list)


def test_a_native_stream_is_data_lines_and_blank_lines_and_no_done(server):
    answer = curl(server.url + "/generate_stream", "-X", "POST", "-d", QUESTION, *JSON)
    assert answer.status == 200
    assert_headers(answer, STREAM_HEADERS)
    assert not TIMINGS & set(answer.headers)
    token = (
        rb'{"id":\d+,"text":"([^"\\]|\\.)*","logprob":(-?\d+(\.\d+)?(e-\d+)?|null),'
        rb'"special":(true|false)}'
    )
    running = (
        rb'data: {"index":\d+,"token":' + token + rb',"generated_text":null,"details":null}\n\n'
    )
    last = (
        rb'data: {"index":\d+,"token":' + token + rb',"generated_text":"([^"\\]|\\.)*",'
        rb'"details":{"finish_reason":"(length|eos_token)","generated_tokens":\d+,"seed":null,'
        rb'"input_length":\d+,"cached_tokens":\d+}}\n\n'
    )
    assert re.fullmatch(rb"(" + running + rb")*" + last, answer.body)
    check_native(answer.body)


def test_the_root_streams_when_the_body_says_so(server):
    body = QUESTION.replace('{"inputs"', '{"stream":true,"inputs"')
    answer = curl(server.url, "-X", "POST", "-d", body, *JSON)
    stream = curl(server.url + "/generate_stream", "-X", "POST", "-d", QUESTION, *JSON)
    assert check_native(answer.body).token_ids == check_native(stream.body).token_ids
    whole = json.loads(answer.body.split(b"data: ")[-1])["generated_text"]
    assert whole == "What is Deep Learning?" + check_native(answer.body).text


def test_a_chat_stream_ends_with_done(server):
    answer = curl(server.url + "/v1/chat/completions", "-d", CHAT % "true", *JSON)
    assert_headers(answer, STREAM_HEADERS)
    assert answer.body.endswith(b"}\n\ndata: [DONE]\n\n")
    chunk = (
        rb'data: {"object":"chat.completion.chunk","id":"chatcmpl-\w+","created":\d+,'
        rb'"model":"([^"\\]|\\.)*","system_fingerprint":"millrace-[\w.]+","choices":\[{"index":0,'
        rb'"delta":{[^}]*},"logprobs":null,"finish_reason":(null|"stop"|"length")}\]}\n\n'
    )
    assert re.fullmatch(rb"(" + chunk + rb")+data: \[DONE\]\n\n", answer.body)
    whole = curl(server.url + "/v1/chat/completions", "-d", CHAT % "false", *JSON)
    assert_headers(whole, WHOLE_HEADERS)
    message = whole.json()["choices"][0]["message"]
    assert message == {"role": "assistant", "content": check_chat(answer.body).text}


def test_a_stream_of_several_completions_ends_with_done(server):
    body = '{"prompt":["One","Two"],"stream":true,"max_tokens":4,"ignore_eos":true}'
    answer = curl(server.url + "/v1/completions", "-d", body, *JSON)
    said = check_completions(answer.body, num_prompts=2)
    assert set(said.texts) == {0, 1}


def test_an_open_chat_of_http_1_0_ends_with_its_connection(server):
    answer = curl("-0", server.url + "/v1/chat/completions", "-d", CHAT % "true", *JSON)
    assert answer.status == 200
    assert "transfer-encoding" not in answer.headers
    check_chat(answer.body)


def test_head_and_get_say_that_it_lives(server):
    for path in ("/", "/health", "/ping", "/live", "/ready"):
        answer = curl(server.url + path)
        assert answer.status == 200
        assert answer.body == b""
    assert curl("-I", server.url + "/health").status == 200
    assert curl(server.url + "/info").json()["model_id"]
    metrics = curl(server.url + "/metrics")
    assert metrics.headers["content-type"] == "text/plain; charset=utf-8"


def test_a_browser_may_ask_first_with_a_key(keyed):
    answer = curl(
        *("-X", "OPTIONS", keyed.url + "/generate_stream", "-H", "Origin: https://page.example"),
        *("-H", "Access-Control-Request-Method: POST"),
        *("-H", "Access-Control-Request-Headers: authorization,content-type,x-stainless-os"),
    )
    assert answer.status == 200
    assert answer.body == b""
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-methods"] == "GET,POST"
    allowed = answer.headers["access-control-allow-headers"].split(",")
    assert {"authorization", "content-type", "x-stainless-os"} <= set(allowed)
    refused = curl(
        keyed.url + "/generate", "-d", QUESTION, *JSON, "-H", "Origin: https://page.example"
    )
    assert refused.status == 401
    assert refused.headers["access-control-allow-origin"] == "*"
    assert "Retry-After" in refused.headers["access-control-expose-headers"]


def test_without_a_content_type_it_is_415(server):
    answer = curl(server.url + "/generate", "-d", QUESTION)
    assert answer.status == 415
    assert answer.json()["error_type"] == "validation"
    assert "application/json" in answer.json()["error"]
    assert not TIMINGS & set(answer.headers)


def test_a_large_body_waits_for_continue(server):
    body = json.dumps({"inputs": "word " * 300_000}).encode()
    assert 1_000_000 < len(body) < 2_000_000
    url = server.url + "/generate"
    answer = curl("-v", url, *JSON, "--data-binary", "@-", data=body)
    assert "Expect: 100-continue" in answer.errors
    assert "100 Continue" in answer.errors
    assert answer.status == 422
    assert "`inputs`" in answer.json()["error"]


@pytest.mark.parametrize(
    "way", [(), ("-H", "Transfer-Encoding: chunked")], ids=["length", "chunks"]
)
def test_a_body_over_the_limit_is_413(server, way):
    body = json.dumps({"inputs": "x" * 2_100_000}).encode()
    answer = curl(server.url + "/generate", *JSON, *way, "--data-binary", "@-", data=body)
    assert answer.status == 413
    assert "2000000" in answer.json()["error"]
    assert answer.json()["error_type"] == "validation"


def test_a_compressed_bomb_is_413_and_takes_no_memory(server):
    bomb = gzip.compress(bytes(200_000_000), 1)
    assert len(bomb) < 2_000_000
    before = resident_bytes(server)
    for path in ("/generate", "/v1/chat/completions", "/tokenize"):
        answer = curl(
            *(server.url + path, *JSON, "-H", "Content-Encoding: gzip", "--data-binary", "@-"),
            data=bomb,
        )
        assert answer.status == 413, answer.body
    assert resident_bytes(server) - before < 60_000_000


def test_a_compressed_body_is_read(server):
    answer = curl(
        *(server.url + "/generate", *JSON, "-H", "Content-Encoding: gzip", "--data-binary", "@-"),
        data=gzip.compress(QUESTION.encode()),
    )
    assert answer.status == 200
    assert answer.json()["generated_text"]


def resident_bytes(server) -> int:
    """Read how much memory the server has in use."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


async def test_tokens_arrive_one_by_one_and_a_killed_curl_is_noticed(server):
    body = '{"inputs":"And so","parameters":{"max_new_tokens":4000,"ignore_eos":true}}'
    with given_up(server):
        process = await asyncio.create_subprocess_exec(
            *("curl", "-sN", server.url + "/generate_stream", "-d", body, *JSON),
            stdout=subprocess.PIPE,
        )
        lines = [await process.stdout.readline() for _ in range(6)]
        assert [line[:6] for line in lines] == [b"data: ", b"\n"] * 3
        assert server.metric("millrace_requests_running") == 1
        process.kill()
        await process.communicate()


async def test_the_same_connection_serves_again_after_a_stream(server):
    async with asking(server.url, "/generate_stream", json.loads(QUESTION)) as connection:
        first = await connection.read()
        connection.response = None
        body = QUESTION.encode()
        await connection.send(
            b"POST /generate_stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        second = await connection.read()
    assert check("/generate_stream", first.body).token_ids == (
        check("/generate_stream", second.body).token_ids
    )
