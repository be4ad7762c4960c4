"""For all tests: `--partial`, the marker `needs`, and an environment without surprises."""

import os
import signal

import pytest
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


@pytest.fixture
async def chromium():
    """Chromium for one test; see `browser.py` for the pages in it."""
    async with launched() as browser:
        yield browser
