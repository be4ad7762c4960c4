"""The Gradio app in a browser: text grows, pictures change, and nobody but the app is asked."""

import re
from itertools import pairwise

import pytest
from browser import expect, open_page

pytestmark = pytest.mark.needs("chromium")

TABS = ("Completion", "Chat", "Side by side", "As you type", "Picture", "Gradio's examples")
WATCH = """([name, find]) => {
    const seen = window[name] = [];
    const look = () => {
        const value = eval(find);
        if (value && value !== seen.at(-1)) seen.push(value);
        requestAnimationFrame(look);
    };
    look();
}"""
"""Keep under a name what an expression gives at each frame, as a person would see it."""
SHOWN = "[...document.querySelectorAll('{}')].find((found) => found.checkVisibility())?."
TEXT = SHOWN.format("textarea[disabled]") + "value"
PICTURE = SHOWN.format(".image-frame img") + "src"


async def choose(page, name):
    """Open a tab; on a phone some are behind a button."""
    await expect(page.get_by_role("tab", name=TABS[0]).filter(visible=True)).to_be_visible()
    tab = page.get_by_role("tab", name=name)
    if not await tab.filter(visible=True).count():
        await page.locator(".overflow-menu button").first.click()
        tab = page.locator(".overflow-dropdown").get_by_text(name)
    await tab.filter(visible=True).first.click()


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 380)], ids=str
)
async def test_every_tab_is_clean_and_none_is_wider_than_the_window(
    chromium, started_demo, scheme, width, tmp_path
):
    async with open_page(chromium, started_demo.url, color_scheme=scheme, width=width) as page:
        for number, name in enumerate(TABS):
            await choose(page, name)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, name
            await page.screenshot(path=tmp_path / f"{number}.png", full_page=True)


async def test_a_completion_grows_in_the_page(chromium, server, started_demo):
    async with open_page(chromium, started_demo.url) as page:
        await page.get_by_role("button", name="Generate").wait_for()
        await page.evaluate(WATCH, ["texts", TEXT])
        await page.get_by_role("button", name="Generate").click()
        await expect(page.get_by_text(re.compile(r"80 tokens"))).to_be_visible()
        texts = await page.evaluate("texts")
    assert len(texts) >= 3  # a busy browser may skip some, and draw several at once
    assert all(after.startswith(before) for before, after in pairwise(texts))


async def test_a_picture_changes_at_each_step_and_at_each_keystroke(chromium, server, started_demo):
    async with open_page(chromium, started_demo.url) as page:
        await choose(page, "Picture")
        await page.evaluate(WATCH, ["pictures", PICTURE])
        await page.get_by_role("button", name="Draw").click()
        await page.wait_for_function("pictures.length >= 4")
        before = await page.evaluate("pictures.length")
        await page.get_by_label("Prompt").filter(visible=True).press_sequentially("!")
        await page.wait_for_function(f"pictures.length >= {before + 4}")


async def test_gradios_counter_and_picture_run_in_the_page(chromium, started_demo):
    async with open_page(chromium, started_demo.url) as page:
        await choose(page, "Gradio's examples")
        await page.evaluate(WATCH, ["numbers", TEXT])
        await page.evaluate(WATCH, ["pictures", PICTURE])
        counter, picture = await page.get_by_role("button", name="Submit").all()
        await counter.click()
        await picture.click()
        await page.wait_for_function("pictures.length >= 3 && numbers.at(-1) === '9'")
        numbers = await page.evaluate("numbers.map(Number)")
    assert len(numbers) >= 3
    assert numbers == sorted(numbers)
