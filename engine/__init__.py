"""The engine's door: everything the server may use. Importing it loads no torch."""

from engine.batch import Batch, Join, RowOutput, RowWork, Runner, Sampled, StepOutput
from engine.chat import Chat
from engine.config import AdapterSource, EngineConfig, Limits, ModelInfo
from engine.cores import usable_cores
from engine.engine import Engine
from engine.errors import (
    EngineError,
    EngineStopped,
    GenerationFailed,
    InvalidGrammar,
    InvalidParameter,
    LoadError,
    Overloaded,
    PromptTooLong,
    RequestError,
    TemplateError,
)
from engine.grammar import Grammar, GrammarKind
from engine.outputs import (
    Circumstances,
    Delta,
    Finish,
    FinishReason,
    LongStep,
    PromptToken,
    Token,
    TopToken,
    Usage,
    WaitedFor,
)
from engine.sampling_params import LogprobsMode, SamplingParams
from engine.stats import EngineStats, Observer, SequenceProgress, SequenceStats, StepStats
from engine.stream import Burst, Taker, TokenStream
from engine.tokenizer import TextSpan

__all__ = [
    "AdapterSource",
    "Batch",
    "Burst",
    "Chat",
    "Circumstances",
    "Delta",
    "Engine",
    "EngineConfig",
    "EngineError",
    "EngineStats",
    "EngineStopped",
    "Finish",
    "FinishReason",
    "GenerationFailed",
    "Grammar",
    "GrammarKind",
    "InvalidGrammar",
    "InvalidParameter",
    "Join",
    "Limits",
    "LoadError",
    "LogprobsMode",
    "LongStep",
    "ModelInfo",
    "Observer",
    "Overloaded",
    "PromptToken",
    "PromptTooLong",
    "RequestError",
    "RowOutput",
    "RowWork",
    "Runner",
    "Sampled",
    "SamplingParams",
    "SequenceProgress",
    "SequenceStats",
    "StepOutput",
    "StepStats",
    "Taker",
    "TemplateError",
    "TextSpan",
    "Token",
    "TokenStream",
    "TopToken",
    "Usage",
    "WaitedFor",
    "usable_cores",
]
