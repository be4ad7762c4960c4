"""`millrace chat` as people use it: typed in a terminal, or fed from a pipe."""

import asyncio
import json

from aiohttp import web
from commands import begin_stream, millrace, scripted, terminal
from occupancy import given_up

ENDLESS = ("--temperature", "100", "--max-new-tokens", "4000")
DONE = b"data: [DONE]\n\n"


def chunk(content=None, end=None, **delta):
    if content is not None:
        delta["content"] = content
    event = {"choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def answering(*answers):
    """Give a handler that answers each request with the next of these; None goes on for ever."""
    todo = list(answers)

    async def handle(request):
        text = todo.pop(0)
        if isinstance(text, web.Response):
            return text
        response = await begin_stream(request)
        await response.write(chunk("", role="assistant"))
        if text is None:
            await response.write(chunk("half an answer"))
            await asyncio.Event().wait()
        await response.write(chunk(text))
        await response.write(chunk(end="stop"))
        await response.write(DONE)
        return response

    return handle


def messages(server):
    """Give what each request had said, as pairs of role and text."""
    return [[(m["role"], m["content"]) for m in body["messages"]] for body in server.bodies]


async def test_each_line_of_a_pipe_is_a_turn_and_all_that_was_said_goes_along():
    async with scripted(answering("one", "two")) as server:
        done = await millrace(
            *("chat", "--url", server.url, "--system", "be brief", "--max-new-tokens", "5"),
            stdin="first\n\nsecönd".encode(),
        )
    assert (done.code, done.out) == (0, b"one\ntwo\n")
    assert done.err.count("first token after ") == 2
    system, first, second = ("system", "be brief"), ("user", "first"), ("user", "secönd")
    assert messages(server) == [[system, first], [system, first, ("assistant", "one"), second]]
    assert server.paths == ["/v1/chat/completions"] * 2
    assert [body["max_tokens"] for body in server.bodies] == [5, 5]


THINKING = [
    chunk("", role="assistant"),
    chunk(reasoning_content="I\x1b[2J "),
    chunk(reasoning_content="see."),
    chunk("one"),
    chunk(end="stop"),
    DONE,
]


async def think(request):
    response = await begin_stream(request)
    for part in THINKING:
        await response.write(part)
    return response


async def test_a_terminal_shows_thoughts_dimmed_and_apart():
    async with (
        scripted(think) as server,
        terminal("chat", "--url", server.url, "--model", "m") as screen,
    ):
        await screen.until(b"> ")
        screen.type(b"first\r")
        await screen.until(b"> ", after=await screen.until(b"one\r\n"))
        screen.type(b"second\r")
        await screen.until(b"> ", after=await screen.until(b"one\r\n"))
        screen.type(b"\x04")
        assert await screen.end() == 0
    assert "\x1b[2mI\\x1b[2J \x1b[22m\x1b[2msee.\x1b[22m\r\n\r\none\r\n" in screen.screen.decode()
    assert messages(server)[1] == [("user", "first"), ("assistant", "one"), ("user", "second")]


async def test_a_pipe_gets_the_answer_without_thoughts():
    async with scripted(think) as server:
        done = await millrace("chat", "--url", server.url, stdin=b"first\n")
    assert (done.code, done.out) == (0, b"one\n")


async def test_the_built_in_model_answers(server):
    done = await millrace(
        "chat", "--url", server.url, "--temperature", "0", stdin=b"What is Millrace?\n"
    )
    assert done.code == 0
    assert b"Millrace" in done.out


async def test_the_first_failure_of_a_pipe_is_the_end():
    full = web.json_response({"error": "full"}, status=429, headers={"Retry-After": "2"})
    async with scripted(answering("one", full)) as server:
        done = await millrace("chat", "--url", server.url, stdin=b"a\nb\nc\n")
    assert (done.code, done.out) == (4, b"one\n")
    assert done.err.endswith("Error: the server has no room: ask again in 2 s (full)\n")


async def test_ctrl_c_cancels_the_answer_and_keeps_the_conversation():
    async with (
        scripted(answering("one", None, "three")) as server,
        terminal("chat", "--url", server.url, "--model", "m") as screen,
    ):
        await screen.until(b"> ")
        screen.type(b"first\r")
        await screen.until(b"> ", after=await screen.until(b"one\r\n"))
        screen.type(b"second\r")
        at = await screen.until(b"half an answer")
        screen.type(b"\x03")
        await asyncio.wait_for(server.left.wait(), 30)
        await screen.until(b"> ", after=await screen.until(b", cancelled", after=at))
        screen.type(b"third\r")
        await screen.until(b"> ", after=await screen.until(b"three\r\n"))
        screen.type(b"\x04")
        assert await screen.end() == 0
    assert messages(server)[2] == [
        ("user", "first"),
        ("assistant", "one"),
        ("user", "second"),
        ("assistant", "half an answer"),
        ("user", "third"),
    ]
    assert screen.text.startswith("m at http://127.0.0.1:")


async def test_a_question_that_was_cancelled_before_its_answer_is_forgotten():
    asked = asyncio.Event()

    async def hang_first(request):
        if asked.is_set():
            return await answering("two")(request)
        asked.set()
        await asyncio.Event().wait()

    async with (
        scripted(hang_first) as server,
        terminal("chat", "--url", server.url, "--model", "m") as screen,
    ):
        at = await screen.until(b"> ")
        screen.type(b"first\r")
        await asyncio.wait_for(asked.wait(), 30)
        screen.type(b"\x03")
        at = await screen.until(b"> ", after=await screen.until(b"cancelled\r\n", after=at))
        screen.type(b"second\r")
        await screen.until(b"> ", after=await screen.until(b"two\r\n", after=at))
        assert await screen.interrupt() == 0
    assert messages(server)[1] == [("user", "second")]


async def test_reset_forgets_and_quit_leaves():
    async with (
        scripted(answering("one", "two")) as server,
        terminal("chat", "--url", server.url, "--system", "s") as screen,
    ):
        await screen.until(b"> ")
        screen.type(b"first\r")
        await screen.until(b"> ", after=await screen.until(b"one\r\n"))
        screen.type(b"/reset\rsecond\r")
        await screen.until(b"> ", after=await screen.until(b"two\r\n"))
        screen.type(b"/quit\r")
        assert await screen.end() == 0
    assert messages(server)[1] == [("system", "s"), ("user", "second")]


async def test_a_person_may_try_again_after_an_error():
    refused = web.json_response({"error": {"message": "too\x1b[2J long"}}, status=422)
    async with (
        scripted(answering(refused, "two")) as server,
        terminal("chat", "--url", server.url) as screen,
    ):
        at = await screen.until(b"> ")
        screen.type(b"first\r")
        at = await screen.until(b"> ", after=await screen.until(b"Error: too\\x1b[2J long\r\n"))
        screen.type(b"second\r")
        await screen.until(b"> ", after=await screen.until(b"two\r\n", after=at))
        screen.type(b"\x04")
        assert await screen.end() == 0
    assert messages(server)[1] == [("user", "second")]


async def test_a_terminal_is_not_driven_by_what_a_model_says():
    async with (
        scripted(answering("\x1b[2Jhi")) as server,
        terminal("chat", "--url", server.url) as screen,
    ):
        await screen.until(b"> ")
        screen.type(b"first\r")
        await screen.until(b"\r\n\\x1b[2Jhi\r\n")
        assert b"\x1b[2J" not in screen.screen


async def test_ctrl_c_frees_the_slot_of_a_real_server(server):
    with given_up(server):
        async with terminal("chat", "--url", server.url, *ENDLESS) as screen:
            await screen.until(b"> ")
            screen.type(b"Hello\r")
            at = await screen.until(b"Hello\r\n")
            await screen.until(b" ", after=at)
            screen.type(b"\x03")
            await screen.until(b"> ", after=await screen.until(b", cancelled", after=at))
            screen.type(b"\x04")
            assert await screen.end() == 0
