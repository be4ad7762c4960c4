"""Who leaves the Gradio app gives back the server's place: a job, a button, a keystroke, a tab."""

import asyncio
import json
import re
import subprocess
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from browser import expect, open_page
from gradio_app import client_of, demo
from in_process import byte_tokenizer, in_process
from occupancy import wait_for
from raw_http import asking
from setup_peers import NPM_PACKAGES

pytestmark = pytest.mark.asyncio(loop_scope="session")

JS = Path(__file__).parent / "js"
WORDS = "and so it goes on, "
IDS = byte_tokenizer().encode(WORDS)
ENDLESS = 500
"""Tokens that take this model ten seconds, and more than a test waits for."""
BEGUN = re.compile("^and so it")


def slowly(row) -> int:
    """Say WORDS again and again, a letter a step."""
    time.sleep(0.02)
    return IDS[row.num_output % len(IDS)]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def slow():
    """A server with one row, whose model is slow and never ends by itself."""
    async with in_process(slowly, limits={"max_batch_size": 1}) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def app(slow):
    starting = demo(slow.url)
    app = await asyncio.to_thread(starting.__enter__)
    yield app
    await asyncio.to_thread(starting.__exit__, None, None, None)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(app):
    return await asyncio.to_thread(client_of, app.url)


@asynccontextmanager
async def given_up(slow, count=1):
    """See that so many sequences are ended because who asked has left."""

    def ended():
        return slow.metric("millrace_sequences_ended_total", reason="abort")

    before = ended()
    yield
    await wait_for(lambda: not any(slow.held().values()))
    assert ended() - before == count


@asynccontextmanager
async def tab(chromium, app, name):
    """Open the app in a browser, at one of its tabs."""
    async with open_page(chromium, app.url) as page:
        await page.get_by_role("tab", name=name).click()
        yield page


@pytest.mark.parametrize(
    ("asked", "num_sequences"),
    [
        (("Tell me", ENDLESS, "/complete"), 1),
        (("Tell me", ENDLESS, "/chat"), 1),
        (("Tell me", ENDLESS, "/side_by_side"), 2),
        (("Tell me", 200, "/as_you_type"), 1),
        (("Tell me", 16, "/picture"), 1),
    ],
    ids=lambda asked: asked[-1] if isinstance(asked, tuple) else "",
)
async def test_a_cancelled_job_frees_the_place(slow, client, asked, num_sequences):
    *arguments, api_name = asked
    async with given_up(slow, num_sequences):
        job = client.submit(*arguments, api_name=api_name)
        await asyncio.to_thread(next, job)
        await wait_for(lambda: slow.held()["millrace_permits_held"] == num_sequences)
        assert await asyncio.to_thread(job.cancel)
    assert 1 <= len(job.outputs()) < ENDLESS


async def test_a_newer_text_of_the_same_person_ends_the_run_before(slow, client):
    async with given_up(slow):
        older = client.submit("Tell", 200, api_name="/as_you_type")
        await asyncio.to_thread(next, older)
        newer = client.submit("Tell me", 5, api_name="/as_you_type")
        await asyncio.to_thread(older.result)
        said = await asyncio.to_thread(newer.result)
    assert said[0] == "and s"
    assert older.outputs()[-1][0].startswith("a")


async def test_another_persons_run_goes_on(slow, app, client):
    other = await asyncio.to_thread(client_of, app.url)
    async with given_up(slow, 0):
        mine = client.submit("Tell me", 8, api_name="/as_you_type")
        theirs = other.submit("Tell me", 8, api_name="/as_you_type")
        assert (await asyncio.to_thread(mine.result))[0] == "and so i"
        assert (await asyncio.to_thread(theirs.result))[0] == "and so i"


# -- from JavaScript


