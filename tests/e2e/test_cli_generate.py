"""`millrace generate` as people and scripts run it: the real command, real servers, a terminal."""

import asyncio
import json
import signal
import socket
import subprocess
import sys

import pytest
from aiohttp import web
from commands import (
    MILLRACE,
    begin_stream,
    environment,
    millrace,
    scripted,
    start,
    streaming,
    terminal,
)
from occupancy import given_up
from raw_http import call

PROMPT = "The sky is"
ENDLESS = ("--temperature", "100", "--max-new-tokens", "4000")
"""Draws among all tokens alike, so that the one that ends an answer is hardly ever drawn."""
SPEED = r"first token after \d+ ms, {count}, \d+\.\d tokens/s"
INFO = {"model_id": "scripted"}


def native(text, end=None, special=False):
    details = None if end is None else {"finish_reason": end, "generated_tokens": 7}
    event = {
        "token": {"id": 1, "text": text, "logprob": -0.5, "special": special},
        "generated_text": None if end is None else "all",
        "details": details,
    }
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def completion(text, end=None):
    event = {"choices": [{"index": 0, "text": text, "finish_reason": end}]}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


async def expected_text(server, count):
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": count}}
    answer = await call(server.url, "POST", "/generate", body)
    return answer.json()["generated_text"].encode()


@pytest.mark.parametrize(
    ("suffix", "words"),
    [("", ()), ("", ("--dialect", "openai")), ("/v1", ()), ("/", ("--dialect", "tgi"))],
)
async def test_standard_output_gets_the_text_and_nothing_else(server, suffix, words):
    done = await millrace(
        "generate", PROMPT, "--url", server.url + suffix, "--max-new-tokens", "9", *words
    )
    assert (done.code, done.out) == (0, await expected_text(server, 9))
    assert len(done.out) > 9
    assert done.err.startswith("first token after ")
    assert "ms, 9 tokens, " in done.err
    assert done.err.endswith(" tokens/s, as long as --max-new-tokens allows\n")


@pytest.mark.parametrize("words", [(), ("-",)])
async def test_a_prompt_is_read_from_a_pipe_without_its_last_line_end(server, words):
    done = await millrace(
        *("generate", *words, "--url", server.url, "--max-new-tokens", "9"),
        stdin=f"{PROMPT}\n".encode(),
    )
    assert (done.code, done.out) == (0, await expected_text(server, 9))


async def test_text_is_printed_as_it_comes():
    go_on = asyncio.Event()

    async def pause(request):
        response = await begin_stream(request)
        await response.write(native("first"))
        await go_on.wait()
        await response.write(native(" second", "eos_token"))
        return response

    async with scripted(pause, INFO) as server:
        process = await start("generate", "x", "--url", server.url)
        assert await asyncio.wait_for(process.stdout.read(100), 30) == b"first"
        go_on.set()
        out, err = await process.communicate()
    assert (process.returncode, out) == (0, b" second")
    assert b" 7 tokens, " in err


async def test_special_tokens_are_no_text():
    handler = streaming(native("a"), native("</s>", "eos_token", special=True))
    async with scripted(handler, INFO) as server:
        done = await millrace("generate", "x", "--url", server.url)
    assert (done.code, done.out) == (0, b"a")


async def test_details_and_logprobs_are_told_in_readable_form(server):
    prompt = "water wheel " * 40
    words = ("generate", prompt, "--url", server.url, "--max-new-tokens", "3", "--details")
    await millrace(*words)
    done = await millrace(*words, "--logprobs", "--temperature", "0.5", "--seed", "11")
    assert done.code == 0
    lines = done.err.splitlines()
    assert lines[1].split() == ["token", "logprob", "probability"]
    assert all(line.endswith(" %") for line in lines[2:5])
    assert lines[5:7] == ["finish reason  length", "tokens         3"]
    assert lines[7].startswith("prompt tokens  ")
    num_cached = int(lines[7].split("(")[1].split()[0])
    assert num_cached >= 32
    assert lines[8] == "seed           11"


