"""Renderers of chats for servers in this process, forked from one that has loaded its libraries.

`engine/chats.py` starts `engine.chat_process` for each server, which imports for 0.6 s. Under
`quick_chats` it starts `_CLIENT` instead, which hands its pipes to the nursery, `python nursery.py
LISTENER`, and lives as long as what that forks for it. The nursery ends with the tests.
"""

import atexit
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from functools import cache

import pytest

from engine import chat_process, child
from engine.child import command

_CLIENT = """
import os, socket, sys
with socket.socket(socket.AF_UNIX) as nursery:
    nursery.connect("\\0" + sys.argv[1])
    socket.send_fds(nursery, [b"."], [0, 1])
    os.close(0)
    os.close(1)
    nursery.recv(1)
"""


@contextmanager
def quick_chats():
    """Let the nursery render the chats of servers that start meanwhile."""
    _address()  # starting it would block the servers' loop
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child, "command", _command)
        yield


def _command(module):
    if module != chat_process.__name__:
        return command(module)
    return (sys.executable, "-I", "-S", "-c", _CLIENT, _address())


@cache
def _address() -> str:
    """Start the nursery, once; who connects before it is ready waits for it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")  # Linux gives a name that is no file
        listener.listen(64)
        nursery = subprocess.Popen(
            [sys.executable, "-P", __file__, str(listener.fileno())],
            stdin=subprocess.PIPE,  # its end tells the nursery that the tests have ended
            pass_fds=[listener.fileno()],
            env=child.environment(),
            start_new_session=True,
        )
        atexit.register(nursery.communicate)
        return listener.getsockname()[1:].decode()


def main(listener: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those it forks
    while listener in select.select([listener, sys.stdin], [], [])[0]:
        client, _ = listener.accept()
        with client:
            _, pipes, _, _ = socket.recv_fds(client, 1, 2)
            if pipes and os.fork() == 0:  # without any it was killed before it could send them
                listener.close()
                _render(*pipes)
        for pipe in pipes:
            os.close(pipe)


def _render(*pipes: int) -> None:
    """Be the renderer at the other ends of these pipes."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, pipe in enumerate(pipes):
        os.dup2(pipe, number)
        os.close(pipe)
    chat_process.main()
    os._exit(0)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