async def node(case: str, app) -> dict:
    """Run a case of `js/gradio.mjs`; give its value."""
    done = await asyncio.to_thread(
        subprocess.run,
        ["node", "run.mjs", "gradio", case, app.url],
        cwd=JS,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert "error" not in outcome, outcome
    return outcome["value"]


@pytest.mark.needs("node", NPM_PACKAGES)
async def test_gradios_javascript_client_gets_value_after_value(slow, app):
    texts = await node("iterate", app)
    assert texts[-1] == WORDS[:12]
    assert len(set(texts)) > 5
    assert texts == sorted(texts, key=len)


@pytest.mark.needs("node", NPM_PACKAGES)
async def test_a_job_cancelled_from_javascript_frees_the_place(slow, app):
    async with given_up(slow):
        assert await node("cancel", app)


@pytest.mark.needs("node", NPM_PACKAGES)
async def test_the_counter_counts_in_javascript(app):
    *counted, last = await node("count", app)
    assert counted == ["0", "1", "2"]
    assert last == "2"  # its end brings the last value again


# -- in a browser


def shown(page):
    """Find the text of the tab that is open."""
    return page.get_by_label("It goes on").filter(visible=True)


@pytest.mark.needs("chromium")
async def test_the_chats_stop_button_frees_the_place_and_the_text_stays(slow, app, chromium):
    async with given_up(slow), tab(chromium, app, "Chat") as page:
        await page.get_by_placeholder("Write a message").fill("Tell me")
        await page.keyboard.press("Enter")
        await expect(page.get_by_test_id("bot")).to_contain_text("and so")
        await page.get_by_role("button", name="Stop").filter(visible=True).click()
        await wait_for(lambda: not any(slow.held().values()))
        await expect(page.get_by_test_id("bot")).to_contain_text("and so")


@pytest.mark.needs("chromium")
async def test_the_stop_button_of_a_completion_frees_the_place_and_the_text_stays(
    slow, app, chromium
):
    async with given_up(slow), tab(chromium, app, "Completion") as page:
        await page.get_by_role("button", name="Generate").click()
        await expect(shown(page)).to_have_value(BEGUN)
        await page.get_by_role("button", name="Stop").filter(visible=True).click()
        await wait_for(lambda: not any(slow.held().values()))
        await expect(shown(page)).to_have_value(BEGUN)


@pytest.mark.needs("chromium")
async def test_each_keystroke_ends_the_run_before_and_the_last_one_is_whole(slow, app, chromium):
    async with given_up(slow, 6), tab(chromium, app, "As you type") as page:
        for letter in "Tell me":
            running = slow.metric("millrace_requests_total")
            await page.get_by_label("Write").press_sequentially(letter)
            await wait_for(lambda: slow.metric("millrace_requests_total") == running + 1)  # noqa: B023
        await expect(shown(page)).to_have_value((WORDS * 3)[:40])


@pytest.mark.needs("chromium")
async def test_a_fault_in_mid_stream_is_told_and_the_text_stays(slow, app, chromium):
    async with tab(chromium, app, "Completion") as page:
        await page.get_by_role("button", name="Generate").click()
        await expect(shown(page)).to_have_value(BEGUN)
        slow.runner.raises = RuntimeError("the model broke")
        await expect(page.get_by_text("The model could not go on")).to_be_visible()
        await expect(shown(page)).to_have_value(BEGUN)
        slow.runner.raises = None
        await page.get_by_role("button", name="Generate").click()
        await expect(shown(page)).to_have_value((WORDS * 6)[:100])


@pytest.mark.needs("chromium")
async def test_a_fault_in_mid_chat_is_told_below_the_text_and_the_chat_goes_on(slow, app, chromium):
    async with given_up(slow), tab(chromium, app, "Chat") as page:
        message = page.get_by_placeholder("Write a message")
        answers = page.get_by_test_id("bot")
        await message.fill("Tell me")
        await page.keyboard.press("Enter")
        await expect(answers).to_contain_text(BEGUN)
        slow.runner.raises = RuntimeError("the model broke")
        told = re.compile("^and so it.*The model could not go on: Request failed", re.DOTALL)
        await expect(answers).to_have_text(told)
        slow.runner.raises = None
        await page.locator("textarea").filter(visible=True).fill("And now?")
        await page.keyboard.press("Enter")
        await expect(answers.nth(1)).to_contain_text(BEGUN)
        await page.get_by_role("button", name="Stop").filter(visible=True).click()


@pytest.mark.needs("chromium")
async def test_a_closed_tab_frees_the_place(slow, app, chromium):
    async with given_up(slow), tab(chromium, app, "Completion") as page:
        await page.get_by_role("button", name="Generate").click()
        await expect(shown(page)).to_have_value(BEGUN)


@pytest.mark.needs("chromium")
async def test_a_tab_closed_before_the_first_word_frees_its_place_in_the_queue(slow, app, chromium):
    endless = {"inputs": "Tell me", "parameters": {"max_new_tokens": 5000}}
    async with asking(slow.url, "/generate_stream", endless) as first:
        await first.read_until(b"data:")
        async with tab(chromium, app, "Completion") as page:
            await page.get_by_role("button", name="Generate").click()
            await wait_for(lambda: slow.held()["millrace_queue_depth"] == 1)
        await wait_for(lambda: slow.held()["millrace_queue_depth"] == 0)
        assert slow.held()["millrace_permits_held"] == 1
    await wait_for(lambda: not any(slow.held().values()))
