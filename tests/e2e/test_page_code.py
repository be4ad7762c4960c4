"""A request as code: copied from the page, run as it stands, it gives what the page has shown."""

import json
import os
import subprocess
import sys

import pytest
from browser import open_page
from playground import ended, fill, generate, opened, text_of
from playwright.async_api import expect

pytestmark = pytest.mark.needs("chromium")

TRICKY = 'It\'s $HOME, "quoted" \\n `so`; naïve 日本 🎡 100 %\nand a second line: the'
"""What shells, JSON, Python and JavaScript each read in their own way."""
CLIPBOARD = {"permissions": ["clipboard-read", "clipboard-write"]}
LANGUAGES = ("curl", "Python", "JavaScript")


async def copied(page, language):
    """Copy the code of the current request."""
    await opened(page.locator("#code"))
    await page.get_by_text(language, exact=True).click()
    await page.locator("#copy").click()
    await expect(page.locator("#copy")).to_have_text("Copied")
    code = await page.locator("#snippet").text_content()
    await page.wait_for_function(
        "async (code) => (await navigator.clipboard.readText()) === code", arg=code
    )
    return code


def run(language, code, **env):
    """Run code as its reader would."""
    command = {
        "curl": ["sh", "-c", code],
        "Python": [sys.executable, "-c", code],
        "JavaScript": ["node", "--input-type=module", "-e", code],
    }
    done = subprocess.run(
        command[language], capture_output=True, timeout=60, check=False, env={**os.environ, **env}
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def events(stream):
    lines = [line.removeprefix("data: ") for line in stream.splitlines() if line[:6] == "data: "]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.needs("node")
@pytest.mark.parametrize("more", [{}, {"ignore_eos": "yes", "seed": "18446744073709551615"}])
async def test_a_prompt_as_code_gives_the_same_answer(server, chromium, more):
    async with open_page(chromium, server.url, **CLIPBOARD) as page:
        await fill(page, TRICKY, max_new_tokens="12", stop="x'y", **more)
        code = {language: await copied(page, language) for language in LANGUAGES}
        await generate(page)
        await ended(page)
        shown = await text_of(page.locator("#prompt-answer"))
    assert shown
    assert events(run("curl", code["curl"]))[-1]["generated_text"] == shown
    for language in ("Python", "JavaScript"):
        assert run(language, code[language]) == shown + "\n"


@pytest.mark.needs("node")
async def test_a_chat_as_code_gives_the_same_answer(server, chromium):
    async with open_page(chromium, server.url, **CLIPBOARD) as page:
        await page.get_by_text("Chat", exact=True).click()
        await page.locator("[name=chat-temperature]").fill("0")
        await opened(page.locator("#chat-parameters details"))
        await page.locator("[name=chat-logit_bias]").fill('{"7": -2.5}')
        await page.get_by_label("System message").fill(TRICKY)
        await page.get_by_label("Your message").fill("What is 3 + 4?")
        code = {language: await copied(page, language) for language in LANGUAGES}
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator(".turn [data-name=Ended]")).to_be_visible()
        shown = await text_of(page.locator(".turn.assistant"))
    assert shown
    choices = [c for event in events(run("curl", code["curl"])) for c in event["choices"]]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == shown
    for language in ("Python", "JavaScript"):
        assert run(language, code[language]) == shown + "\n"


async def test_a_key_is_asked_for_and_kept_out_of_the_code(keyed, chromium):
    async with open_page(chromium, keyed.url, expects=["401"], **CLIPBOARD) as page:
        await fill(page, "The river", max_new_tokens="5")
        await expect(page.locator("#key")).to_be_hidden()
        await generate(page)
        await expect(page.get_by_role("alert")).to_contain_text("asks for a key")
        field = page.get_by_label("This server asks for a key")
        await expect(field).to_be_focused()
        await field.fill("open-sesame")
        await page.keyboard.press("Enter")
        await expect(page.locator("#key")).to_be_hidden()
        await page.get_by_role("button", name="Try again").click()
        await ended(page)
        shown = await text_of(page.locator("#prompt-answer"))
        for language in ("curl", "Python"):
            code = await copied(page, language)
            assert "open-sesame" not in code
            assert shown.strip()[:5] in run(language, code, API_KEY="open-sesame")
        assert "open-sesame" not in await page.content()
