"""What the page says when something goes wrong, what it keeps, and how one tries again."""

import re
import signal

import pytest
from browser import open_page
from in_process import in_process, repeat_prompt
from occupancy import occupied
from playground import ended, endless, fill, generate, parameter, text_of
from playwright.async_api import expect
from served import serve

pytestmark = pytest.mark.needs("chromium")


async def test_a_full_server_is_tried_again_when_it_says(crowded, chromium):
    async with open_page(chromium, crowded.url, expects=["429"]) as page:
        await fill(page, "The river", max_new_tokens="5")
        with occupied(crowded, 2):
            await generate(page)
            await expect(page.get_by_role("alert")).to_contain_text("The server is full.")
            again = page.locator(".retry")
            await expect(again).to_be_disabled()
            await expect(again).to_have_text(re.compile(r"^Try again in \d+ s$"))
        await expect(again).to_be_enabled()
        await expect(again).to_have_text("Try again")
        await again.click()
        await ended(page)
        await expect(page.get_by_role("alert")).to_have_count(0)
        assert await page.locator(".token").count() == 5


async def test_a_refused_field_is_named_and_its_limit(server, chromium):
    async with open_page(chromium, server.url, expects=["422"]) as page:
        await fill(page, "The river", top_p="1.5")
        await generate(page)
        alert = page.get_by_role("alert")
        await expect(alert).to_contain_text("`top_p` must be > 0.0 and < 1.0. Given: 1.5")
        await parameter(page, "top_p").fill("0.5")
        await generate(page)
        await ended(page)
        await expect(alert).to_have_count(0)


@pytest.mark.parametrize("mode", ["prompt", "chat"])
async def test_an_error_event_is_told_and_the_next_try_may_succeed(chromium, mode):
    num_failed = 0

    def script(row) -> int:
        nonlocal num_failed
        if row.num_output == 3 and num_failed == 0:
            num_failed += 1
            raise RuntimeError("out of luck")
        return repeat_prompt(row)

    async with (
        in_process(script) as server,
        open_page(chromium, server.url, expects=["424"]) as page,
    ):
        if mode == "prompt":
            await fill(page, "abcdef", max_new_tokens="6")
        else:
            await page.get_by_text("Chat", exact=True).click()
            await page.locator("[name=chat-max_tokens]").fill("6")
            await page.get_by_label("Your message").fill("abcdef")
        await page.keyboard.press("Control+Enter")
        await expect(page.get_by_role("alert")).to_contain_text("The generation failed.")
        shown = page.locator("main section:not([hidden])")
        assert await text_of(shown) == "abc"
        await page.get_by_role("button", name="Try again").click()
        await expect(page.locator("[data-name=Ended]")).to_be_visible()
        await expect(page.get_by_role("alert")).to_have_count(0)
        assert await text_of(shown) == "abcdef"


async def test_a_killed_server_leaves_the_text_and_a_way_to_try_again(chromium):
    with serve("--num-threads", "1", "--max-batch-total-tokens", "8192") as doomed:
        async with open_page(chromium, doomed.url, expects=["ERR_", "tokeniz"]) as page:
            await endless(page)
            doomed.process.send_signal(signal.SIGKILL)
            alert = page.get_by_role("alert")
            await expect(alert).to_contain_text(re.compile(r"Cut off after \d+ tokens"))
            doomed.process.wait()
            kept = await text_of(page.locator("#prompt-answer"))
            assert kept
            await page.get_by_role("button", name="Try again").click()
            await expect(alert).to_contain_text("The server does not answer.")
            assert await text_of(page.locator("#prompt-answer")) == kept
            await parameter(page, "max_new_tokens").fill("5")
            async with in_process(port=int(doomed.url.rpartition(":")[2])):
                await page.get_by_role("button", name="Try again").click()
                await ended(page)
                await expect(alert).to_have_count(0)
                assert await page.locator(".token").count() == 5
