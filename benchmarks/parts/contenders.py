"""How each server is found, made ready and started on a family's model; runs nothing for long.

A server that is not there, or cannot serve the family, raises Absent: a missing row, never a win.
"""

import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from ctypes.util import find_library
from dataclasses import dataclass, field
from pathlib import Path

from parts.families import Family

OURS = "millrace"
_PARTS = Path(__file__).parent
_HOST = "127.0.0.1"
_NUM_SLOT_TOKENS = 512
"""A slot of llama.cpp has a multiple of so many."""


class Absent(Exception):
    """Why a server takes no part, in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A server that can be started; all answer /health and OpenAI's completions."""

    name: str
    version: str
    command: tuple[str, ...]
    """Less the port."""
    env: dict[str, str] = field(default_factory=dict)
    served_name: str = "model"
    """What requests must call the model."""
    is_plain: bool = False
    """See `Question.is_plain`."""


def add_options(parser: ArgumentParser) -> None:
    """Let each peer be named on the command line or in the environment."""
    group = parser.add_argument_group(
        "peers",
        "PYTHON is that of a virtual environment. Each has a default in the environment: "
        "PEER_LLAMA_CPP for --llama-cpp, and so on.",
    )
    for flag, metavar, text in (
        ("--llama-cpp", "FOLDER", "llama.cpp's source, built in its folder build"),
        ("--llama-cpp-convert", "PYTHON", "of one with torch, transformers, sentencepiece [this]"),
        ("--openvino", "PYTHON", "of one with openvino-genai, tokenizers, aiohttp and uvloop"),
        ("--openvino-export", "PYTHON", "of one with optimum-intel and nncf [as --openvino]"),
        ("--vllm", "PYTHON", "of one with vLLM for CPUs"),
        ("--transformers", "PYTHON", "of one with transformers[serving]"),
    ):
        default = os.environ.get(f"PEER_{flag.strip('-').upper().replace('-', '_')}")
        group.add_argument(flag, metavar=metavar, type=Path, default=default, help=text)


def millrace(options: Namespace, model_dir: Path, family: Family) -> Contender:
    """Serve with this code, as it comes."""
    serve = (sys.executable, "-m", "server", "serve")
    if family.is_int8 and "int8" not in _output([*serve, "--help"]):
        raise Absent("this version has no --quantize int8")
    quantize = ("--quantize", "int8") if family.is_int8 else ()
    return Contender(
        name=OURS,
        version=_package_version(Path(sys.executable), OURS),
        command=(*serve, "--model-id", str(model_dir), "--hostname", _HOST, *quantize, "--port"),
    )


