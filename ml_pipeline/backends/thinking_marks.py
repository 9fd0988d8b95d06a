"""The one list of the marks that models put around their thinking. Taking it out is `scoring.thinking`.

Where such a mark is a control token, a backend gives its text all the same: without it nobody could tell the thinking
from the answer.
"""

from __future__ import annotations

import re

ASSISTANT = r"(?:<\|(?:start|begin)\|>\s*assistant\s*)?"
"""What gpt-oss and Solar Open begin a message with."""

THINKING_MARKS: tuple[tuple[str, str], ...] = (
    # Qwen, DeepSeek-R1, SmolLM3, GLM, Nemotron and most others; Seed-OSS says <seed:think>, MiniMax-M3 <mm:think>.
    # <thinking> counts as <think>.
    (r"<(?:[a-z]\w*:)?think(?:ing)?\s*>", r"</(?:[a-z]\w*:)?think(?:ing)?\s*>"),
    # EXAONE Deep and others.
    (r"<thoughts?\s*>", r"</thoughts?\s*>"),
    # Recipes for GRPO.
    (r"<reasoning\s*>", r"</reasoning\s*>"),
    # Magistral, Ministral.
    (r"\[THINK\]", r"\[/THINK\]"),
    # Command A, Command R7B.
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),
    # gpt-oss: every channel but the last one, "final", is the model's own.
    (
        rf"{ASSISTANT}<\|channel\|>\s*(?!final\b)\w[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>",
        rf"(?:<\|end\|>\s*)?{ASSISTANT}<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>",
    ),
    # Gemma 4.
    (r"<\|channel>(?:\s*thought\b)?", r"<channel\|>"),
    # Kimi-VL.
    ("◁think▷", "◁/think▷"),
    # Sky-T1, OpenThinker.
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),
    # Apertus.
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),
    # Solar Open.
    (rf"{ASSISTANT}<\|think\|>", rf"(?:<\|end\|>\s*)?{ASSISTANT}<\|content\|>"),
    # MedGemma.
    (r"<unused94>(?:\s*thought\b)?", r"<unused95>"),
)
"""What opens a model's thinking and what closes it, as regular expressions without regard to case."""

THINKING_HINT = (
    r"(?i)</?(?:[a-z]\w*:)?(?:think|thought|reasoning)|\[/?THINK\]|◁"
    r"|<\|?(?:START_THINKING|END_THINKING|channel|begin_of_thought|end_of_thought|inner_|think|content|unused9[45])"
)
"""Found in every text with a mark, and in few others; for RE2 as well as `re`."""

_PARTS = frozenset({"<|start|>", "<|begin|>", "<|constrain|>", "<|message|>", "<|end|>"})


def is_thinking_token(text: str) -> bool:
    """Whether a control token of this text is a mark of thinking, or a part of one."""
    return text in _PARTS or re.match(THINKING_HINT, text) is not None
