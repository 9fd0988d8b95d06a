"""The text of a chat answer: what the server parts from it, thoughts and calls of tools, goes back into it."""

from __future__ import annotations

import json
from typing import Any

_THINK, _END_THINK = "<think>", "</think>"
# mlx_lm.server and Ollama say the first, llama-server and vLLM the second.
_THOUGHTS = ("reasoning", "reasoning_content")


class DeltaText:
    """Reads the parts of one answer in their order."""

    def __init__(self) -> None:
        self._thinking = False

    def text_of(self, delta: Any) -> str:
        """The text of one `delta`, or of a whole `message`; empty for anything else."""
        if not isinstance(delta, dict):
            return ""
        pieces = []
        thought = next((delta[name] for name in _THOUGHTS if isinstance(delta.get(name), str)), "")
        if thought:
            pieces.append(thought if self._thinking else _THINK + thought)
            self._thinking = True
        if isinstance(content := delta.get("content"), str) and content:
            pieces.append(_END_THINK + content if self._thinking else content)
            self._thinking = False
        if calls := delta.get("tool_calls"):
            pieces.append(f"<tool_call>{json.dumps(calls)}</tool_call>")
        return "".join(pieces)
