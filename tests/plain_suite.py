"""Run the suites that need no torch on other Pythons: `python tests/plain_suite.py python3.12 …`.

Each gets an environment of its own beside `.venv`, with every dependency but torch. One that is not
on this machine is named as NOT RUN.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
SUITES = ("tests/engine", "tests/server")


def main(pythons: list[str]) -> int:
    failed = 0
    for python in pythons:
        version = version_of(python)
        if version is None:
            print(f"NOT RUN: the torch-free suites on {python}, which is not here")
            continue
        bin_path = environment(python, version)
        print(f"the torch-free suites on Python {version}:", flush=True)
        failed += subprocess.run([bin_path / "pytest", "-q", *SUITES], cwd=ROOT).returncode != 0
    return int(failed > 0)


def version_of(python: str) -> str | None:
    """Ask a Python for its version; None when it does not run."""
    ask = [python, "-c", "import sys; print('.'.join(map(str, sys.version_info[:2])))"]
    try:
        return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def environment(python: str, version: str) -> Path:
    """Make `.venv-VERSION`, or take it as it is when pyproject and constraints are no newer."""
    venv = ROOT / f".venv-{version}"
    stamp = venv / "installed"
    sources = (ROOT / "pyproject.toml", ROOT / "constraints.txt")
    if not stamp.exists() or any(s.stat().st_mtime > stamp.stat().st_mtime for s in sources):
        subprocess.run([python, "-m", "venv", venv], check=True)
        pip = [venv / "bin/pip", "install", "-q", "--disable-pip-version-check"]
        pinned = [*pip, "-c", ROOT / "constraints.txt"]
        subprocess.run([*pinned, *requirements()], check=True)
        subprocess.run([*pip, "--no-deps", "-e", ROOT], check=True)
        stamp.touch()
    return venv / "bin"


def requirements() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["dev"], *extras["gradio"]]
    return [name for name in wanted if not name.startswith(("torch", "millrace"))]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
