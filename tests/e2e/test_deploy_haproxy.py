"""deploy/haproxy.cfg under the real HAProxy, before two real replicas."""

import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import deployed
import pytest
from deployed import DEPLOY, addresses, edited, one_by_one, running, vanished
from in_process import in_process
from served import free_port
from setup_peers import find

pytestmark = pytest.mark.needs("haproxy")


@contextmanager
def haproxy(replicas: list[str]):
    """Start HAProxy in front of these; give its url."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "haproxy.cfg"
        changes = {"bind :8080": f"bind 127.0.0.1:{port}", **addresses(replicas)}
        config.write_text(edited("haproxy.cfg", changes))
        with running([find("haproxy"), "-db", "-f", str(config)], port, Path(folder)) as url:
            yield url


@pytest.fixture(scope="module")
def started():
    with deployed.fleet(haproxy) as fleet:
        yield fleet


@pytest.fixture
def fleet(started):
    started.revive()
    return started


def test_haproxy_takes_the_file_without_a_warning():
    command = [find("haproxy"), "-c", "-dW", "-f", str(DEPLOY / "haproxy.cfg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


async def test_each_token_passes_haproxy_before_the_next_is_made():
    async with one_by_one() as (server, release):
        with haproxy([server.url] * 2) as url:
            await deployed.check_tokens_pass_one_by_one(url, release)


async def test_haproxy_leaves_out_a_host_that_has_vanished():
    async with in_process() as server:
        with vanished() as lost, haproxy([lost, server.url]) as url:
            await deployed.check_a_vanished_host_is_left_out(url)


async def test_a_refusal_passes_haproxy_with_body_and_retry_after(fleet):
    await deployed.check_refusal_passes(fleet)


async def test_haproxy_shares_work_out_by_what_a_replica_has(fleet):
    await deployed.check_new_work_goes_where_there_is_less(fleet)


async def test_haproxy_hides_what_is_for_operators(fleet):
    await deployed.check_operators_routes_are_hidden(fleet.url)


async def test_who_leaves_haproxy_is_gone_for_the_replica(fleet):
    await deployed.check_who_leaves_is_gone(fleet)


async def test_a_stop_signal_behind_haproxy_loses_no_stream_and_no_request(fleet):
    await deployed.check_a_stop_loses_nothing(fleet)


async def test_a_replica_that_comes_back_gets_work_from_haproxy(started):
    await deployed.check_a_replica_comes_back(started)


async def test_a_killed_replica_behind_haproxy_cuts_its_own_streams_only(fleet):
    await deployed.check_a_kill_is_seen(fleet)
