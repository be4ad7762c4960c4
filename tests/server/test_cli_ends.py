"""What the command line says and how it ends: codes, sentences, help, version."""

import errno
import subprocess
import sys
from importlib.metadata import version

import pytest

from engine import LoadError
from server.cli.option import Group
from server.cli.options import OPTIONS
from server.config import ConfigError


@pytest.mark.parametrize("code", [0, 3])
def test_it_leaves_with_the_servers_code(command, code):
    command.outcome = code
    assert command("serve").exit_code == code


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (LoadError("the model has no weights"), "the model has no weights"),
        (ConfigError("no such thing"), "no such thing"),
        (
            OSError(errno.EADDRINUSE, "address in use"),
            "cannot listen on --hostname 0.0.0.0 --port 3000: ",
        ),
    ],
)
def test_what_the_operator_can_mend_is_one_sentence_and_no_traceback(command, error, sentence):
    command.outcome = error
    result = command("serve")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {sentence}")


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "disk"), PermissionError(errno.EACCES, "closed", "a file")]
)
def test_a_fault_that_is_not_about_the_port_keeps_its_traceback(command, error):
    command.outcome = error
    assert command("serve").exception is error


def test_the_help_names_every_flag_and_its_environment_in_sections(command):
    result = command("serve", "--help")
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    for option in OPTIONS:
        for name in filter(None, (option.name, option.off, option.short, *option.env)):
            assert name in text.replace("- ", "-"), name
    places = [result.output.index(f"\n{group}:\n") for group in Group]
    assert places == sorted(places)


def test_the_help_shows_the_defaults_that_hold(command):
    text = " ".join(command("serve", "--help").output.split())
    assert "Port to listen on; 0 takes a free one. [default: 3000; env: PORT]" in text
    assert "Sequences of one step. [default: 64; env: MAX_BATCH_SIZE]" in text
    assert "only once. [default: on; env: PREFIX_CACHING]" in text


def test_without_a_command_it_prints_the_help(command):
    result = command()
    assert result.exit_code == 0
    assert "Usage:" in result.output
    assert "serve" in result.output


def test_it_tells_its_version(command):
    result = command("--version")
    assert (result.exit_code, result.output) == (0, f"millrace, version {version('millrace')}\n")


def test_env_prints_versions_and_machine_and_serves_nothing(command):
    result = command("serve", "--env", "--num-shard", "2")
    assert (result.exit_code, command.ran) == (0, [])
    named = [line.split(":")[0] for line in result.output.splitlines()]
    assert named[:5] == ["millrace", "python", "platform", "cores", "torch"]


def test_a_variable_named_env_means_nothing(command):
    command.serve(ENV="production")


@pytest.mark.parametrize(
    "words",
    [
        *("--help", "--version", "serve --help", "serve --env"),
        *("generate --help", "chat --help", "bench --help"),
    ],
)
def test_asking_for_help_loads_nothing_heavy(words):
    heavy = "{'torch', 'transformers', 'aiohttp', 'uvloop', 'prometheus_client'}"
    program = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('LOADED', sorted({heavy} & set(sys.modules))))\n"
        "from server.__main__ import main\n"
        f"main({words.split()!r}, prog_name='millrace')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "LOADED []"
    assert done.stderr == ""
