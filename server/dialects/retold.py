"""RetoldCall: a request that is a chat said otherwise, so that the chat's call does the rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.dialects.call import DialectConfig, EncodedPrompt
from server.dialects.chat import ChatCall
from server.dialects.tools.turn_parser import TurnParser


@dataclass(frozen=True, slots=True)
class RetoldCall:
    """One request for one turn; a dialect adds its own ranges and its reply."""

    config: DialectConfig
    chat: ChatCall

    @property
    def is_stream(self) -> bool:
        """Tell whether events are wanted."""
        return self.chat.is_stream

    @property
    def num_permits(self) -> int:
        """One: there is one answer."""
        return self.chat.num_permits

    @property
    def headers(self) -> Mapping[str, str]:
        """Nothing to add."""
        return self.chat.headers

    def parser(self, prompts: Sequence[EncodedPrompt]) -> TurnParser | None:
        """Give what reads the turn, None where all of it is text."""
        return next(iter(self.chat.parsers(prompts)), None)
