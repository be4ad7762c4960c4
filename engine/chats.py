"""Chats: has chats rendered by the model's template, in a process that may be killed.

One at a time, a line there and a line back: `chat_process.py` answers within `MAX_RENDER_S`,
whatever the template does. Knows no tokenizer.
"""

import asyncio
import logging
import os
import signal
from asyncio.subprocess import PIPE, Process
from contextlib import suppress

from engine import child
from engine.chat import MAX_RENDER_BYTES, Template, template_line
from engine.errors import GenerationFailed, Overloaded

logger = logging.getLogger(__name__)

_MAX_WAIT_S = 5.0
"""How long a chat may wait for others to be rendered, each of which takes a second at most."""


class Chats:
    """The process that renders one model's chats, started again where it has died."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._process: Process | None = None
        self._num_due = 0
        """Lines that it has still to write."""
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Start it, unless it runs; it may take a second until it is ready.

        Raises GenerationFailed where there is no room for another process.
        """
        if self._process is not None and self._process.returncode is not None:
            await self.close()  # who it has started may still read what it was told
        if self._process is None:
            # of a session of its own: Ctrl-C is for the server alone, and it ends with its children
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *child.command("engine.chat_process"),
                    stdin=PIPE,
                    stdout=PIPE,
                    env=child.environment(),
                    start_new_session=True,
                    limit=MAX_RENDER_BYTES,  # of a line, which a child cannot reach
                )
            except OSError as error:
                raise GenerationFailed(f"chats cannot be rendered just now ({error})") from error
            self._num_due = 0
            self._write(self._process, template_line(self._template))

    async def render(self, question: bytes) -> bytes:
        """Exchange a chat's line for its answer's.

        Raises Overloaded where too many others wait, GenerationFailed where there is no answer.
        """
        try:
            async with asyncio.timeout(_MAX_WAIT_S), self._turn:
                await self.start()
                return await self._exchange(question)
        except TimeoutError:
            raise Overloaded("too many chats wait to be rendered") from None

    async def close(self) -> None:
        """End it and what it has started."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with suppress(ProcessLookupError):  # it may have ended, and we not been told yet
                os.killpg(process.pid, signal.SIGKILL)
        assert process.stdin is not None
        process.stdin.close()  # a child that has outlived it ends by this
        await process.communicate()

    async def _exchange(self, question: bytes) -> bytes:
        assert self._process is not None
        process = self._process
        while self._num_due:  # that it is ready; what was asked by those who did not wait
            await self._line(process)
        self._write(process, question)
        return await self._line(process)

    def _write(self, process: Process, line: bytes) -> None:
        assert process.stdin is not None
        process.stdin.write(line)
        self._num_due += 1

    async def _line(self, process: Process) -> bytes:
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line.endswith(b"\n"):
            logger.error("the process that renders chats has died")
            await self.close()
            raise GenerationFailed("chats cannot be rendered just now")
        self._num_due -= 1
        return line
