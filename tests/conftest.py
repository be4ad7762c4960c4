"""For all tests: `--partial`, the marker `needs`, and an environment without surprises."""

import os
import signal
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from browser import launched
from setup_peers import is_present

# Offline, the hub's client refuses every request, localhost included; and nobody is to be asked.
os.environ.pop("HF_HUB_OFFLINE", None)
os.environ.update(
    NO_PROXY="127.0.0.1,localhost", no_proxy="127.0.0.1,localhost", HF_HUB_DISABLE_TELEMETRY="1"
)

# A shell's background job ignores Ctrl-C, and so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

_NOT_RUN = pytest.StashKey[dict[str, list[str]]]()


def pytest_addoption(parser):
    parser.addoption(
        "--partial",
        action="store_true",
        help="leave out tests whose programs are missing, and list them; else they fail",
    )


def pytest_configure(config):
    config.stash[_NOT_RUN] = {}
    config.addinivalue_line("markers", "needs(*programs): what a test runs beside the server")


def pytest_runtest_setup(item):
    names = [name for mark in item.iter_markers("needs") for name in mark.args]
    missing = [name for name in names if not is_present(name)]
    if not missing:
        return
    if not item.config.getoption("--partial"):
        pytest.fail(f"{', '.join(missing)} not found: run tests/setup_peers.py", pytrace=False)
    for name in missing:
        item.config.stash[_NOT_RUN].setdefault(name, []).append(item.nodeid)
    pytest.skip(f"not found: {', '.join(missing)}")


def pytest_terminal_summary(terminalreporter, config):
    for name, tests in config.stash[_NOT_RUN].items():
        terminalreporter.section(f"NOT RUN: {len(tests)} tests that need {name}", red=True)
        for test in tests:
            terminalreporter.line(f"NOT RUN: {test}")


def pytest_collection_modifyitems(items):
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def living_chromium():
    """Give a function that launches Chromium where none lives."""
    async with AsyncExitStack() as stack:
        browser = None

        async def living():
            nonlocal browser
            if browser is None or not browser.is_connected():
                browser = await stack.enter_async_context(launched())
            return browser

        yield living


@pytest_asyncio.fixture(loop_scope="session")
async def chromium(living_chromium):
    """Chromium, one for all tests; see `browser.py` for the pages in it.

    A test that asks for it runs on the session's loop, on which its asynchronous fixtures must be.
    """
    return await living_chromium()
