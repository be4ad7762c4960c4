"""A real browser for tests: Debian's Chromium by Playwright, and a page that must stay clean.

Tests of the page are coroutines, with Playwright's asynchronous API: its synchronous one keeps a
loop running in the thread of the tests, in which none of our own asynchronous tests could run. Ask
for the fixture `chromium`, mark the test `@pytest.mark.needs("chromium")` and write

    async with open_page(chromium, server.url + "/#why") as page:
        await page.get_by_role("button", name="Send both").click()
        await expect(page.get_by_role("status")).to_contain_text("first words")

`expect` comes from `playwright.async_api`; it and every action wait up to `PATIENCE_S`. Do not wait
with `wait_for_function`: the page's policy forbids what that does.
"""

import os
import re
from collections.abc import Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright, expect
from setup_peers import JS, find

PATIENCE_S = 30
"""How long a page may take for what a test waits for."""
AXE = JS / "node_modules" / "axe-core" / "axe.min.js"


@asynccontextmanager
async def launched():
    """Start Chromium without a window, and end it afterwards."""
    expect.set_options(timeout=PATIENCE_S * 1000)
    # as root, as in a container, Chromium refuses to start with its sandbox
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find("chromium"), args=flags)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def open_page(
    chromium: Browser,
    url: str,
    *,
    color_scheme: str = "light",
    width: int = 1280,
    height: int = 900,
    expects: Sequence[str] = (),
    **options,
):
    """Open a page with a storage of its own; fail at its end when it was not clean.

    Not clean: an error on the console, an error that nobody caught, a request that left the origin
    of `url`. `expects` are regular expressions of what is to be forgiven: Chromium logs "Failed to
    load resource: the server responded with a status of 429" for each refusal. More `options` go to
    Playwright's `new_context`, as `bypass_csp=True`.
    """
    context = await chromium.new_context(
        viewport={"width": width, "height": height}, color_scheme=color_scheme, **options
    )
    context.set_default_timeout(PATIENCE_S * 1000)
    try:
        page = await context.new_page()
        faults = _watch(page, url)
        await page.goto(url)
        yield page
    finally:
        await context.close()
    unexpected = [fault for fault in faults if not any(re.search(e, fault) for e in expects)]
    assert not unexpected, "the page is not clean:\n" + "\n".join(unexpected)


async def accessibility_faults(page: Page) -> list[str]:
    """List what axe-core calls serious or critical; the page needs `bypass_csp=True`."""
    if not await page.evaluate("typeof window.axe === 'object'"):
        await page.add_script_tag(path=AXE)
    result = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{found['impact']} {found['id']}: {node['html']} {node['failureSummary']}"
        for found in result["violations"]
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"]
    ]


def _watch(page: Page, url: str) -> list[str]:
    """Collect what goes wrong on a page, as it happens."""
    faults: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type == "error":
            faults.append(f"console: {message.text} ({message.location.get('url')})")

    def asked(address: str) -> None:
        if not _is_at_home(address, url):
            faults.append(f"request to another origin: {address}")

    page.on("console", heard)
    page.on("pageerror", lambda error: faults.append(f"not caught: {error.stack or error}"))
    page.on("request", lambda request: asked(request.url))
    page.on("websocket", lambda socket: asked(socket.url))
    return faults


def _is_at_home(address: str, url: str) -> bool:
    place = urlsplit(address)
    return place.scheme in ("data", "blob") or place.netloc == urlsplit(url).netloc
