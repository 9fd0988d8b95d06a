"""Taking a model's thinking out of its answer before the answer is checked."""

from __future__ import annotations

import re

_TAG = re.compile(r"<(/?)think(?:ing)?\s*>", re.IGNORECASE)


def remove_thinking(text: str) -> str:
    """The answer without its `<think>...</think>` blocks; the raw text where nothing else is left.

    A block that is never closed runs to the end. A closing tag without an opening one ends thinking that the chat
    template opened, so all before it goes. Blocks may be nested. `<thinking>` counts as `<think>`. The original's
    rule, made whole for what it left open.
    """
    kept: list[str] = []
    depth, position = 0, 0
    for tag in _TAG.finditer(text):
        if tag[1]:
            if depth == 0:
                kept.clear()
            depth = max(depth - 1, 0)
        else:
            if depth == 0:
                kept.append(text[position : tag.start()])
            depth += 1
        position = tag.end()
    if depth == 0:
        kept.append(text[position:])
    answer = "".join(kept).strip()
    return answer if answer else text


def holds_thinking(text: str) -> bool:
    """Whether there is a thinking tag in the text: after `remove_thinking` only where there was nothing else."""
    return _TAG.search(text) is not None
