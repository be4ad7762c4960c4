"""The live view, in a real browser: what runs and waits, what has ended and why; a lost server."""

import asyncio
import re
from contextlib import AsyncExitStack

import pytest
from browser import open_page
from in_process import in_process
from occupancy import wait_for
from playwright.async_api import expect
from raw_http import asking, call
from served import free_port

pytestmark = pytest.mark.needs("chromium")

SECRET = "Rosebud-4711"


def body(text="abcde", num_tokens=40):
    return {"inputs": text, "parameters": {"max_new_tokens": num_tokens}}


def bar(page, number):
    return page.get_by_role("button", name=f"Request {number},")


def row(page, number):
    return page.get_by_role("row", name=f"#{number} ")


def connection(page):
    return page.get_by_role("status")


async def test_two_requests_run_at_once_and_then_each_has_its_sentence(chromium):
    async with in_process() as server, open_page(chromium, server.url + "/#live") as page:
        await expect(connection(page)).to_have_text("Live")
        await expect(page.get_by_text("Nothing is open.")).to_be_visible()
        server.runner.gate.clear()
        async with (
            asking(server.url, "/generate_stream", body(SECRET)),
            asking(server.url, "/generate", body(SECRET)),
        ):
            await expect(row(page, 1)).to_be_visible()
            await expect(row(page, 2)).to_be_visible()
            await expect(bar(page, 1)).to_have_count(1)
            await expect(bar(page, 2)).to_have_count(1)
            await expect(tile(page, "Permits held")).to_contain_text("2of 128")
            server.runner.gate.set()
            for number in (1, 2):
                ended = page.get_by_role("listitem").filter(has_text=f"#{number}")
                await expect(ended).to_contain_text(re.compile("It took .* decoding 40 tokens at"))
        await expect(page.get_by_text("Nothing is open.")).to_be_visible()
        await expect(tile(page, "Permits held")).to_contain_text("0of 128")
        assert SECRET not in await page.content()


def tile(page, title):
    return page.locator(".tile").filter(has=page.get_by_text(title, exact=True))


async def test_a_request_that_waits_says_so_until_its_turn(chromium):
    async with (
        in_process(limits={"max_batch_size": 1}) as server,
        open_page(chromium, server.url + "/#live") as page,
    ):
        await expect(connection(page)).to_have_text("Live")
        server.runner.gate.clear()
        async with asking(server.url, "/generate_stream", body()):
            await expect(row(page, 1)).to_contain_text("reading the prompt")
            async with asking(server.url, "/generate_stream", body()):
                await expect(row(page, 2)).to_contain_text("waiting")
                await expect(tile(page, "Waiting")).to_contain_text("1")
                await row(page, 2).get_by_role("button").click()
                await expect(story(page)).to_contain_text("waits with its 5 prompt tokens")
                server.runner.gate.set()
                await expect(story(page)).to_contain_text(
                    "waiting while the only row of the batch was taken"
                )
                await expect(story(page).get_by_label("What the time")).to_contain_text("Waiting")


def story(page):
    return page.locator("#live-story")


async def test_tokens_are_drawn_as_they_come(chromium):
    async with in_process() as server, open_page(chromium, server.url + "/#live") as page:
        await expect(connection(page)).to_have_text("Live")
        async with asking(server.url, "/generate_stream", body(num_tokens=90_000)):
            flow = bar(page, 1).locator(".flow")
            seen = set()
            async with asyncio.timeout(30):
                while len(seen) < 4:
                    path = await flow.get_attribute("d") if await flow.count() else ""
                    seen.add(len(path or ""))
        await expect(bar(page, 1)).to_have_attribute("data-outcome", "client_gone")


async def test_a_row_stays_the_same_button_while_its_numbers_change(chromium):
    async with in_process() as server, open_page(chromium, server.url + "/#live") as page:
        await expect(connection(page)).to_have_text("Live")
        server.runner.gate.clear()
        async with asking(server.url, "/generate_stream", body()):
            button = await row(page, 1).get_by_role("button").element_handle()
            await button.focus()
            age = row(page, 1).get_by_role("cell").nth(3)
            for _ in range(3):
                await expect(age).not_to_have_text(await age.inner_text())
            assert await button.evaluate("(button) => button === document.activeElement")
            await expect(row(page, 1).get_by_role("button", pressed=False)).to_be_visible()
            await button.press("Enter")
            await expect(row(page, 1).get_by_role("button", pressed=True)).to_be_visible()
            server.runner.gate.set()


