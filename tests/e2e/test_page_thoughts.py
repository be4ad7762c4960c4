"""What a model thinks is shown apart from its answer, in a real browser."""

import pytest
from browser import open_page
from in_process import in_process, repeat_slowly
from playground import bodies_of, chat
from playwright.async_api import expect
from tool_talk import QWEN, script

pytestmark = pytest.mark.needs("chromium")


async def test_thoughts_fold_up_before_the_answer_and_do_not_go_back(chromium):
    async with (
        in_process(script("I think.</think>\n\nHello. "), template=QWEN) as server,
        open_page(chromium, server.url) as page,
    ):
        bodies = bodies_of(page)
        await page.get_by_text("Chat", exact=True).click()
        await chat(page, "Hi")
        thoughts = page.locator(".turn.assistant .thoughts")
        await expect(thoughts).not_to_have_attribute("open", "")
        answer = page.locator(".turn.assistant .answer > .tokens")
        assert await answer.text_content() == "Hello. "
        await thoughts.locator("summary").click()
        await expect(thoughts.locator(".tokens")).to_be_visible()
        assert await thoughts.locator(".tokens").text_content() == "I think."
        await chat(page, "And?")
    assert [message["content"] for message in bodies[1]["messages"]] == ["Hi", "Hello. ", "And?"]


async def test_thoughts_are_open_while_they_come_and_none_are_shown_without_any(chromium):
    async with (
        in_process(repeat_slowly, template=QWEN) as server,
        open_page(chromium, server.url) as page,
    ):
        await page.get_by_text("Chat", exact=True).click()
        await page.get_by_label("Your message").fill("Hi")
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator(".turn.assistant .thoughts .token").nth(5)).to_be_visible()
        await expect(page.locator(".turn.assistant .thoughts")).to_have_attribute("open", "")
    async with in_process(script("Hello.")) as server, open_page(chromium, server.url) as page:
        await page.get_by_text("Chat", exact=True).click()
        await chat(page, "Hi")
        await expect(page.locator(".turn.assistant .thoughts")).to_be_hidden()
