"""What `--env` prints: the versions and the machine; loads none of the libraries it names."""

import importlib.util
import os
import platform
from importlib import metadata

from engine import usable_cores

LIBRARIES = ("torch", "transformers", "tokenizers", "aiohttp", "uvloop", "msgspec")


def describe_runtime() -> str:
    """Say in a few lines what a report of a fault should carry."""
    lines = [
        f"millrace: {metadata.version('millrace')}",
        f"python: {platform.python_implementation()} {platform.python_version()}",
        f"platform: {platform.platform()}",
        f"cores: {usable_cores()} of {os.cpu_count()}",
    ]
    return "\n".join(lines + [f"{name}: {_version(name)}" for name in LIBRARIES])


def _version(name: str) -> str:
    if importlib.util.find_spec(name) is None:
        return "not importable"
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "unknown version"