async def test_openais_route_shows_logprobs_too(server):
    done = await millrace(
        *("generate", PROMPT, "--url", server.url + "/v1", "--max-new-tokens", "3"),
        *("--logprobs", "--details"),
    )
    lines = done.err.splitlines()
    assert lines[1].split() == ["token", "logprob", "probability"]
    assert len([line for line in lines if line.endswith(" %")]) == 3
    assert "finish reason  length" in lines
    assert "prompt tokens  3 (0 from the cache)" in lines


async def test_auto_asks_a_server_without_info_by_openais_completions_and_for_its_model():
    async with scripted(streaming(completion("a", "stop"), b"data: [DONE]\n\n")) as server:
        done = await millrace("generate", "x", "--url", server.url, "--model", "m")
    assert (done.code, done.out) == (0, b"a")
    assert server.paths == ["/v1/completions"]
    assert server.bodies[0]["model"] == "m"


async def test_the_first_model_of_a_server_is_asked(server):
    done = await millrace("chat", "--url", server.url, stdin=b"")
    assert (done.code, done.out, done.err) == (0, b"", "")


async def test_a_seed_draws_the_same_again(server):
    words = ("generate", PROMPT, "--url", server.url, "--max-new-tokens", "20", "--seed", "5")
    first, again, other = [
        (await millrace(*words, "--temperature", "1.5", *more)).out
        for more in ((), (), ("--seed", "6"))
    ]
    assert first == again != other


# Leaving


async def test_ctrl_c_cancels_the_request_and_keeps_the_text(server):
    with given_up(server):
        async with terminal("generate", PROMPT, "--url", server.url, *ENDLESS) as screen:
            await screen.until(b" ")
            screen.type(b"\x03")
            assert await screen.end() == 130
    text, _, last = screen.text.rstrip("\n").rpartition("\n")
    assert last.startswith("first token after ")
    assert last.endswith(", cancelled")
    assert text.removesuffix("^C")


async def test_ctrl_c_before_the_first_token_ends_it_as_well():
    async def hang(request):
        await asyncio.Event().wait()

    async with scripted(hang, INFO) as server:
        process = await start("generate", "x", "--url", server.url)
        await asyncio.wait_for(server.asked.wait(), 30)
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
        await asyncio.wait_for(server.left.wait(), 30)
    assert (process.returncode, out, err) == (130, b"", b"cancelled\n")


async def test_a_reader_that_goes_ends_it_quietly_and_frees_the_slot(server):
    with given_up(server):
        process = await start("generate", PROMPT, "--url", server.url, *ENDLESS)
        assert await process.stdout.read(1)
        process._transport.get_pipe_transport(1).close()
        assert await asyncio.wait_for(process.wait(), 60) == 141
        assert await process.stderr.read() == b""


# What a model says, on a terminal


NASTY = "\x1b[2J\x1b]0;title\x07 a\rb \x9b31m \u202eyes\t\n"


async def test_a_terminal_is_not_driven_by_what_a_model_says():
    async with scripted(streaming(native(NASTY, "length")), INFO) as server:
        async with terminal("generate", "x", "--url", server.url) as screen:
            assert await screen.end() == 0
        done = await millrace("generate", "x", "--url", server.url)
    shown = screen.screen.decode().split("\r\n")[0]
    assert shown == "\\x1b[2J\\x1b]0;title\\x07 a\\rb \\x9b31m \\u202eyes\t"
    assert done.out == NASTY.encode()


async def test_a_terminal_is_not_driven_by_what_a_server_complains_of():
    async def refuse(request):
        return web.json_response({"error": "no\x1b[2J"}, status=422)

    async with scripted(refuse, INFO) as server:
        done = await millrace("generate", "x", "--url", server.url)
    assert done.err == "Error: no\\x1b[2J\n"


# What goes wrong


def unused_url():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


async def test_a_server_that_is_not_there_is_told_with_how_to_start_it():
    url = unused_url()
    done = await millrace("generate", "x", "--url", url)
    sentence = f"Error: nothing listens at {url}: start it with `millrace serve`\n"
    assert (done.code, done.out, done.err) == (3, b"", sentence)


