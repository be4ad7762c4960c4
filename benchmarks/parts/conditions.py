"""Under which conditions a result was measured, written into every file of results."""

import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from server.bench.result import this_machine
from server.report import to_json

_PACKAGES = ("millrace", "torch", "transformers", "aiohttp", "uvloop")
_MACHINE = this_machine()
"""As it is before a script binds itself to a core."""


def write_result(path: Path, result: dict[str, object]) -> None:
    """Write a result with the machine, the versions and the command that led to it."""
    path.write_text(to_json({"conditions": _conditions(), **result}))


def _conditions() -> dict[str, object]:
    return {
        "command": " ".join(["python", *map(_without_folder, sys.argv)]),
        "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _MACHINE,
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _without_folder(word: str) -> str:
    """Leave out where things lie on the machine that measured: it tells a reader nothing."""
    return f".../{Path(word).name}" if word.startswith("/") else word
