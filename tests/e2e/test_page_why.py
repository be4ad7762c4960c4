"""Why streaming, in a real browser: both sides at once, as they come, and what is said of them."""

import re

import pytest
from browser import open_page
from in_process import in_process, repeat_slowly
from occupancy import given_up, occupied
from playwright.async_api import expect

pytestmark = pytest.mark.needs("chromium")

LONG = "Count up to 100.\n"
"""The built-in model counts round and round, up to any length."""
RECORD = """() => {
  window.seen = [];
  const panes = [...document.querySelectorAll(".side .text")];
  const look = (records) => seen.push(...new Set(records.map(({target}) => panes.indexOf(target))));
  for (const pane of panes) new MutationObserver(look).observe(pane, {childList: true});
}"""
"""Writes down which side's text changes, once for all that changes at once."""
GAINS = [
    (
        {"arrivals": [0.04, 0.9, 1.9]},
        {"arrivals": [1.9, 1.9, 1.9]},
        "Streaming showed the first words after 0.04 s instead of 1.90 s: "
        "you could read for 1.86 s while the rest was written.",
    ),
    (
        {"arrivals": [0.5, 12.0]},
        {"arrivals": [12.34, 12.34]},
        "Streaming showed the first words after 0.50 s instead of 12.3 s: "
        "you could read for 11.8 s while the rest was written.",
    ),
    (
        {"arrivals": [0.02]},
        {"arrivals": [0.03]},
        "Both sides were there after 0.03 s: so short an answer gains nothing. "
        "Ask for a longer one.",
    ),
    (
        {"arrivals": [0.02], "endS": None},
        {"arrivals": [0.03]},
        "No comparison this time: not both sides came to their end.",
    ),
    (
        {"arrivals": [], "endS": 0.1},
        {"arrivals": [], "endS": 0.1},
        "The model had nothing to say: both answers are empty.",
    ),
]
"""When the tokens of the streamed and of the other side came, and what is said of it."""
TELL = """async (cases) => {
  const { gain } = await import("/web/why_gain.js");
  const side = ({ arrivals, endS = arrivals.at(-1) }) => ({ arrivals, endS, limit: 100 });
  return cases.map((sides) => gain(...sides.map(side)));
}"""


def text_of(page, side: str):
    return page.get_by_role("group", name=f"{side}: text", exact=True)


def clocks_of(page, number: int):
    return page.locator(".side").nth(number).locator("dd")


async def send(page, prompt: str | None = None, length: int | None = None) -> None:
    if prompt is not None:
        await page.locator("#why-prompt").fill(prompt)
    if length is not None:
        await page.get_by_label("Tokens at most").fill(str(length))
    await page.get_by_role("button", name="Send both").click()


async def test_the_streamed_side_shows_its_first_word_before_the_other_shows_anything(
    chromium, server
):
    async with open_page(chromium, server.url + "/#why") as page:
        await text_of(page, "Not streamed").wait_for()
        await page.evaluate(RECORD)
        await send(page)
        await expect(page.get_by_text("Both sides say the same, word for word")).to_be_visible()
        order = await page.evaluate("seen")
        assert order.count(1) == 1, "the other side's text comes in one piece"
        assert order[: order.index(1)].count(0) > 100, "the first side's in many, before it"
        written = await text_of(page, "Streamed").inner_text()
        assert written.startswith("100, 99, 98, 97")
        assert written == await text_of(page, "Not streamed").inner_text()


async def test_the_sentence_says_what_the_clocks_measured(chromium, server):
    async with open_page(chromium, server.url + "/#why") as page:
        await send(page)
        said = page.locator("#why-gain")
        await expect(said).to_contain_text("Streaming showed the first words after")
        first, half, end = await clocks_of(page, 0).all_inner_texts()
        others = await clocks_of(page, 1).all_inner_texts()
        assert len(set(others)) == 1, "all of it came at once"
        sentence = await said.inner_text()
        assert f"first words after {first} instead of {others[0]}" in sentence
        gained = re.search(r"you could read for ([\d.]+ s) while", sentence)[1]
        first_s, half_s, end_s, other_s, gained_s = (
            float(text.removesuffix(" s")) for text in (first, half, end, others[0], gained)
        )
        assert first_s < half_s < end_s
        assert gained_s == pytest.approx(other_s - first_s)