@pytest.mark.parametrize("url", ["ftp://a", "http://a:b", "http://"])
async def test_a_wrong_address_is_told(url):
    done = await millrace("generate", "x", "--url", url)
    assert done.code == 2
    assert done.err == f"Error: the url must be http://host:port. Given: {url.rstrip('/')}\n"


async def test_a_missing_key_is_told_and_the_environments_is_sent(keyed):
    words = ("generate", PROMPT, "--url", keyed.url, "--max-new-tokens", "2")
    done = await millrace(*words)
    assert (done.code, done.out) == (1, b"")
    assert "wants a key: give it with --key or in MILLRACE_API_KEY" in done.err
    assert (await millrace(*words, "--key", "open-sesame")).code == 0
    assert (await millrace(*words, MILLRACE_API_KEY="open-sesame")).code == 0


async def test_a_full_server_is_told_with_when_to_come_again(full):
    done = await millrace("generate", PROMPT, "--url", full.url)
    assert (done.code, done.out) == (4, b"")
    assert "the server has no room: ask again in " in done.err


async def test_a_wrong_value_is_told_in_the_servers_own_words(server):
    done = await millrace("generate", PROMPT, "--url", server.url, "--top-p", "1.5")
    assert (done.code, done.out) == (1, b"")
    assert "`top_p` must be > 0.0 and < 1.0" in done.err


async def test_a_wrong_value_of_an_option_is_told_before_asking():
    done = await millrace("generate", "x", "--max-new-tokens", "0")
    assert done.code == 2
    assert "--max-new-tokens" in done.err


JSON_ANSWER = "does not stream: /generate_stream answers application/json"
ENDINGS = {
    "a cut connection": (streaming(native("a"), is_cut=True), 3, "the connection was cut"),
    "no end": (streaming(native("a")), 3, "the answer has no end"),
    "an error event": (
        streaming(native("a"), b'data: {"error":"boom","error_type":"generation"}\n\n'),
        1,
        "the server ended the answer with an error: boom",
    ),
    "no JSON": (streaming(native("a"), b"data: {\n\n"), 1, "not an event of TGI or OpenAI: {"),
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_an_answer_that_breaks_off_keeps_its_text_and_says_why(name):
    handler, code, sentence = ENDINGS[name]
    async with scripted(handler, INFO) as server:
        done = await millrace("generate", "x", "--url", server.url)
    assert (done.code, done.out) == (code, b"a")
    speed, error = done.err.splitlines()
    assert speed.endswith("1 token, not whole")
    assert error.startswith("Error: ")
    assert sentence in error


async def test_an_answer_that_is_no_stream_is_told():
    async def answer(request):
        return web.json_response([])

    async with scripted(answer, INFO) as server:
        done = await millrace("generate", "x", "--url", server.url)
    assert (done.code, done.out) == (1, b"")
    assert done.err == f"Error: {server.url} {JSON_ANSWER}\n"


async def test_without_a_prompt_in_a_terminal_it_says_what_it_wants():
    async with terminal("generate") as screen:
        assert await screen.end() == 2
    assert "give a PROMPT, or - to type it" in screen.text


def test_it_loads_no_torch(server):
    program = (
        "import atexit, sys\n"
        "heavy = {'torch', 'transformers', 'uvloop', 'prometheus_client'}\n"
        "atexit.register(lambda: print('LOADED', sorted(heavy & set(sys.modules))))\n"
        "from server.__main__ import main\n"
        f"main(['generate', 'x', '--url', {server.url!r}], prog_name='millrace')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.endswith("LOADED []\n")


@pytest.mark.parametrize("command", ["generate", "chat", "bench"])
def test_its_help_tells_the_exit_codes(command):
    done = subprocess.run(
        [*MILLRACE, command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=environment(COLUMNS="100"),
    )
    assert "Exit codes: 0 " in done.stdout
    assert "130 Ctrl-C" in done.stdout
