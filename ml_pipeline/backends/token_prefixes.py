"""Token sequences that begin alike: what prompts share, and how labels continue a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ml_pipeline.errors import BackendError

Tokens = npt.NDArray[np.int32]


def shared_prefix(first: Tokens, second: Tokens) -> int:
    """Count the tokens that two prompts begin with in common."""
    size = min(len(first), len(second))
    if size == 0:
        return 0
    equal = first[:size] == second[:size]
    return size if equal.all() else int(equal.argmin())


def split_labels(
    index: int, text: str, labels: Sequence[str], tokenize: Callable[[str], Tokens], context_tokens: int
) -> tuple[Tokens, list[Tokens]]:
    """Return the tokens with which (text + label) begins for every label, and what follows for each.

    Text and label are tokenised together, so that a label reads as it would in a document.

    Raises:
        BackendError: text number `index` or a label is empty, or both are longer than the context.
    """
    alone = tokenize(text)
    whole = [tokenize(text + label) for label in labels]
    common = min((shared_prefix(alone, tokens) for tokens in whole), default=0)
    longest = max((len(tokens) for tokens in whole), default=0)
    if common == 0 or any(len(tokens) == common for tokens in whole):
        raise BackendError(f"text {index}: neither texts nor labels may be empty")
    if longest > context_tokens:
        raise BackendError(
            f"text {index}: {longest} tokens with its longest label, but the context holds {context_tokens}. "
            "Raise context_tokens or shorten the text."
        )
    return alone[:common], [tokens[common:] for tokens in whole]
