"""Faults at the start: one sentence that says what to do, the right exit code, no traceback."""

import json
import re
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from occupancy import assert_clean
from raw_http import call
from served import MODULE, free_port, serve

import engine

DEMO = Path(engine.__file__).parent / "demo"
STARTS = Path(__file__).parents[1] / "starts.py"
FILES = ("*.json", "*.jinja", "*.safetensors")


def a_copy(folder: Path) -> Path:
    """Copy the built-in model."""
    folder.mkdir()
    for pattern in FILES:
        for path in DEMO.glob(pattern):
            shutil.copy(path, folder)
    return folder


def without(name):
    return lambda folder: (folder / name).unlink()


def truncated(name, size=100_000):
    def change(folder):
        with (folder / name).open("r+b") as file:
            file.truncate(size)

    return change


def replaced(name, old, new):
    def change(folder):
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


MODELS = {
    "no config": (without("config.json"), "it holds no config.json"),
    "weights cut short": (truncated("model.safetensors"), "is the file whole?"),
    "weights of fewer layers": (
        replaced("config.json", '"num_hidden_layers": 5', '"num_hidden_layers": 7'),
        "weights are missing, among them model.layers.5.",
    ),
    "no tokenizer": (
        lambda folder: [without(n)(folder) for n in ("tokenizer.json", "tokenizer_config.json")],
        "it holds no tokenizer.json",
    ),
}
FLAGS = {
    "no such directory": (
        ["--model-id", "/nowhere/at/all"],
        1,
        "no such directory. Give --model-id",
    ),
    "a cache below one block": (
        ["--max-batch-total-tokens", "1"],
        1,
        "--max-batch-total-tokens must be at least one block of 32 tokens. Given: 1",
    ),
    "no memory for one block": (
        ["--memory-fraction", "1e-9"],
        1,
        "no memory for one block of 32 tokens",
    ),
    "more tokens than positions": (
        ["--max-total-tokens", "99999"],
        1,
        "--max-total-tokens must be at most 4096",
    ),
    "no share of the memory": (["--memory-fraction", "0"], 1, "--memory-fraction must be above 0"),
    "NaN": (["--graceful-termination-timeout", "nan"], 1, "must be at least 0. Given: nan"),
    "a port out of range": (["--port", "99999"], 1, "--port must be between 0 and 65535"),
    "a host name": (["--hostname", "nowhere"], 1, "--hostname must be an IP address or localhost"),
    "what is not built": (["--num-shard", "2"], 1, "--num-shard 2 is refused"),
    "fewer drafts than none": (
        ["--speculate", "-1"],
        1,
        "--speculate must not be negative. Given: -1",
    ),
    "another quantisation": (["--quantize", "awq"], 2, "'awq' is not 'int8'"),
    "8 bits without kernels": (
        ["--quantize", "int8", "--no-kernels"],
        1,
        "--quantize needs the kernels: --kernels must be on",
    ),
    "8 bits of float32": (
        ["--quantize", "int8", "--dtype", "float32"],
        1,
        "8 bits need a Llama-like model in bfloat16 on a CPU that runs the C++ kernels",
    ),
    "an adapter that is not there": (
        ["--lora-adapters", "a=/nowhere"],
        1,
        "--lora-adapters: cannot load a: there is no directory /nowhere",
    ),
    "two names of one": (
        ["--max-input-tokens", "9", "--max-input-length", "9"],
        1,
        "mean the same; give one of them",
    ),
    "an unknown flag": (["--no-such-flag"], 2, "No such option '--no-such-flag'"),
    "a word for a number": (["--port", "http"], 2, "'http' is not a valid integer"),
    "an unknown choice": (["--dtype", "int3"], 2, "'int3' is not one of"),
    "a file that is not there": (["--tokenizer-config-path", "/nowhere"], 2, "does not exist"),
}


ALONE = ("no such directory", "weights cut short")
"""Those that are started as people do, importing all anew; the others are forked, in a second."""


def command(arguments) -> list[str]:
    return ["serve", "--hostname", "127.0.0.1", "--port", str(free_port()), *arguments]


def start(arguments) -> subprocess.CompletedProcess:
    """Run the command to its end, which comes soon."""
    return run_to_its_end([*MODULE, *command(arguments)])


def start_forked(cases) -> list[subprocess.CompletedProcess]:
    """Run the command with the arguments of each case, forked from one process."""
    asked = json.dumps([command(arguments) for arguments in cases])
    run = run_to_its_end([sys.executable, "-P", STARTS], input=asked)
    assert run.returncode == 0, run.stderr
    ended = zip(cases, json.loads(run.stdout), strict=True)
    return [subprocess.CompletedProcess(arguments, *ends) for arguments, ends in ended]


def run_to_its_end(command, **options) -> subprocess.CompletedProcess:
    fixed = {"capture_output": True, "text": True, "timeout": 100, "check": False}
    return subprocess.run(command, **fixed, **options)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Start all of them; give (code, sentence, run) of each."""
    folder = tmp_path_factory.mktemp("models")
    cases = dict(FLAGS)
    for number, (name, (change, sentence)) in enumerate(MODELS.items()):
        change(a_copy(folder / str(number)))
        cases[name] = (["--model-id", str(folder / str(number))], 1, sentence)
    forked = [name for name in cases if name not in ALONE]
    with ThreadPoolExecutor(2) as pool:
        ended = pool.submit(start_forked, [cases[name][0] for name in forked])
        done = dict(zip(ALONE, pool.map(start, (cases[name][0] for name in ALONE)), strict=True))
        done |= dict(zip(forked, ended.result(), strict=True))
    return {name: (code, sentence, done[name]) for name, (_, code, sentence) in cases.items()}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [*FLAGS, *MODELS])
def test_a_fault_at_the_start_is_told_in_a_sentence(runs, name):
    code, sentence, run = runs[name]
    assert run.returncode == code, run.stderr
    assert sentence in run.stderr
    assert "Traceback" not in run.stderr + run.stdout
    lines = run.stderr.strip().splitlines()
    assert lines[-1].startswith("Error: ")
    assert lines[:-1] == ([] if code == 1 else lines[:3]), "more than the sentence"
    assert len(lines) in (1, 4)


def test_a_port_in_use_is_told_in_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        run = start(["--port", port])
    assert run.returncode == 1
    (line,) = run.stderr.strip().splitlines()
    assert line.startswith(f"Error: cannot listen on --hostname 127.0.0.1 --port {port}: ")
    assert "Address already in use" in line


async def test_a_model_without_a_chat_template_serves_all_but_chats(tmp_path):
    model = a_copy(tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    flags = ("--model-id", str(model), "--max-batch-total-tokens", "32768")
    with serve(*flags) as server:
        chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "stream": True}
        for path in ("/v1/chat/completions", "/chat_tokenize", "/tokenize"):
            answer = await call(server.url, "POST", path, chat)
            assert answer.status == 422
            assert answer.json()["error_type"] == "template_error"
            assert "template not found" in answer.body.decode()
        text = {"prompt": "Hi", "max_tokens": 2}
        assert (await call(server.url, "POST", "/v1/completions", text)).status == 200
        assert server.metric("tgi_request_failure", err="template") == 1
        assert_clean(server.log)
        assert server.stop() == 0


def test_the_command_env_says_whether_the_kernels_run():
    run = subprocess.run([*MODULE, "env"], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("millrace: ")
    *_, last = run.stdout.splitlines()
    assert re.match(r"kernels: (run here|none: (this processor has no|they were not)) ?", last)