async def test_a_refusal_is_marked_counted_and_explained(chromium):
    async with (
        in_process(max_concurrent_requests=1) as server,
        open_page(chromium, server.url + "/#live") as page,
    ):
        await expect(connection(page)).to_have_text("Live")
        server.runner.gate.clear()
        async with asking(server.url, "/generate", body()):
            await expect(row(page, 1)).to_be_visible()
            assert (await call(server.url, "POST", "/generate", body())).status == 429
            await expect(tile(page, "Refused so far")).to_contain_text("11 no permit")
            await expect(bar(page, 2)).to_have_attribute("data-outcome", "refused")
            await bar(page, 2).focus()
            await expect(story(page)).to_contain_text("the only permit was held")
            server.runner.gate.set()


async def test_the_arrow_keys_lead_from_bar_to_bar_and_the_sentence_follows(chromium):
    async with in_process() as server, open_page(chromium, server.url + "/#live") as page:
        await expect(connection(page)).to_have_text("Live")
        for _ in range(3):
            await call(server.url, "POST", "/generate", body())
        await expect(page.get_by_role("listitem").filter(has_text="It took")).to_have_count(3)
        await expect(page.locator(".bar[tabindex='0']")).to_have_count(1)
        await bar(page, 3).focus()
        await expect(story(page)).to_contain_text("Request 3")
        await page.keyboard.press("ArrowLeft")
        await expect(story(page)).to_contain_text("Request 2")
        await page.keyboard.press("ArrowUp")
        await expect(story(page)).to_contain_text("Request 1")


async def test_the_view_follows_only_while_it_is_looked_at(chromium):
    async with in_process() as server, open_page(chromium, server.url + "/#live") as page:
        await expect(connection(page)).to_have_text("Live")
        assert server.metric("millrace_watchers") == 1
        await page.get_by_role("link", name="Playground").click()
        await wait_for(lambda: server.metric("millrace_watchers") == 0)
        await page.get_by_role("link", name="Live").click()
        await wait_for(lambda: server.metric("millrace_watchers") == 1)
        await page.get_by_role("button", name="Pause").click()
        await wait_for(lambda: server.metric("millrace_watchers") == 0)
        await expect(connection(page)).to_have_text("Paused")
        await page.get_by_role("button", name="Pause").click()
        await expect(connection(page)).to_have_text("Live")


async def test_a_key_is_asked_for_and_then_the_feed_comes(chromium):
    forgiven = ["status of 401"]
    async with (
        in_process(api_keys=("sesame",)) as server,
        open_page(chromium, server.url + "/#live", expects=forgiven) as page,
    ):
        await expect(connection(page)).to_have_text("This server asks for a key: give it above.")
        await page.get_by_label("This server asks for a key").fill("sesame")
        await page.get_by_role("button", name="Use it").click()
        await expect(connection(page)).to_have_text("Live")


async def test_a_feed_that_is_turned_off_is_told(chromium):
    forgiven = ["status of 404"]
    async with (
        in_process(is_events=False) as server,
        open_page(chromium, server.url + "/#live", expects=forgiven) as page,
    ):
        await expect(connection(page)).to_contain_text("turned off on this server (--no-events)")


async def test_a_server_that_goes_and_comes_back_is_found_again(chromium):
    port, forgiven = free_port(), ["ERR_CONNECTION_REFUSED"]
    url = f"http://127.0.0.1:{port}"
    async with AsyncExitStack() as stack:
        async with in_process(port=port):
            page = await stack.enter_async_context(
                open_page(chromium, url + "/#live", expects=forgiven)
            )
            await expect(connection(page)).to_have_text("Live")
            await call(url, "POST", "/generate", body())
            await expect(page.get_by_role("listitem").filter(has_text="It took")).to_have_count(1)
        await expect(connection(page)).to_contain_text("Trying again in")
        async with in_process(port=port):
            await expect(connection(page)).to_have_text("Live")
            await expect(page.get_by_text("Nothing has ended yet.")).to_be_visible()
            await stack.aclose()  # while there is a server to load from


async def test_nothing_moves_for_who_wants_stillness_but_frame_by_frame(chromium):
    async with (
        in_process() as server,
        open_page(chromium, server.url + "/#live", reduced_motion="reduce") as page,
    ):
        await expect(connection(page)).to_have_text("Live")
        await call(server.url, "POST", "/generate", body())
        await expect(page.get_by_role("listitem").filter(has_text="It took")).to_have_count(1)
        place = "document.querySelector('.axis > g:last-child').getAttribute('transform')"
        moved = f"""async () => {{
          const before = {place};
          for (let n = 0; n < 10; n++) await new Promise(requestAnimationFrame);
          return before !== {place};
        }}"""
        assert not await page.evaluate(moved)
        await page.emulate_media(reduced_motion="no-preference")
        assert await page.evaluate(moved)
