"""The process that renders chats by the model's template, which is a program of somebody else's.

`python -m engine.chat_process`: reads a line with the template, answers one when it is ready, then
one for each chat. A child renders; it sets itself an alarm that nothing in it can catch, so that
the kernel ends it on time, and the next child is forked from what is loaded already. Ends with its
standard input. Loads no torch.
"""

import os
import signal
import sys

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from engine.chat import (
    FREE_CHARACTERS,
    MAX_GROWTH,
    MAX_RENDER_BYTES,
    MAX_RENDER_S,
    Template,
    answer,
    read_question,
    read_template,
)
from engine.child import limit_memory

_OVER = 0
"""There are no more questions."""
_RENEW = 1
"""Another child is to go on: this one has touched the end of its memory."""


class Library:
    """As much of a tokenizer of transformers as its own rendering looks at."""

    apply_chat_template = PreTrainedTokenizerBase.apply_chat_template
    get_chat_template = PreTrainedTokenizerBase.get_chat_template

    def __init__(self, template: Template) -> None:
        self.chat_template = template.chat_template
        self.special_tokens_map = template.special_tokens

    def render(self, line: bytes) -> str:
        """Render a question's chat; raises whatever the template does, ValueError if it is long."""
        chat = read_question(line)
        text = str(
            self.apply_chat_template(
                list(chat.messages),
                tokenize=False,
                add_generation_prompt=not chat.is_continued,
                continue_final_message=chat.is_continued,
                **chat.variables,
            )
        )
        limit = FREE_CHARACTERS + MAX_GROWTH * len(line)
        if len(text) > limit:
            raise ValueError(f"the rendered chat may have {limit} characters. It has {len(text)}")
        return text


def main() -> None:
    """Serve until there are no more chats to render."""
    # who stops the server lets it finish what it has; it ends us
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    library = Library(read_template(sys.stdin.buffer.readline()))
    line = answer("")
    while True:
        try:
            _write(line)
        except BrokenPipeError:
            return
        child = os.fork()
        if child == 0:
            os._exit(_serve(library))
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _OVER:
            return
        line = _refusal_of_the_dead(status)


def _serve(library: Library) -> int:
    """Render chat after chat; return how this child is to exit."""
    limit_memory(MAX_RENDER_BYTES)
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_REAL, MAX_RENDER_S)  # its signal ends a process
        try:
            answered = answer(library.render(line))
        except MemoryError:
            return _RENEW
        except Exception as error:  # a template is a program: it may raise anything
            answered = answer(None, str(error) or type(error).__name__)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _write(answered)
    return _OVER


def _refusal_of_the_dead(status: int) -> bytes:
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return answer(None, f"rendering the chat takes more than {MAX_RENDER_S} s")
    return answer(None, f"rendering the chat takes more than {MAX_RENDER_BYTES // 2**20} MiB")


def _write(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
