"""Generation options that make sense, and what they leave unsaid."""

from __future__ import annotations

from ml_pipeline.backends.interface import GenerationOptions
from ml_pipeline.errors import BackendError

PENALTY_WINDOW = 64
"""How many tokens back the repeat penalty looks."""


def check_options(options: GenerationOptions) -> None:
    """Raise BackendError, naming every problem, for options that make no sense."""
    problems = []
    if options.max_tokens < 1:
        problems.append(f"max_tokens is {options.max_tokens}; it must be at least 1")
    if not 0 <= options.temperature < float("inf"):
        problems.append(f"temperature is {options.temperature}; it must be 0 or more")
    if options.top_k < 0:
        problems.append(f"top_k is {options.top_k}; it must be 0 (off) or more")
    if not 0 < options.top_p <= 1:
        problems.append(f"top_p is {options.top_p}; it must be above 0 and at most 1 (off)")
    if not 0 < options.repeat_penalty < float("inf"):
        problems.append(f"repeat_penalty is {options.repeat_penalty}; it must be above 0 (1 is off)")
    if problems:
        raise BackendError.from_problems("generation options", problems)
