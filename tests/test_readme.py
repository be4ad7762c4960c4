"""What the READMEs say is so: their examples run, their tables are those of the code."""

import os
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
JS = ROOT / "tests/e2e/js"
EXAMPLES = [
    (f"{path}:{text.count(chr(10), 0, found.start()) + 2}", *found.groups())
    for path in ("README.md", "server/README.md")
    for text in [(ROOT / path).read_text()]
    for found in re.finditer(
        r"^```(sh|python|js)\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", text, re.MULTILINE | re.DOTALL
    )
]
"""Place, language, code, and what it prints where the README says it."""
ASKING = [example for example in EXAMPLES if "localhost:3000" in example[2]]
NEEDS = {"js": ["node", "npm packages"], "sh": ["curl"], "python": []}


@pytest.fixture(scope="module")
def server():
    with serve() as served:
        yield served


def test_there_are_examples_in_every_language_and_some_show_what_they_print():
    assert {language for _, language, _, _ in ASKING} == {"sh", "python", "js"}
    assert len(ASKING) >= 10
    assert sum(output is not None for *_, output in ASKING) >= 4


def run(language, code):
    match language:
        case "sh":
            command = ["bash", "-ec", code]
        case "python":
            command = [sys.executable, "-c", code]
        case "js":
            package = "hf3" if "// version 3" in code else "hf4"
            code = code.replace('"@huggingface/inference"', f'"{package}"')
            command = ["node", "--input-type=module", "--eval", code]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        command,
        cwd=JS,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def without_logprobs(text):
    """Leave out what differs from processor to processor."""
    return re.sub(r"(logprob\W+)-[\d.e-]+", r"\1#", text).strip()


@pytest.mark.parametrize(
    ("language", "code", "output"),
    [
        pytest.param(*example, id=place, marks=pytest.mark.needs(*NEEDS[example[0]]))
        for place, *example in ASKING
    ],
)
def test_each_example_answers(server, language, code, output):
    done = run(language, code.replace("localhost:3000", server.url.removeprefix("http://")))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) >= 10
    assert "error" not in done.stdout
    if output is not None:
        assert without_logprobs(done.stdout) == without_logprobs(output)


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
