"""What the READMEs say is so: their examples run, their tables are those of the code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from served import serve

from server.cli.command import help_of
from server.cli.options import OPTIONS
from server.errors import STATUS

ROOT = Path(__file__).parent.parent
EXAMPLES = re.findall(
    r"^```(sh|python)\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
)
ASKING = [(language, code) for language, code in EXAMPLES if "localhost:3000" in code]


@pytest.fixture(scope="module")
def server():
    with serve() as served:
        yield served


def test_there_are_examples_for_the_shell_and_for_python():
    assert {language for language, _ in ASKING} == {"sh", "python"}
    assert len(ASKING) >= 6


@pytest.mark.parametrize("number", range(len(ASKING)))
def test_each_example_answers(server, number):
    language, code = ASKING[number]
    code = code.replace("localhost:3000", server.url.removeprefix("http://"))
    command = ["bash", "-ec", code] if language == "sh" else [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) >= 10
    assert "error" not in done.stdout


def test_the_map_of_a_token_names_what_exists():
    rows = re.findall(r"^\| \d+ \| .* \| (.*) \| (.*) \|$", (ROOT / "README.md").read_text(), re.M)
    assert len(rows) == 10
    for places, functions in rows:
        names = re.findall(r"`([^`]+)`", places)
        files = [f for name in names for f in ROOT.glob(f"{name}*.py" if name[-1] == "/" else name)]
        files += [f for name in names for f in ROOT.glob(f"server/dialects/{name}")]
        text = "".join(file.read_text() for file in files)
        for function in re.findall(r"`([^`]+)`", functions):
            name = function.rpartition(".")[2]
            assert f"def {name}(" in text, f"{function} is not in {places}"


def flag_rows():
    """Write a row for each flag; to renew the README, print them."""
    return [
        f"| `{option.name}` | {option.plan} | {' '.join(help_of(option).split())} |"
        for option in OPTIONS
    ]


def test_the_table_of_flags_is_that_of_the_code():
    text = (ROOT / "server/README.md").read_text()
    missing = [row for row in flag_rows() if row not in text]
    assert not missing, "\n".join(missing)


def test_the_table_of_errors_is_that_of_the_code():
    text = (ROOT / "server/README.md").read_text()
    for error_type, status in STATUS.items():
        assert re.search(rf"^\| `{re.escape(error_type)}` \| {status} \| ", text, re.M), error_type


def test_every_metric_is_in_the_readme(server):
    text = (ROOT / "server/README.md").read_text()
    names = set(re.findall(r"^# TYPE (millrace_\w+) ", server.get("/metrics"), re.M))
    assert len(names) > 25
    assert sorted(name for name in names if f"`{name}`" not in text) == []