async def test_both_are_computed_in_one_batch_from_the_same_parameters(chromium):
    async with in_process() as server, open_page(chromium, server.url + "/#why") as page:
        await send(page, "abc", 2000)
        await expect(page.get_by_text("Both sides say the same, word for word")).to_be_visible()
        one, other = (join for batch in server.runner.batches for join in batch.join)
        assert (one.token_ids, one.params) == (other.token_ids, other.params)
        assert sum(len(batch.work) == 2 for batch in server.runner.batches) > 100


async def test_stopping_frees_both_places_and_keeps_the_text(chromium, server):
    async with open_page(chromium, server.url + "/#why") as page:
        with given_up(server, 2):
            await send(page, LONG, 4000)
            await expect(text_of(page, "Streamed")).to_contain_text("5, 6, 7")
            await page.get_by_role("button", name="Stop both").click()
        said = page.locator("#why-gain")
        await expect(said).to_contain_text(re.compile(r"You stopped .* the other side none\."))
        await expect(text_of(page, "Streamed")).to_contain_text("5, 6, 7")
        await expect(text_of(page, "Not streamed")).to_be_empty()
        await expect(page.get_by_role("button", name="Stop both")).to_be_disabled()
        await expect(page.get_by_role("button", name="Send both")).to_be_focused()


async def test_sending_again_leaves_the_run_before(chromium, server):
    async with open_page(chromium, server.url + "/#why") as page:
        with given_up(server, 2):
            await send(page, LONG, 4000)
            await expect(text_of(page, "Streamed")).to_contain_text("5, 6, 7")
            await send(page, "What is streaming?\n")
            await expect(page.get_by_text("Both sides say the same, word for word")).to_be_visible()
        await expect(text_of(page, "Streamed")).not_to_contain_text("5, 6, 7")


async def test_a_full_server_is_asked_again_after_the_time_it_gave(chromium, crowded):
    async with open_page(chromium, crowded.url + "/#why", expects=["status of 429"]) as page:
        with occupied(crowded, 2):
            await send(page)
            await expect(page.get_by_role("alert")).to_contain_text("The server is full.")
        await page.get_by_role("button", name="Try again", exact=True).click()
        await expect(page.get_by_text("Both sides say the same, word for word")).to_be_visible()
        await expect(page.get_by_role("alert")).to_have_count(0)


async def test_a_bad_length_is_named_in_the_servers_words(chromium, server):
    async with open_page(chromium, server.url + "/#why", expects=["status of 422"]) as page:
        await send(page, length=0)
        await expect(page.get_by_role("alert")).to_contain_text(
            "`max_new_tokens` must be strictly positive. Given: 0"
        )


async def test_a_key_is_asked_for_and_used(chromium, keyed):
    async with open_page(chromium, keyed.url + "/#why", expects=["status of 401"]) as page:
        await send(page)
        await expect(page.get_by_role("alert")).to_contain_text("This server asks for a key.")
        await page.get_by_label("This server asks for a key").fill("open-sesame")
        await page.get_by_role("button", name="Use it").click()
        await page.get_by_role("button", name="Try again").click()
        await expect(page.get_by_text("Both sides say the same, word for word")).to_be_visible()


async def test_a_server_gone_in_mid_stream_leaves_the_text_and_can_be_asked_again(chromium):
    async with (
        in_process(repeat_slowly) as server,
        open_page(chromium, server.url + "/#why", expects=["net::ERR_"]) as page,
    ):
        await send(page, "abc", 200)  # Chromium itself asks again for what is not streamed
        await expect(text_of(page, "Streamed")).to_contain_text("abcabc")
        for transport in server.transports:
            transport.abort()
        await expect(page.get_by_role("alert")).to_contain_text("The text so far is kept.")
        await expect(text_of(page, "Streamed")).to_contain_text("abcabc")
        await expect(page.locator("#why-gain")).to_contain_text("No comparison this time")
        await page.get_by_label("Tokens at most").fill("6")
        await page.get_by_role("button", name="Try again").click()
        await expect(text_of(page, "Streamed")).to_have_text("abcabc")
        await expect(text_of(page, "Not streamed")).to_have_text("abcabc")


async def test_the_gain_is_told_in_one_sentence(chromium, server):
    async with open_page(chromium, server.url) as page:
        told = await page.evaluate(TELL, [[streamed, whole] for streamed, whole, _ in GAINS])
        assert told == [sentence for *_, sentence in GAINS]
