"""What can go wrong in the engine; knows no status codes.

EngineError
├── RequestError            the caller's fault; the message names field, limit and value
│   ├── InvalidParameter    a sampling parameter is out of its range
│   ├── InvalidGrammar      a grammar cannot be compiled, or not within the limits
│   ├── PromptTooLong       the prompt and what it asks for can never fit
│   └── TemplateError       the chat template is missing or refuses the messages
├── Overloaded              nobody's fault: there is no room now, try later
├── GenerationFailed        ours: this sequence cannot go on (a NaN row, a fault in the model)
├── EngineStopped           ours: the engine is draining or has died
└── LoadError               the operator's: the model cannot be served; says what to do
"""


class EngineError(Exception):
    """Anything the engine raises on purpose."""


class RequestError(EngineError):
    """A request that cannot be served as it is."""


class InvalidParameter(RequestError):
    """A parameter out of its range.

    `field` is the parameter's name in `SamplingParams`; a dialect may print its own.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class InvalidGrammar(RequestError):
    """A grammar that cannot be compiled, or not within the limits of time and memory."""


class PromptTooLong(RequestError):
    """The prompt, or the prompt and the tokens asked for, exceed what one sequence may hold."""


class TemplateError(RequestError):
    """The chat template is missing, or it refuses these messages."""


class Overloaded(EngineError):
    """The waiting room is full, or a sequence waited in it for too long."""


class GenerationFailed(EngineError):
    """The model could not go on with this sequence."""


class EngineStopped(EngineError):
    """The engine takes no more sequences: it is draining, or its worker has died."""


class LoadError(EngineError):
    """The model cannot be loaded or cannot be served; the message says what to do."""
