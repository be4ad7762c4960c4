"""Missing programs fail, or with --partial are listed as not run; installed ones cost no time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import setup_peers

TESTS = Path(setup_peers.__file__).parent
NEEDY = """
import pytest

@pytest.mark.needs("no-such-program")
def test_needy():
    raise AssertionError("this ran")

def test_other():
    pass
"""


def set_up(*arguments, path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, TESTS / "setup_peers.py", *arguments],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def run_pytest(folder, *arguments) -> subprocess.CompletedProcess:
    (folder / "test_needy.py").write_text(NEEDY)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.needs(*setup_peers.PACKAGES, setup_peers.NPM_PACKAGES)
def test_nothing_is_done_when_all_is_there():
    done = set_up(path=os.environ["PATH"])
    assert done.returncode == 0
    assert done.stdout == done.stderr == ""


def test_what_is_missing_is_listed_with_what_to_do():
    done = set_up(path="/nowhere")
    assert done.returncode == 1
    assert "  curl: on Debian, `apt-get install curl` as root\n" in done.stderr
    assert "make test PARTIAL=1" in done.stderr


def test_partial_says_what_will_not_run():
    done = set_up("--partial", path="/nowhere")
    assert done.returncode == 0
    assert done.stdout.startswith("NOT RUN: tests that need chromium, curl, node, npm")


def test_a_test_without_its_program_fails(tmp_path):
    done = run_pytest(tmp_path)
    assert done.returncode == 1
    assert "no-such-program not found: run tests/setup_peers.py" in done.stdout
    assert "1 passed, 1 error" in done.stdout


def test_partial_leaves_it_out_and_says_so(tmp_path):
    done = run_pytest(tmp_path, "--partial")
    assert done.returncode == 0
    assert "1 passed, 1 skipped" in done.stdout
    assert "NOT RUN: 1 tests that need no-such-program" in done.stdout
    assert "NOT RUN: test_needy.py::test_needy" in done.stdout


def test_the_lock_file_names_no_registry():
    lock = (setup_peers.JS / "package-lock.json").read_text()
    assert "resolved" not in lock
    assert "://" not in lock
