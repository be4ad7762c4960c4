"""Starts of `millrace` that fail, each in a fork of one process that has imported its libraries.

`python starts.py` reads a list of argument lists as JSON, and writes a list of each one's exit
code, output and errors.
"""

import gc
import json
import os
import sys
import tempfile
import traceback

import engine.load  # noqa: F401 - the command imports it and the next when it is called
import server.serving  # noqa: F401
from server.__main__ import main


def run(arguments: list[str]) -> tuple[int, str, str]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            _end(arguments)
        _, status = os.waitpid(pid, 0)
        for file in (out, err):
            file.seek(0)
        return os.waitstatus_to_exitcode(status), out.read().decode(), err.read().decode()


def _end(arguments: list[str]) -> None:
    """Run the command, and end this process as it would end."""
    code = 1
    try:
        main(arguments, prog_name="python -m server")
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    gc.freeze()  # else a fork that collects garbage copies what it looks at
    json.dump([run(arguments) for arguments in json.load(sys.stdin)], sys.stdout)
