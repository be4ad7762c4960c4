"""See that the programs which tests run beside the server are there; install those that are not.

Debian packages where this runs as root, and the npm packages of `tests/e2e/js`. Standard library
only. What cannot be had is listed and fails, or with --partial is said not to run.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

JS = Path(__file__).parent / "e2e" / "js"
PACKAGES = {
    "chromium": "chromium",
    "curl": "curl",
    "node": "nodejs",
    "npm": "npm",
    "haproxy": "haproxy",
    "nginx": "nginx-light",
    "promtool": "prometheus",
}
"""The Debian package that brings each program."""
NPM_PACKAGES = "npm packages"
"""Stands for what `package.json` names, beside the programs."""

_POLICY = Path("/usr/sbin/policy-rc.d")
_SERVICES = {"haproxy": "haproxy", "nginx": "nginx", "promtool": "prometheus"}
"""What Debian would start with a program."""


def is_present(name: str) -> bool:
    """Tell whether a program, or the npm packages, can be used now."""
    return _has_npm_packages() if name == NPM_PACKAGES else find(name) is not None


def find(program: str) -> str | None:
    """Give the path of a program; those of administrators are not on everybody's PATH."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def missing() -> list[str]:
    """List what is not there."""
    return [name for name in (*PACKAGES, NPM_PACKAGES) if not is_present(name)]


def main(arguments: list[str]) -> int:
    """Install what is missing and say what could not be; the exit code is for `make`."""
    if not missing():
        return 0
    _install_programs([name for name in missing() if name in PACKAGES])
    if NPM_PACKAGES in missing() and is_present("npm"):
        _install_npm_packages()
    lacking = missing()
    if not lacking:
        return 0
    if "--partial" in arguments:
        print(f"NOT RUN: tests that need {', '.join(lacking)}")
        return 0
    print("Tests need programs that are not there and could not be installed:", file=sys.stderr)
    for name in lacking:
        print(f"  {name}: {_advice(name)}", file=sys.stderr)
    print("Or leave their tests out: make test PARTIAL=1", file=sys.stderr)
    return 1


def _advice(name: str) -> str:
    if name == NPM_PACKAGES:
        return f"run `npm ci --prefix {JS}`"
    return f"on Debian, `apt-get install {PACKAGES[name]}` as root"


def _install_programs(names: list[str]) -> None:
    if not names or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    packages = [PACKAGES[name] for name in names]
    print(f"installing {' '.join(packages)}", flush=True)
    install = ["apt-get", "install", "--yes", "--no-install-recommends", "-qq", *packages]
    with _no_services_started():
        if not _runs(install):
            _runs(["apt-get", "update", "-qq"])
            _runs(install)
    services = [_SERVICES[name] for name in names if name in _SERVICES and is_present(name)]
    if services and shutil.which("systemctl") is not None:
        _runs(["systemctl", "disable", *services])  # nor at the next boot


@contextmanager
def _no_services_started() -> Iterator[None]:
    """Keep Debian from starting what it installs; whoever had a policy keeps it."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def _has_npm_packages() -> bool:
    """Compare what is installed with what `package.json` names, version by version."""
    wanted = json.loads((JS / "package.json").read_text())["dependencies"]
    for name, version in wanted.items():
        path = JS / "node_modules" / name / "package.json"
        if not path.is_file() or json.loads(path.read_text())["version"] != _exact(version):
            return False
    return True


def _exact(version: str) -> str:
    return version.rpartition("@")[2]


def _install_npm_packages() -> None:
    print("installing npm packages", flush=True)
    _runs(["npm", "ci", "--no-audit", "--no-fund", "--prefix", str(JS)])


def _runs(command: list[str]) -> bool:
    """Run a command; what it says is shown only if it fails."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{command[0]}: {error}", file=sys.stderr)
        return False
    if done.returncode:
        print((done.stderr or done.stdout).strip()[-2000:], file=sys.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
