"""deploy/nginx.conf under the real nginx, before two real replicas."""

import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import deployed
import pytest
from deployed import addresses, edited, one_by_one, running, vanished
from in_process import in_process
from served import free_port
from setup_peers import find

pytestmark = pytest.mark.needs("nginx")

MAIN = """
daemon off;
worker_processes 2;
error_log stderr;
pid nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include millrace.conf;
}
"""
"""Stands for the distribution's nginx.conf, which includes ours; all paths are in one folder."""


def write(folder: str, replicas: list[str], port: int) -> list[str]:
    """Write the configuration; give the command that uses it."""
    changes = {"listen 8080;": f"listen 127.0.0.1:{port};", **addresses(replicas)}
    Path(folder, "millrace.conf").write_text(edited("nginx.conf", changes))
    Path(folder, "nginx.conf").write_text(MAIN)
    return [find("nginx"), "-p", folder, "-c", "nginx.conf", "-e", "stderr"]


@contextmanager
def nginx(replicas: list[str]):
    """Start nginx in front of these; give its url."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        # its workers run as another user
        Path(folder).chmod(0o755)
        with running(write(folder, replicas, port), port, Path(folder)) as url:
            yield url


@pytest.fixture(scope="module")
def started():
    with deployed.fleet(nginx) as fleet:
        yield fleet


@pytest.fixture
def fleet(started):
    started.revive()
    return started


def test_nginx_takes_the_file_without_a_warning(tmp_path):
    command = write(str(tmp_path), ["http://127.0.0.1:1", "http://127.0.0.1:2"], 8080)
    done = subprocess.run([*command, "-t", "-q"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


async def test_each_token_passes_nginx_before_the_next_is_made():
    async with one_by_one() as (server, release):
        with nginx([server.url] * 2) as url:
            await deployed.check_tokens_pass_one_by_one(url, release)


async def test_nginx_leaves_out_a_host_that_has_vanished():
    async with in_process() as server:
        with vanished() as lost, nginx([lost, server.url]) as url:
            await deployed.check_a_vanished_host_is_left_out(url)


async def test_a_refusal_passes_nginx_with_body_and_retry_after(fleet):
    await deployed.check_refusal_passes(fleet)


async def test_nginx_shares_work_out_by_what_a_replica_has(fleet):
    await deployed.check_new_work_goes_where_there_is_less(fleet)


async def test_nginx_hides_what_is_for_operators(fleet):
    await deployed.check_operators_routes_are_hidden(fleet.url)


async def test_who_leaves_nginx_is_gone_for_the_replica(fleet):
    await deployed.check_who_leaves_is_gone(fleet)


async def test_a_stop_signal_behind_nginx_loses_no_stream_and_no_request(fleet):
    await deployed.check_a_stop_loses_nothing(fleet)


async def test_a_replica_that_comes_back_gets_work_from_nginx(started):
    await deployed.check_a_replica_comes_back(started)


async def test_a_killed_replica_behind_nginx_cuts_its_own_streams_only(fleet):
    await deployed.check_a_kill_is_seen(fleet)
