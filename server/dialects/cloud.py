"""What clouds expect: `/invocations` (SageMaker) and `/vertex` (Vertex AI), over other dialects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import Raw, Struct
from msgspec.structs import replace

from engine import Delta
from server.dialects import tgi_reply, wire
from server.dialects.answers import Predictions
from server.dialects.bodies import ChatBody, GenerateBody, Parameters, VertexBody
from server.dialects.call import Call, EncodedPrompt, Generation
from server.dialects.chat import ChatCall, ChatDialect, chat_call
from server.dialects.chat_reply import ChatReply
from server.dialects.completions import CompletionsDialect
from server.dialects.decode import decode
from server.dialects.tgi import CompatDialect, GenerateCall, NativeDialect, generate_call
from server.dialects.tgi_reply import GenerateReply
from server.errors import ErrorType, Problem, invalid


class InvocationsDialect(NativeDialect):
    """`POST /invocations`: TGI's body, a chat or a completion, told by the key that is there."""

    def parse(self, body: bytes) -> Call:
        """Decode a body by the dialect it is written in."""
        keys = decode(body, _Keys)
        if keys.has("inputs"):
            return CompatDialect(self.config).parse(body)
        if keys.has("messages"):
            return ChatDialect(self.config).parse(body)
        if keys.has("prompt"):
            return CompletionsDialect(self.config).parse(body)
        raise invalid("one of `inputs`, `messages` and `prompt` is missing", "inputs")


class VertexDialect(NativeDialect):
    """`POST /vertex`: several instances in, one text for each out."""

    def parse(self, body: bytes) -> "VertexCall":
        """Decode every instance."""
        instances = decode(body, VertexBody).instances
        if not instances:
            raise invalid("`instances` cannot be empty", "instances")
        most = self.config.max_client_batch_size
        if len(instances) > most:
            message = (
                f"Number of instances exceeds the maximum allowed batch size of {most}. "
                f"Given: {len(instances)}"
            )
            raise Problem(ErrorType.BATCH_SIZE_EXCEEDED, message, "instances")
        return VertexCall(
            tuple(self._call(f"instances[{i}]", bytes(raw)) for i, raw in enumerate(instances))
        )

    def _call(self, path: str, instance: bytes) -> GenerateCall | ChatCall:
        keys = decode(instance, _Keys, within=path)
        if keys.has("inputs"):
            asked = decode(instance, GenerateBody, within=path)
            parameters = asked.parameters or Parameters()
            if parameters.do_sample is None:
                asked = replace(asked, parameters=replace(parameters, do_sample=True))
            return generate_call(self.config, asked)
        if keys.has("messages"):
            return chat_call(self.config, decode(instance, ChatBody, within=path))
        raise invalid(f"`{path}`: one of `inputs` and `messages` is missing", f"{path}.inputs")


@dataclass(frozen=True, slots=True)
class VertexCall:
    """Several calls in one."""

    calls: tuple[GenerateCall | ChatCall, ...]

    @property
    def is_stream(self) -> bool:
        """Never."""
        return False

    @property
    def num_permits(self) -> int:
        """All that the instances need."""
        return sum(call.num_permits for call in self.calls)

    @property
    def headers(self) -> Mapping[str, str]:
        """Nothing to add."""
        return {}

    def generations(self) -> tuple[Generation, ...]:
        """Check every instance's ranges."""
        return tuple(generation for call in self.calls for generation in call.generations())

    def reply(
        self, request_id: str, created_s: int, prompts: Sequence[EncodedPrompt] = ()
    ) -> "VertexReply":
        """Begin the answer."""
        reply = VertexReply()
        for call in self.calls:
            if isinstance(call, ChatCall):
                reply.add(call.whole_reply(request_id, created_s), call.num_permits)
            else:
                reply.add(call.whole_reply(), call.num_permits)
        return reply


@dataclass(eq=False, slots=True)
class VertexReply:
    """One text an instance."""

    _parts: list[GenerateReply | ChatReply] = field(default_factory=list)
    _routes: list[tuple[GenerateReply | ChatReply, int]] = field(default_factory=list)
    """For each sequence of the whole call: its instance's reply, and its index there."""

    def add(self, part: GenerateReply | ChatReply, num_sequences: int) -> None:
        """Take the next instance's reply."""
        self._parts.append(part)
        self._routes += [(part, index) for index in range(num_sequences)]

    def delta(self, index: int, delta: Delta) -> bytes:
        """Hand a delta to the instance it belongs to."""
        part, own_index = self._routes[index]
        return part.delta(own_index, delta)

    def end(self) -> bytes:
        """Render the texts."""
        return wire.dumps(Predictions([part.text for part in self._parts]))

    def problem(self, problem: Problem) -> bytes:
        """Phrase a problem as a whole body: nothing was sent before."""
        return wire.dumps(tgi_reply.error(problem))


class _Keys(Struct):
    """Which of the keys that tell dialects apart are there, and not null."""

    inputs: Raw = Raw(b"null")
    messages: Raw = Raw(b"null")
    prompt: Raw = Raw(b"null")

    def has(self, key: str) -> bool:
        """Tell whether a key is there."""
        return bytes(getattr(self, key)) != b"null"
