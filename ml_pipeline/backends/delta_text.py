"""The text of a chat answer: what the server parts from it, thoughts and calls of tools, goes back into it.

Servers send `content` as a text, as null, or as a list of parts (OpenAI's `text` and `refusal`, Mistral's `thinking`).
"""

from __future__ import annotations

import json
from typing import Any

from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.printable import printable

_THINK, _END_THINK = "<think>", "</think>"
# mlx_lm.server and Ollama say the first, llama-server, DeepSeek and older vLLM the second.
_THOUGHTS = ("reasoning", "reasoning_content")
_ANSWERS = {"text": "text", "output_text": "text", "refusal": "refusal"}
_THINKING_PARTS = {"thinking": "thinking", "reasoning": "reasoning", "reasoning_text": "text"}


class DeltaText:
    """Reads the parts of one answer in their order. `content` is what was said so far beside thoughts and calls."""

    def __init__(self) -> None:
        self._thinking = False
        self._content: list[str] = []

    @property
    def content(self) -> str:
        """The answer itself: what a schema holds for."""
        return "".join(self._content)

    def text_of(self, delta: Any) -> str:
        """The text of one `delta`, or of a whole `message`; empty for anything else.

        Raises:
            HttpError: its content is neither text nor parts of text: an image, a number.
        """
        if not isinstance(delta, dict):
            return ""
        pieces = []
        thought = next((found for name in _THOUGHTS if (found := _thought(delta.get(name)))), "")
        # What a model answers when it declines has no content, but a field of its own.
        refusal = delta.get("refusal")
        parts = [(True, thought), *_parts(delta.get("content"), "content"), *_parts(refusal, "refusal")]
        for is_thought, text in parts:
            if text:
                mark = "" if is_thought is self._thinking else _THINK if is_thought else _END_THINK
                pieces.append(mark + text)
                self._thinking = is_thought
                if not is_thought:
                    self._content.append(text)
        if calls := delta.get("tool_calls"):
            pieces.append(f"<tool_call>{json.dumps(calls)}</tool_call>")
        return "".join(pieces)


def message_text(answer: dict[str, Any]) -> str:
    """What a whole chat answer says, without thoughts; raises HttpError where it holds no such text."""
    try:
        message = answer["choices"][0]["message"]
    except (LookupError, TypeError) as error:
        raise HttpError("the server's answer holds no text", again=False) from error
    read = DeltaText()
    read.text_of(message)
    return read.content


def _thought(value: Any) -> str:
    """Thoughts, where they are text; in any other form they are nobody's answer."""
    try:
        return "".join(text for _, text in _parts(value, "reasoning"))
    except HttpError:
        return ""


def _parts(content: Any, where: str) -> list[tuple[bool, str]]:
    """The pieces of a content in their order, each with whether it is a thought."""
    if content is None:
        return []
    if isinstance(content, str):
        return [(False, content)]
    found: list[tuple[bool, str]] = []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            found.append((False, part))
            continue
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if kind in _THINKING_PARTS:
            thought = part.get(_THINKING_PARTS[kind], part.get("text"))
            found += [(True, text) for _, text in _parts(thought, where)]
        elif kind in _ANSWERS and isinstance(text := part.get(_ANSWERS[kind]), str):
            found.append((False, text))
        else:
            what = f"a part of type {printable(kind, 40)}" if isinstance(part, dict) else type(part).__name__
            raise HttpError(f"the server's {where} holds {what}, which is no text", again=False)
    return found
