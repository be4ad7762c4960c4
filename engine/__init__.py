"""The engine's door: everything the server may use. Importing it loads no torch."""

from engine.batch import Batch, Join, RowOutput, RowWork, Runner, Sampled, StepOutput
from engine.config import EngineConfig, Limits, ModelInfo
from engine.errors import (
    EngineError,
    EngineStopped,
    GenerationFailed,
    InvalidParameter,
    LoadError,
    Overloaded,
    PromptTooLong,
    RequestError,
    TemplateError,
)
from engine.outputs import Delta, Finish, FinishReason, PromptToken, Token, TopToken, Usage
from engine.sampling_params import LogprobsMode, SamplingParams
from engine.stats import EngineStats, Observer, SequenceStats, StepStats

__all__ = [
    "Batch",
    "Delta",
    "EngineConfig",
    "EngineError",
    "EngineStats",
    "EngineStopped",
    "Finish",
    "FinishReason",
    "GenerationFailed",
    "InvalidParameter",
    "Join",
    "Limits",
    "LoadError",
    "LogprobsMode",
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
    "SequenceStats",
    "StepOutput",
    "StepStats",
    "TemplateError",
    "Token",
    "TopToken",
    "Usage",
]
