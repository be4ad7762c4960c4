"""The playground, driven in a real browser against a real server: what a person does and sees."""

import re
from itertools import pairwise

import pytest
import raw_http
from browser import open_page
from occupancy import given_up
from playground import bodies_of, chat, ended, endless, fill, generate
from playwright.async_api import expect

pytestmark = pytest.mark.needs("chromium")

LONG = (
    "You are the miller of an old mill by the river. You answer in short and friendly words, you "
    "know the wheel, the race, the gate and the stones, and you never speak of anything else."
)
RECORD = """() => {
  window.seen = [];
  const tokens = document.querySelector(".tokens");
  new MutationObserver(() => {
    const isEnded = document.querySelector("[data-name=Ended]") !== null;
    window.seen.push([tokens.textContent, isEnded]);
  }).observe(tokens, { childList: true, subtree: true, characterData: true });
}"""


async def test_tokens_appear_one_after_another(server, chromium):
    async with open_page(chromium, server.url) as page:
        await fill(page, "The river", max_new_tokens="200", ignore_eos="yes")
        await page.evaluate(RECORD)
        await generate(page)
        await ended(page)
        seen = await page.evaluate("window.seen")
    texts = [text for text, _ in seen]
    growing = [text for text, is_ended in seen if not is_ended]
    assert len(set(growing)) >= 20, "tokens came in lumps"
    assert len(growing[0]) < len(texts[-1]) / 4, "the first sight was not of a beginning"
    for earlier, later in pairwise(texts):
        assert later.startswith(earlier)


@pytest.mark.parametrize("way", ["button", "key"])
async def test_stop_frees_the_slot_at_once(server, chromium, way):
    async with open_page(chromium, server.url) as page:
        with given_up(server, 1):
            await endless(page)
            assert server.metric("millrace_permits_held") == 1
            if way == "button":
                await page.get_by_role("button", name="Stop").first.click()
            else:
                await page.keyboard.press("Escape")
            await expect(page.locator("[data-name=Ended]")).to_contain_text("stopped by you")
        await expect(page.get_by_role("button", name="Stop").first).to_be_disabled()
        await expect(page.get_by_role("status").first).to_contain_text("Stopped after")
        assert await page.locator(".token").count() > 5, "the text so far is gone"


async def test_leaving_the_page_frees_the_slot(server, chromium):
    async with open_page(chromium, server.url) as page:
        with given_up(server, 1):
            await endless(page)
            await page.goto("about:blank")


async def test_each_token_shows_what_might_have_come(server, chromium):
    async with open_page(chromium, server.url) as page:
        bodies = bodies_of(page)
        await fill(page, "The river", max_new_tokens="8", top_n_tokens="4")
        await generate(page)
        await ended(page)
        await page.locator(".token").nth(3).hover()
        card = page.get_by_role("tooltip")
        await expect(card).to_contain_text("logprob")
        assert await card.locator("tbody tr").count() == 4
        shares = await card.locator("tbody td:last-child").all_inner_texts()
        assert all(re.fullmatch(r"(< )?\d+\.\d %", share) for share in shares), shares
        await page.locator("h2").first.hover()
        await expect(card).to_be_hidden()
        assert bodies[0]["parameters"]["top_n_tokens"] == 4


async def test_all_of_it_works_by_keyboard(server, chromium):
    async with open_page(chromium, server.url) as page:
        await page.locator("#playground:not([inert])").wait_for()  # before, nothing takes the focus
        await page.locator("#prompt").focus()
        await page.keyboard.press("Control+A")
        await page.keyboard.type("The river")
        await page.keyboard.press("Control+Enter")
        await ended(page)
        tokens = page.get_by_role("group", name="Answer").first
        for _ in range(12):  # Stop is one more stop until it is disabled
            if await tokens.evaluate("(element) => element === document.activeElement"):
                break
            await page.keyboard.press("Tab")
        await page.keyboard.press("ArrowRight")
        await page.keyboard.press("ArrowRight")
        await expect(page.get_by_role("tooltip")).to_contain_text("logprob")
        await expect(page.get_by_role("status").first).to_contain_text("; instead: ")
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("tooltip")).to_be_hidden()


async def test_colours_say_how_likely_a_token_was_and_can_be_switched_off(server, chromium):
    async with open_page(chromium, server.url) as page:
        await fill(page, "The river", max_new_tokens="40", temperature="2.5", seed="1")
        await generate(page)
        await ended(page)
        unlikely = page.locator('.token[data-level="4"]').first
        read = "(element) => getComputedStyle(element).backgroundColor"
        coloured = await unlikely.evaluate(read)
        swatch = await page.locator('#legend [data-level="4"]').evaluate(read)
        assert coloured == swatch != "rgba(0, 0, 0, 0)"
        await page.get_by_label("Colour by probability").uncheck()
        assert await unlikely.evaluate(read) == "rgba(0, 0, 0, 0)"


async def test_parameters_go_out_as_they_are_written(server, chromium):
    async with open_page(chromium, server.url) as page:
        bodies = bodies_of(page)
        await fill(
            page,
            "The river",
            max_new_tokens="5",
            temperature="0.7",
            top_k="50",
            seed="18446744073709551615",
            stop="one\ntwo words",
            do_sample="yes",
            prefix_caching="no",
            top_n_tokens="",
        )
        await generate(page)
        await ended(page)
        assert await page.locator("[data-name=Seed] dd").inner_text() == "18446744073709551615"
        assert bodies[0] == {
            "inputs": "The river",
            "parameters": {
                "details": True,
                "max_new_tokens": 5,
                "temperature": 0.7,
                "top_k": 50,
                "seed": 18446744073709551615,
                "stop": ["one", "two words"],
                "do_sample": True,
                "prefix_caching": False,
            },
        }
        await page.get_by_role("button", name="Reset").click()
        await generate(page)
        await expect(page.locator("[data-name=Seed]")).to_have_count(0)
        assert bodies[1]["parameters"] == {
            "details": True,
            "max_new_tokens": 128,
            "top_n_tokens": 5,
        }


