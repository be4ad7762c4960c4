"""`millrace bench` as people run it, what it writes, and its report in a browser."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from browser import accessibility_faults, open_page
from commands import begin_stream, millrace, scripted, start, terminal

from server.bench.result import SHARES, BenchResult

ROOT = Path(__file__).parents[2]
SMALL = ("--requests", "4", "--prompt", "4", "--output", "8")
NUM_TOKENS = 8


def events(count=NUM_TOKENS):
    details = {"generated_tokens": count, "input_length": 4}
    token = {"id": 1, "text": "x"}
    return [
        f"data: {json.dumps({'token': token, 'details': told})}\n\n".encode()
        for told in [*[None] * (count - 1), details]
    ]


def answering(*kinds):
    """Give a handler that answers "well", "short", "cut" or with 429, in turn; the last for all."""
    todo = list(kinds)

    async def handle(request):
        kind = todo.pop(0) if len(todo) > 1 else todo[0]
        if kind == 429:
            return web.json_response({"error": "full"}, status=429)
        response = await begin_stream(request)
        for event in events(3 if kind == "short" else NUM_TOKENS):
            await response.write(event)
            if kind == "cut":
                request.transport.close()
        return response

    return handle


def read_result(path) -> BenchResult:
    """Read the JSON back by its types; a field too many or too few is an error."""
    value = json.loads(path.read_text())
    result = msgspec.convert(value, BenchResult)
    assert json.loads(json.dumps(msgspec.to_builtins(result))) == value
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


async def measure(url, folder, *words, name="result", **env):
    """Run a bench that writes both files."""
    files = {kind: folder / f"{name}.{kind}" for kind in ("json", "html")}
    done = await millrace(
        *("bench", "--url", url, *words),
        *("--json", str(files["json"]), "--html", str(files["html"])),
        **env,
    )
    return done, read_result(files["json"]), files["html"]


async def test_it_prints_a_table_and_writes_what_it_found(server, folder):
    done, result, html = await measure(server.url, folder, "--clients", "3,1,2", *SMALL)
    assert done.code == 0, done.err
    head, *rows = done.out.decode().splitlines()
    assert head.split()[:4] == ["clients", "tokens/s", "answers/s", "answered"]
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert [row.split()[3] for row in rows] == ["4", "4", "6"]
    assert [level.num_clients for level in result.levels] == [1, 2, 3]
    assert [level.figures.num_tokens for level in result.levels] == [32, 32, 48]
    assert result.is_complete
    assert result.is_answered
    assert (result.server.model, result.asked.dialect) == ("millrace-demo", "tgi")
    assert result.server.version.startswith("millrace ")
    assert result.machine.num_cores >= 1
    for level in result.levels:
        for spread, told in (
            (level.first_token_ms, level.figures.first_token_ms),
            (level.gap_ms, level.figures.gap_ms),
        ):
            assert len(spread) == len(SHARES)
            assert list(spread) == sorted(spread)
            assert (spread[100], spread[198], spread[-1]) == (told.p50, told.p99, told.max)
    assert f"bench --url {server.url}" in result.command
    assert html.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("dialect", ["completions", "chat"])
async def test_openais_routes_are_measured_too(server, folder, dialect):
    url = server.url + "/v1" if dialect == "completions" else server.url
    words = () if dialect == "completions" else ("--dialect", "chat")
    done, result, _ = await measure(url, folder, "--clients", "2", *SMALL, *words, name=dialect)
    assert (done.code, result.asked.dialect) == (0, dialect)
    assert result.levels[0].figures.num_answered == 4


async def test_every_run_asks_with_other_prompts_unless_it_is_told_a_seed(folder):
    async with scripted(answering("well"), {"model_id": "m"}) as server:
        words = ("--clients", "1", *SMALL)
        for seed in ((), (), ("--seed", "7"), ("--seed", "7")):
            await measure(server.url, folder, *words, *seed, name="seeds")
    prompts = [body["inputs"] for body in server.bodies]
    first, second, third, fourth = (prompts[at : at + 5][1:] for at in (0, 5, 10, 15))
    assert not set(first) & set(second)
    assert third == fourth


async def test_failed_short_and_refused_answers_are_counted_and_shown(folder):
    kinds = ("well", "well", 429, "cut", "short", 429)
    async with scripted(answering(*kinds, "well"), {"model_id": "m"}) as server:
        words = ("--clients", "1", *SMALL, "--requests", "6")
        done, result, html = await measure(server.url, folder, *words, name="faults")
    assert done.code == 1
    run = result.levels[0].figures
    assert (run.num_requests, run.num_answered) == (6, 2)
    assert (run.num_refused, run.num_failed) == (2, 2)
    failed, refused = (note for note in result.notes if "of 6 requests" in note)
    assert "2 of 6 requests failed" in failed
    assert "1 x 8 tokens were asked for, 3 came" in failed
    assert "1 x the answer was cut off" in failed
    assert "2 of 6 requests were refused (429)" in refused
    assert failed in done.err
    text = html.read_text()
    assert "8 tokens were asked for, 3 came" in text
    assert "2 of 6</td>" in text


async def test_answers_that_may_be_short_are_counted_apart(folder):
    async with scripted(answering("well", "short"), {"model_id": "m"}) as server:
        words = ("--clients", "1", *SMALL, "--may-stop")
        done, result, html = await measure(server.url, folder, *words, name="short")
    assert done.code == 0
    assert (result.levels[0].num_short, result.levels[0].figures.num_answered) == (4, 4)
    assert "4 answers ended before they had all tokens asked for" in html.read_text()
    assert "ignore_eos" not in server.bodies[0]["parameters"]


async def test_a_load_of_which_nothing_is_answered_still_has_a_report(folder):
    async with scripted(answering(429), {"model_id": "<b>m"}) as server:
        done, result, html = await measure(server.url, folder, "--clients", "2", *SMALL, name="no")
    assert done.code == 1
    assert result.levels[0].first_token_ms == ()
    assert "&lt;b&gt;m under load" in html.read_text()


async def test_a_server_that_answers_nothing_rightly_is_told_before_the_load():
    async with scripted(answering("short"), {"model_id": "m"}) as server:
        done = await millrace("bench", "--url", server.url, *SMALL)
    assert (done.code, done.out, len(server.bodies)) == (1, b"", 1)
    assert done.err == "Error: the first request failed: 8 tokens were asked for, 3 came\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--clients 1,x", "must be numbers above 0, as 1,4,16. Given: 1,x"),
        ("--clients 0", "must be numbers above 0"),
        ("--url https://a", "The load generator speaks plain HTTP"),
        ("--html no/such/folder/x.html", "cannot write into no/such/folder"),
    ],
)
async def test_what_cannot_be_done_is_told_before_it_begins(words, sentence):
    done = await millrace("bench", *words.split())
    assert done.code == 2
    assert sentence in done.err


async def test_a_server_that_is_not_there_is_told():
    done = await millrace("bench", "--url", "http://127.0.0.1:9")
    assert (done.code, done.out) == (3, b"")
    assert "nothing listens at http://127.0.0.1:9" in done.err


async def test_neither_a_key_nor_a_password_is_written_down(keyed, folder):
    secrets = ("--key", "open-sesame")
    done, result, html = await measure(
        keyed.url, folder, "--clients", "1", *SMALL, *secrets, name="key"
    )
    assert done.code == 0
    assert "--key '***'" in result.command
    assert "open-sesame" not in html.read_text()
    assert "open-sesame" not in (folder / "key.json").read_text()


async def test_a_stopped_sweep_keeps_the_levels_that_were_measured(folder):
    is_second = asyncio.Event()
    well = answering("well")

    async def hang_later(request):
        if len(server.bodies) <= 5:
            return await well(request)
        is_second.set()
        await asyncio.Event().wait()

    path = folder / "stopped.json"
    async with scripted(hang_later, {"model_id": "m"}) as server:
        process = await start(
            *("bench", "--url", server.url, "--clients", "1,2", *SMALL, "--json", str(path))
        )
        await asyncio.wait_for(is_second.wait(), 60)
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130
    result = read_result(path)
    assert [level.num_clients for level in result.levels] == [1]
    assert not result.is_complete
    assert "The sweep was cut short" in err.decode()
    assert len(out.splitlines()) == 2


async def test_a_terminal_shows_the_load_while_it_runs_and_keeps_only_the_figures():
    go_on = asyncio.Event()
    well = answering("well")

    async def hold_last(request):
        if len(server.bodies) == 5:
            await go_on.wait()
        return await well(request)

    async with (
        scripted(hold_last, {"model_id": "m"}) as server,
        terminal("bench", "--url", server.url, "--clients", "1", *SMALL) as screen,
    ):
        await screen.until(b"3 of 4 done, 1 running, 0 failed, 0 refused")
        await screen.until(b"first token  p50 ")
        await screen.until(b"\x1b[3F\x1b[J")
        go_on.set()
        assert await screen.end() == 0
    kept = re.sub(r"(?:[^\n]*\n){3}\x1b\[3F\x1b\[J", "", screen.screen.decode())
    lines = kept.replace("\r", "").splitlines()
    assert lines[0].startswith("    1 at a time: ")
    assert lines[1].startswith("clients  tokens/s ")
    assert "\x1b" not in kept


def test_the_benchmark_script_still_measures_with_the_same_generator(server):
    command = [sys.executable, "benchmarks/load.py", "--url", server.url, "--clients", "2"]
    done = subprocess.run(
        [*command, "--requests", "4", "--prompt", "4", "--output", "4", "--repeat", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "tgi: 2 clients, 4 requests of 4 words for 4 tokens; 1 runs" in done.stdout


@pytest.mark.needs("chromium")
@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)]
)
async def test_the_report_is_whole_in_a_browser_and_loads_nothing(
    server, folder, chromium, scheme, width
):
    path = folder / "result.html"
    if not path.exists():
        await measure(server.url, folder, "--clients", "1,2,3", *SMALL)
    async with open_page(
        chromium, path.as_uri(), color_scheme=scheme, width=width, bypass_csp=True
    ) as page:
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        await page.reload()
        assert await accessibility_faults(page) == []
        assert await page.evaluate("document.documentElement.scrollWidth") == width
        assert await page.get_by_role("img").count() == 4
        names = [
            await img.get_attribute("aria-labelledby")
            for img in await page.get_by_role("img").all()
        ]
        for name in names:
            title, text = name.split()
            assert await page.locator(f"#{title}").text_content()
            assert "3 clients" in await page.locator(f"#{text}").text_content()
        assert await page.locator("figure svg path.line").count() == 1 + 2 + 3 + 3 + 2 + 3 + 3
        await page.get_by_text("As a table").first.click()
        rows = page.locator("figure").first.get_by_role("row")
        assert await rows.count() == 4
        await page.screenshot(path=folder / f"{scheme}-{width}.png", full_page=True)
    assert asked == [path.as_uri()]


@pytest.mark.needs("chromium")
async def test_the_report_prints_black_on_white_without_what_is_to_be_opened(
    server, folder, chromium
):
    path = folder / "result.html"
    if not path.exists():
        await measure(server.url, folder, "--clients", "1,2,3", *SMALL)
    async with open_page(chromium, path.as_uri(), color_scheme="dark") as page:
        await page.emulate_media(media="print")
        colour = "getComputedStyle(document.body).backgroundColor"
        assert await page.evaluate(colour) == "rgb(255, 255, 255)"
        assert not await page.get_by_text("As a table").first.is_visible()
