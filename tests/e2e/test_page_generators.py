"""The page's view of published generators: forms, values as they come, stopping, errors."""

import logging

import pytest
import pytest_asyncio
import some_generators
from browser import accessibility_faults, open_page
from in_process import in_process
from occupancy import wait_for
from playwright.async_api import expect

EXAMPLES = ("server.examples.count:count", "server.examples.diffusion:fake_diffusion")
MINE = ("waits", "pictures", "grows", "typed", "untyped", "raises")

pytestmark = pytest.mark.needs("chromium")


@pytest_asyncio.fixture(loop_scope="session")
async def server():
    some_generators.GATE.clear()
    references = (*EXAMPLES, *(f"some_generators:{name}" for name in MINE))
    async with in_process(generators=references) as server:
        yield server
        await wait_for(lambda: not any(server.held().values()))


@pytest_asyncio.fixture(loop_scope="session")
async def page(chromium, server):
    async with open_page(chromium, f"{server.url}/#generators", bypass_csp=True) as page:
        yield page


def card(page, name):
    return page.get_by_role("article", name=name, exact=True)


async def run(page, name, **fields):
    for field, value in fields.items():
        await card(page, name).get_by_label(field, exact=True).fill(str(value))
    await card(page, name).get_by_role("button", name="Run").click()


def values(page, name):
    return card(page, name).locator("ol > li")


async def test_each_generator_has_a_form_made_from_its_parameters(page):
    await expect(page.get_by_role("article")).to_have_count(len(EXAMPLES) + len(MINE))
    typed = card(page, "typed")
    await expect(typed).to_contain_text("Say what it was given.")
    steps = typed.get_by_label("steps")
    await expect(steps).to_have_attribute("type", "number")
    await expect(steps).to_have_attribute("max", "9")
    await expect(typed.get_by_label("kind")).to_have_value('"a"')
    await typed.get_by_label("at").fill('{"x": 3}')
    await typed.get_by_label("is_loud").check()
    await run(page, "typed", steps=2)
    said = ['[2,"a",{"x":3,"y":0.5},[],true]', "done"]
    await expect(values(page, "typed")).to_have_text(said)
    assert await accessibility_faults(page) == []


async def test_what_the_form_cannot_send_is_told_where_it_was_typed(page, server):
    typed = card(page, "typed")
    await typed.get_by_label("at").fill("{")
    await run(page, "typed", steps=2)
    message = "element => element.validationMessage"
    assert await typed.get_by_label("at").evaluate(message) == "This is not JSON."
    await typed.get_by_label("at").fill("")
    await run(page, "typed", steps=99)
    assert "9" in await typed.get_by_label("steps").evaluate(message)
    assert server.metric("millrace_requests_total") == 0


@pytest.mark.parametrize(
    ("typed", "shown"), [("5", "5"), ("five", "five"), ('"5"', "5"), ('[1, "a"]', '[1,"a"]')]
)
async def test_a_parameter_of_any_kind_takes_json_or_text(page, typed, shown):
    await run(page, "untyped", value=typed)
    await expect(values(page, "untyped")).to_have_text([shown])


async def test_gradios_examples_run(page):
    await run(page, "count", n=3)
    await run(page, "fake_diffusion", steps=1)
    await expect(values(page, "count")).to_have_text(["0", "1", "2"])
    await expect(card(page, "count").get_by_role("status")).to_contain_text("Ended after 3 values")
    picture = card(page, "fake_diffusion").get_by_role("img", name="Picture 2 of fake_diffusion")
    await expect(picture).to_be_visible()
    await expect(picture).to_have_js_property("naturalWidth", 1000)
    await expect(card(page, "fake_diffusion").get_by_role("img")).to_have_count(1)


async def test_values_are_shown_as_they_come_and_stopping_frees_the_permit(page, server):
    await run(page, "waits")
    await expect(values(page, "waits")).to_have_text(["0"])
    some_generators.GATE.set()
    await expect(values(page, "waits")).to_have_text(["0", "1"])
    assert server.held()["millrace_permits_held"] == 1
    stop = card(page, "waits").get_by_role("button", name="Stop")
    await stop.click()
    await expect(stop).to_be_disabled()
    await expect(card(page, "waits").get_by_role("status")).to_contain_text("Stopped after 2 val")
    await wait_for(lambda: server.metric("millrace_generators_abandoned") == 1)
    some_generators.GATE.set()
    await wait_for(lambda: not any(server.held().values()))
    await expect(values(page, "waits")).to_have_text(["0", "1"])


async def test_escape_stops_it_too(page, server):
    await run(page, "waits")
    await expect(values(page, "waits")).to_have_text(["0"])
    await page.keyboard.press("Escape")
    await expect(card(page, "waits").get_by_role("status")).to_contain_text("Stopped after 1 val")
    await wait_for(lambda: server.metric("millrace_generators_abandoned") == 1)
    some_generators.GATE.set()


async def test_a_picture_is_refined_in_place(page):
    await run(page, "pictures")
    for number, size in enumerate((20, 40, 60), start=1):
        picture = card(page, "pictures").get_by_role("img")
        await expect(picture).to_have_js_property("naturalWidth", size)
        await expect(picture).to_have_attribute("alt", f"Picture {number} of pictures")
        some_generators.GATE.set()
    await expect(card(page, "pictures").get_by_role("status")).to_contain_text("Ended after 3")


async def test_text_that_goes_on_grows_and_other_text_is_a_new_value(page):
    await run(page, "grows")
    await expect(values(page, "grows")).to_have_text(["a wheel turns", "anew"])


async def test_a_fault_in_mid_stream_keeps_what_came_and_offers_another_try(page, caplog):
    caplog.set_level(logging.CRITICAL)
    await run(page, "raises", what="ValueError", num_values=2)
    alert = card(page, "raises").get_by_role("alert")
    await expect(alert).to_contain_text("The generator failed. Request failed during generation")
    await expect(alert).to_contain_text("ValueError: boom")
    await expect(values(page, "raises")).to_have_text(["0", "1"])
    await card(page, "raises").get_by_label("num_values").fill("1")
    await card(page, "raises").get_by_role("button", name="Try again").click()
    await expect(values(page, "raises")).to_have_text(["0"])


async def test_without_generators_the_view_says_how_to_publish_one(chromium):
    async with (
        in_process() as server,
        open_page(chromium, f"{server.url}/#generators", bypass_csp=True) as page,
    ):
        section = page.get_by_role("region", name="Generators")
        await expect(section).to_contain_text("Nothing is published yet")
        await expect(section).to_contain_text("millrace serve --generator steps:countdown")
        assert await accessibility_faults(page) == []


async def test_the_reference_shows_the_published_generators(chromium, server):
    async with open_page(chromium, f"{server.url}/docs", expects=["favicon"]) as page:
        entry = page.locator("details", has_text="/generators/typed").first
        await entry.locator("summary").click()
        await expect(entry).to_contain_text("""-d '{"steps":1}'""")
        await expect(entry).to_contain_text("≥ 1, ≤ 9")