def other_build(options: Namespace, model_dir: Path, family: Family) -> Contender:
    """Serve with another checkout of this code, whose kernels were built there."""
    folder = _named(options.other, "--other")
    ours = millrace(options, model_dir, family)
    python, *words = ours.command
    return Contender(
        name="other build",
        version=_output(["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]).strip(),
        command=(python, "-P", *words),  # not the code where this was called
        env={"PYTHONPATH": str(folder)},
    )


def llama_cpp(options: Namespace, model_dir: Path, family: Family) -> Contender:
    """Serve with llama.cpp: a slot for each client; the model converted by its own script."""
    source = _named(options.llama_cpp, "--llama-cpp")
    program = source / "build" / "bin" / "llama-server"
    if not program.exists():
        raise Absent("--llama-cpp has no build/bin/llama-server")
    kind = "q8_0" if family.is_int8 else "bf16"
    converted = model_dir.with_name(f"{model_dir.name}-{kind}.gguf")
    python = options.llama_cpp_convert or sys.executable
    convert = [str(python), str(_PARTS / "to_gguf.py"), str(model_dir)]
    convert += ["--outtype", kind, "--outfile"]
    _convert(convert, converted, {"PYTHONPATH": f"{source}{os.pathsep}{source / 'gguf-py'}"})
    num_tokens = family.num_prompt_tokens + family.num_output_tokens
    num_context = family.max_clients * -(-num_tokens // _NUM_SLOT_TOKENS) * _NUM_SLOT_TOKENS
    version = _output([str(program), "--version"]).partition("version: ")[2]
    return Contender(
        name="llama.cpp",
        version=version.partition("\n")[0],
        command=(
            *(str(program), "--model", str(converted), "--host", _HOST, "--no-ui"),
            *("--parallel", str(family.max_clients), "--ctx-size", str(num_context), "--port"),
        ),
    )


def openvino(options: Namespace, model_dir: Path, family: Family) -> Contender:
    """Serve OpenVINO GenAI's pipeline, which has no server of its own, by as little as can be."""
    python = _named(options.openvino, "--openvino")
    kind = "int8" if family.is_int8 else "fp16"
    converted = model_dir.with_name(f"{model_dir.name}-openvino-{kind}")
    export = (options.openvino_export or python).parent / "optimum-cli"
    words = ["export", "openvino", "--task", "text-generation-with-past", "--weight-format", kind]
    _convert([str(export), *words, "--model", str(model_dir)], converted)
    return Contender(
        name="openvino",
        version=_package_version(python, "openvino-genai"),
        command=(str(python), str(_PARTS / "openvino_server.py"), str(converted)),
    )


def vllm(options: Namespace, model_dir: Path, family: Family) -> Contender:
    """Serve with vLLM on all cores."""
    python = _named(options.vllm, "--vllm")
    if family.is_int8:
        raise Absent("it does not quantise to int8 while loading")
    cores = sorted(os.sched_getaffinity(0))
    return Contender(
        name="vllm",
        version=_package_version(python, "vllm"),
        command=(
            *(str(python.parent / "vllm"), "serve", str(model_dir), "--served-model-name", "model"),
            *("--dtype", "bfloat16", "--max-model-len", "2048", "--max-num-seqs", "64"),
            *("--host", _HOST, "--port"),
        ),
        env={
            "VLLM_CPU_KVCACHE_SPACE": "2",
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "LD_PRELOAD": ":".join(_asked_by_vllm(python)),
        },
    )


def transformers(options: Namespace, model_dir: Path, family: Family) -> Contender:
    """Serve with transformers' own server and its continuous batching."""
    python = _named(options.transformers, "--transformers")
    if family.is_int8:
        raise Absent("it does not quantise to int8 on a CPU")
    return Contender(
        name="transformers",
        version=_package_version(python, "transformers"),
        command=(
            *(str(python.parent / "transformers"), "serve", str(model_dir), "--device", "cpu"),
            *("--continuous-batching", "--dtype", "bfloat16", "--host", _HOST, "--port"),
        ),
        env={"HF_HUB_OFFLINE": "1"},
        served_name=str(model_dir),
        is_plain=True,
    )


KINDS: dict[str, Callable[[Namespace, Path, Family], Contender]] = {
    OURS: millrace,
    "llama.cpp": llama_cpp,
    "openvino": openvino,
    "vllm": vllm,
    "transformers": transformers,
}
"""In the order of their turns."""
BUILDS = {OURS: millrace, "other build": other_build}


def _named(path: Path | None, flag: str) -> Path:
    if path is None:
        raise Absent(f"{flag} was not given")
    if not path.exists():
        raise Absent(f"{flag} names nothing that is there")
    return path.absolute()


def _asked_by_vllm(python: Path) -> list[str]:
    """Find the libraries that its log asks to load first; those that are there."""
    allocator = find_library("tcmalloc_minimal")
    openmp = python.parent.parent / "lib" / "libiomp5.so"
    return [*([allocator] if allocator else []), *([str(openmp)] if openmp.exists() else [])]


def _convert(command: list[str], target: Path, env: dict[str, str] | None = None) -> None:
    """Write a peer's form of the model unless it is there: whole, or not at all."""
    if target.exists():
        return
    part = target.with_name(f"part-{target.name}")
    print(f"converting: {target.name}", file=sys.stderr)
    env = {**os.environ, "HF_HUB_OFFLINE": "1", **(env or {})}
    try:
        done = subprocess.run([*command, str(part)], capture_output=True, text=True, env=env)
    except OSError as error:
        raise Absent(f"{Path(command[0]).name} does not start: {error.strerror}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
        raise Absent(f"{target.name} could not be made: {said[-1]}")
    part.rename(target)


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _package_version(python: Path, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    try:
        done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Absent(f"the environment of its Python has no {package}") from error
    return done.stdout.strip()
