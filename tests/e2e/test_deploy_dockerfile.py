"""deploy/Dockerfile without Docker: its lines are run in an empty folder, then its entry point.

A virtual environment stands for the image's Python; it sees the packages that the tests run with,
so pip finds the dependencies instead of fetching them. What stays unproven is said in the README
beside the file: the base image, the user, the compiler, port 80, and fetching torch.
"""

import json
import os
import shutil
import signal
import subprocess
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest
from deployed import DEPLOY
from served import Served, free_port, wait_until_ready

ROOT = DEPLOY.parent
NOT_RUN = {
    "useradd --uid 10001 --create-home millrace && install -d -o millrace /data",
    "apt-get update && apt-get install --yes --no-install-recommends g++ "
    "&& rm -rf /var/lib/apt/lists/*",
}
"""Lines that are not run: they would add a user and a compiler to this machine."""


@dataclass
class Image:
    """What the Dockerfile makes, in a folder."""

    folder: Path
    lines: list[tuple[str, str]]

    @property
    def source(self) -> Path:
        return self.folder / "src"

    @property
    def python(self) -> Path:
        return self.folder / "venv/bin/python"

    def get(self, name: str) -> str:
        """Give the one line of an instruction."""
        (rest,) = (rest for word, rest in self.lines if word == name)
        return rest

    def run(self, command: str | list[str], **options):
        """Run a command in the image: a shell's line, or a list as it is."""
        return subprocess.run(
            command, shell=isinstance(command, str), cwd=self.source, env=self.env(), **options
        )

    def env(self, **more: str) -> dict[str, str]:
        """Give the environment of the image, and pip's own settings of this machine."""
        lines = (rest.partition("=") for word, rest in self.lines if word == "ENV")
        ours = {name: value for name, _, value in lines}
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        path = f"{self.python.parent}:/usr/bin:/bin"
        return {"PATH": path, "HOME": str(self.folder), **pip, **ours, **more}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    image = Image(tmp_path_factory.mktemp("image"), instructions())
    image.source.mkdir()
    _make_python(image)
    runs = [rest for word, rest in image.lines if word == "RUN"]
    assert set(runs) >= NOT_RUN
    for word, rest in image.lines:
        if word == "COPY":
            _copy(rest, image.source)
        elif word == "RUN" and rest not in NOT_RUN:
            done = image.run(rest, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{rest}\n{done.stdout}{done.stderr}"
    shutil.rmtree(image.source / "engine")  # what runs must be what was installed
    shutil.rmtree(image.source / "server")
    return image


def instructions() -> list[tuple[str, str]]:
    """Split the Dockerfile into its instructions."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    pairs = (line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    return [(word, rest) for word, rest in pairs]


def test_only_instructions_that_the_test_follows_are_used():
    followed = {"COPY", "RUN", "ENV", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT"}
    left_out = {"FROM", "ARG", "WORKDIR", "USER"}
    assert {word for word, _ in instructions()} == followed | left_out


def test_the_lines_install_the_package_and_its_commands(image):
    done = image.run(
        ["python", "-c", "import engine, server; print(engine.__file__); print(server.__file__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    for line in done.stdout.splitlines():
        assert Path(line).is_relative_to(image.folder / "venv"), line
    assert list(Path(done.stdout.splitlines()[0]).parent.glob("compute/kernels/_native*.so"))
    help = image.run(["millrace", "--help"], capture_output=True, text=True, check=True)
    assert "serve" in help.stdout


def test_the_container_runs_and_stops_as_the_dockerfile_says(image):
    assert image.get("EXPOSE") == image.env()["PORT"]
    port = str(free_port())
    env = image.env(PORT=port, HF_HOME=str(image.folder / "data"))
    command = [*json.loads(image.get("ENTRYPOINT")), "--num-threads", "1", "--json-output"]
    health = json.loads(image.get("HEALTHCHECK").partition("CMD ")[2])
    log_path = image.folder / "server.log"
    with log_path.open("w") as log:
        process = subprocess.Popen(command, cwd=image.source, env=env, stdout=log, stderr=log)
    server = Served(f"http://127.0.0.1:{port}", process, log_path)
    try:
        wait_until_ready(server)
        assert subprocess.run(health, env=env, check=False).returncode == 0
        assert "<html" in server.get("/docs")
        process.send_signal(signal.Signals[image.get("STOPSIGNAL")])
        assert process.wait(60) == 0
        done = subprocess.run(health, env=env, check=False, capture_output=True)
        assert done.returncode == 1
    finally:
        process.kill()
        process.wait()


def _make_python(image: Image) -> None:
    """Make an environment with pip that finds the packages of this one."""
    venv.create(image.folder / "venv", symlinks=True)
    site = next((image.folder / "venv/lib").glob("python3*")) / "site-packages"
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = image.folder / "venv/bin/pip"
    pip.write_text(f'#!/bin/sh\nexec {image.python} -m pip "$@"\n')
    pip.chmod(0o755)


def _copy(rest: str, target: Path) -> None:
    """Do what COPY does: files go into the folder, a folder becomes the one that is named."""
    *sources, place = rest.split()
    for source in sources:
        if (ROOT / source).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(ROOT / source, target / place, ignore=ignored)
        else:
            shutil.copy(ROOT / source, target / place)
