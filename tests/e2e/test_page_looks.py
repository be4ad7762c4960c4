"""Every view in light, dark and on a phone: accessible, no wider than it, usable by keyboard alone.

Each look leaves a picture in `$MILLRACE_SCREENSHOTS`, or else in pytest's temporary folder.
That no request leaves the server and nothing is written to the console is asserted by `open_page`.
"""

import asyncio
import os
from pathlib import Path

import pytest
from browser import accessibility_faults, open_page
from occupancy import wait_until_idle
from playwright.async_api import Page, expect
from served import serve

pytestmark = pytest.mark.needs("chromium", "npm packages")

PHONE = {"width": 390, "height": 844}
NARROWEST = {"width": 360, "height": 740}
CONTROLS = """() => {
  const all = "a[href], button, input, select, textarea, summary, [tabindex='0']";
  window.controls = [...document.querySelectorAll(all)].filter((control) =>
    control.checkVisibility({visibilityProperty: true}) && !control.disabled
    && !(control.type === "radio" && !control.checked));
  return controls.map((control) => control.outerHTML.split(">")[0]);
}"""
"""Everything that Tab is to reach; of radio buttons that is the one which is chosen."""
FOCUSED = """() => {
  const focused = document.activeElement;
  const shown = [focused, focused.closest("label")].filter(Boolean).map(getComputedStyle);
  const hasRing = (style) => style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  return {
    number: controls.indexOf(focused),
    name: focused.outerHTML.split(">")[0],
    isVisible: shown.some(hasRing),
  };
}"""


async def generate(page: Page) -> None:
    await page.get_by_role("button", name="Generate").click()
    await expect(page.get_by_text("the model's own end")).to_be_visible()


async def chat(page: Page) -> None:
    await page.get_by_role("radio", name="Chat").check()
    await page.get_by_label("Your message").fill("What is streaming?")
    await page.get_by_role("button", name="Send").click()
    await expect(page.get_by_text("the model's own end")).to_be_visible()


async def compare(page: Page) -> None:
    await page.get_by_label("Tokens at most").fill("120")
    await page.get_by_role("button", name="Send both").click()
    await expect(page.get_by_text("Both sides say the same")).to_be_visible()


async def follow(page: Page) -> None:
    ask = """async (inputs) => {
      const parameters = { max_new_tokens: 400 };
      const body = JSON.stringify({ inputs, parameters });
      const headers = { "Content-Type": "application/json" };
      await (await fetch("/generate_stream", { method: "POST", body, headers })).text();
    }"""
    ended = page.get_by_role("region", name="Ended").locator("[data-number]")
    prompts = ["Count down from 100 to 1.\\n", "Tell me a story.\\n", "Why stream tokens?\\n"]
    await expect(page.get_by_role("status")).to_have_class("connection open")
    newest = max(await ended.all_inner_texts(), key=lambda text: int(text[1:]), default="#0")
    await asyncio.gather(*(page.evaluate(ask, prompt) for prompt in prompts))
    for number in range(int(newest[1:]) + 1, int(newest[1:]) + 4):
        await expect(ended.filter(has_text=f"#{number}")).to_be_visible()
    await ended.first.click()
    await expect(page.locator("#live-story h3")).to_be_visible()


async def publish(page: Page) -> None:
    for name in ("count", "fake_diffusion"):
        card = page.get_by_role("article", name=name)
        await card.get_by_role("textbox").fill("1")
        await card.get_by_role("button", name="Run").click()
        await expect(card.get_by_role("status")).to_contain_text("Ended after")


VIEWS = {
    "playground": ("#playground", "Generate", generate),
    "chat": ("#playground", "Generate", chat),
    "why": ("#why", "Send both", compare),
    "live": ("#live", "Pause", follow),
    "generators": ("#generators", None, publish),
}
"""Each view: its address, a button that says it is there, and how it is put to use."""


@pytest.fixture(scope="module")
def started_showing():
    generators = ("server.examples.count:count", "server.examples.diffusion:fake_diffusion")
    flags = [word for name in generators for word in ("--generator", name)]
    small = ("--dtype", "float32", "--max-batch-total-tokens", "32768", "--num-threads", "1")
    with serve(*small, *flags) as server:
        yield server


@pytest.fixture
def server(started_showing):
    yield started_showing
    wait_until_idle(started_showing)


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = Path(os.environ.get("MILLRACE_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


async def open_view(page: Page, view: str) -> None:
    _, button, _ = VIEWS[view]
    if button is not None:
        await page.get_by_role("button", name=button, exact=True).wait_for()


async def picture(page: Page, path: Path) -> None:
    """Take the whole page, standing still."""
    await page.mouse.move(0, 0)
    await page.screenshot(path=path, full_page=True, animations="disabled")


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
async def test_a_view_has_no_serious_accessibility_fault_before_and_after_use(
    chromium, server, pictures, view, color_scheme
):
    place, _, use = VIEWS[view]
    options = {"color_scheme": color_scheme, "bypass_csp": True, "reduced_motion": "reduce"}
    async with open_page(chromium, f"{server.url}/{place}", **options) as page:
        await open_view(page, view)
        assert await accessibility_faults(page) == []
        await use(page)
        assert await accessibility_faults(page) == []
        await picture(page, pictures / f"{view}-{color_scheme}.png")
        await page.set_viewport_size(PHONE)
        assert await accessibility_faults(page) == []
        await picture(page, pictures / f"{view}-{color_scheme}-phone.png")


@pytest.mark.parametrize("view", VIEWS)
async def test_a_view_fits_the_narrowest_phone_before_and_after_use(chromium, server, view):
    place, _, use = VIEWS[view]
    async with open_page(chromium, f"{server.url}/{place}", **NARROWEST) as page:
        await open_view(page, view)
        assert await page.evaluate("document.documentElement.scrollWidth") == NARROWEST["width"]
        await use(page)
        assert await page.evaluate("document.documentElement.scrollWidth") == NARROWEST["width"]


@pytest.mark.parametrize("view", VIEWS)
async def test_tab_reaches_every_control_of_a_view_and_shows_where_it_is(chromium, server, view):
    place, _, use = VIEWS[view]
    async with open_page(chromium, f"{server.url}/{place}") as page:
        await open_view(page, view)
        await use(page)
        if view == "live":
            await page.get_by_role("button", name="Pause").click()  # else bars leave its window
        await page.evaluate("document.activeElement.blur(); getSelection().removeAllRanges()")
        controls = await page.evaluate(CONTROLS)
        reached = set()
        for _ in range(2 * len(controls)):
            await page.keyboard.press("Tab")
            focused = await page.evaluate(FOCUSED)
            if focused["number"] >= 0:
                assert focused["isVisible"], f"no sign of focus on {focused['name']}"
                reached.add(focused["number"])
        missed = [name for number, name in enumerate(controls) if number not in reached]
        assert missed == [], "Tab does not come to these"


@pytest.mark.parametrize(
    ("mess", "fault"),
    [
        ("() => fetch('/nowhere')", "status of 404"),
        ("() => { setTimeout(() => { throw new Error('not ours'); }) }", "not ours"),
        ("() => { document.body.setAttribute('style', 'color: red') }", "inline style"),
        ("() => fetch('http://localhost:9/').catch(() => null)", "localhost:9"),
    ],
)
async def test_a_page_that_is_not_clean_fails_its_test(chromium, server, mess, fault):
    async def visit():
        async with open_page(chromium, server.url) as page:
            await page.evaluate(mess)
            await page.wait_for_load_state("networkidle")

    with pytest.raises(AssertionError, match=fault):
        await visit()
