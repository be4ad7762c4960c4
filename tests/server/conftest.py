"""The command line with nothing behind it."""

import logging
import sys
from types import ModuleType

import pytest
from click.testing import CliRunner

from server import logs
from server.__main__ import main
from server.cli.command import CONFIGS
from server.cli.options import OPTIONS


class Command:
    """`millrace` with a server that only notes what it was given."""

    def __init__(self, monkeypatch):
        self.ran = []
        self.outcome = 0
        serving, loading = ModuleType("server.serving"), ModuleType("engine.load")
        serving.run = self._run
        serving.leave_at_once_on_a_signal = lambda: None
        loading.load = self._load
        monkeypatch.setitem(sys.modules, serving.__name__, serving)
        monkeypatch.setitem(sys.modules, loading.__name__, loading)

    def _load(self, engine_config, observer):
        return "a model", engine_config, observer

    def _run(self, server_config, engine_config, load):
        assert load(engine_config, self) == self._load(engine_config, self)
        self.ran.append((server_config, engine_config))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def __call__(self, *words, **env):
        unset = {name: None for option in OPTIONS for name in option.env}
        return CliRunner(env=unset | env).invoke(main, words)

    def serve(self, *words, **env):
        """Serve, and give back the two configurations it came to."""
        result = self("serve", *words, **env)
        assert result.exit_code == 0, result.output
        return dict(zip(CONFIGS, self.ran.pop(), strict=True))


@pytest.fixture
def command(monkeypatch):
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Command(monkeypatch)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in logs.OURS:
        logging.getLogger(name).setLevel(logging.NOTSET)
    logging.captureWarnings(False)