async def test_an_edited_chat_is_answered_from_the_cached_prefix(server, chromium):
    async with open_page(chromium, server.url) as page:
        bodies = bodies_of(page)
        await page.get_by_text("Chat", exact=True).click()
        await page.get_by_label("System message").fill(LONG)
        await chat(page, "What is 3 + 4?")
        await chat(page, "What colour is the sky?")
        assert [m["role"] for m in bodies[1]["messages"]] == [
            *("system", "user", "assistant", "user")
        ]
        await page.get_by_role("button", name="Edit message 1").click()
        await page.get_by_label("Text of message 1").fill("What is 2 + 2?")
        await page.get_by_role("button", name="Save and ask again").click()
        await expect(page.locator(".turn")).to_have_count(2)
        await expect(page.locator(".turn [data-name=Ended]")).to_be_visible()
        assert [m["content"] for m in bodies[2]["messages"]] == [LONG, "What is 2 + 2?"]
        summary = page.locator(".turn .prompt-read summary")
        found = re.fullmatch(
            r"(\d+) of (\d+) prompt tokens came from the cache", await summary.inner_text()
        )
        cached, whole = map(int, found.groups())
        assert 32 <= cached < whole
        await summary.click()
        marked = page.locator(".turn .prompt-text mark")
        await expect(marked).to_contain_text("You are the miller")
        rest = await page.locator(".turn .prompt-text span").inner_text()
        assert "2 + 2" in rest
        assert "2 + 2" not in await marked.inner_text()


async def test_an_answer_can_be_edited_and_asked_for_again(server, chromium):
    async with open_page(chromium, server.url) as page:
        bodies = bodies_of(page)
        await page.get_by_text("Chat", exact=True).click()
        await chat(page, "What is 3 + 4?")
        await page.get_by_role("button", name="Regenerate message 2").click()
        await expect(page.locator(".turn")).to_have_count(2)
        await expect(page.locator(".turn [data-name=Ended]")).to_be_visible()
        assert bodies[0] == bodies[1]
        await page.get_by_role("button", name="Edit message 2").click()
        await page.get_by_label("Text of message 2").fill("It is 8.")
        await page.get_by_role("button", name="Save").click()
        await page.get_by_label("Your message").fill("Are you sure?")
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator(".turn")).to_have_count(4)
        await expect(page.locator(".turn [data-name=Ended]")).to_have_count(1)
        said = [message["content"] for message in bodies[2]["messages"]]
        assert said == ["What is 3 + 4?", "It is 8.", "Are you sure?"]


async def test_the_prompts_cached_part_is_marked(server, chromium):
    async with open_page(chromium, server.url) as page:
        await fill(page, LONG, max_new_tokens="3")
        await generate(page)
        await ended(page)
        await generate(page)
        summary = page.locator("#prompt-answer .prompt-read summary")
        await expect(summary).to_contain_text(re.compile(r"^(32|64) of \d\d prompt tokens"))
        marked = await page.locator("#prompt-answer mark").inner_text()
        rest = await page.locator("#prompt-answer .prompt-text span").inner_text()
        spans = (await raw_http.call(server.url, "POST", "/tokenize", {"inputs": LONG})).json()
        num_cached = int((await summary.inner_text()).split()[0])
        assert marked == LONG[: spans[num_cached - 1]["stop"]]
        assert marked + rest == LONG


async def test_each_keystroke_cancels_the_request_before_it(server, chromium):
    async with open_page(chromium, server.url) as page:
        bodies = bodies_of(page)
        await fill(page, LONG, max_new_tokens="2000", ignore_eos="yes")
        with given_up(server, 5):
            async with page.expect_response("**/generate_stream"):
                await page.get_by_label("Re-run as you type").check()
            for key in "the ":
                await page.locator("#prompt").press("End")
                async with page.expect_response("**/generate_stream"):
                    await page.keyboard.type(key)
            await page.keyboard.press("Escape")
        assert [body["inputs"] for body in bodies] == [
            LONG + "the "[:length] for length in range(5)
        ]
        assert server.metric("millrace_permits_held") == 0


async def test_what_the_cache_saves_is_measured_once_typing_pauses(server, chromium):
    async with open_page(chromium, server.url) as page:
        bodies = bodies_of(page)
        await fill(page, LONG, max_new_tokens="4", ignore_eos="yes")
        await page.get_by_label("Re-run as you type").check()
        await page.locator("#prompt").press_sequentially(" The")
        saved = page.locator("[data-name=Saved] dd")
        await expect(saved).to_contain_text("uncached")
        text = (await saved.inner_text()).replace("\N{MINUS SIGN}", "-")
        numbers = re.fullmatch(r"(-?[\d.]+) ms \(cached ([\d.]+) ms, uncached ([\d.]+) ms\)", text)
        gain, cached, uncached = map(float, numbers.groups())
        assert gain == pytest.approx(uncached - cached, abs=0.11)
        first = await page.locator("[data-name='First token'] dd").inner_text()
        assert float(first.removesuffix(" ms")) == cached
    run_of_it, measured = bodies[-2:]
    assert run_of_it["inputs"] == measured["inputs"] == LONG + " The"
    changed = {"max_new_tokens": 1, "prefix_caching": False}
    assert measured["parameters"] == {**run_of_it["parameters"], **changed}
