"""Log-probabilities of tokens out of a server's completion (`/v1/completions`), in the forms that servers give them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from ml_pipeline.backends.http.chat import log_probability, token_bytes

Tokens = list[tuple[str, float | None]]
"""Tokens with their log-probabilities; that of the first one of a prompt is not known."""

# The same numbers from one token at a time and from many at once: rounding of a quantised model, several times over.
_AGREEMENT = 0.25


def text_of(answer: dict[str, Any]) -> str:
    """The text of the answer; empty where there is none."""
    return str(_choice(answer).get("text") or "")


def generated(answer: dict[str, Any]) -> Tokens | None:
    """The tokens of an answer in OpenAI's older form (lists side by side); None in any other."""
    found = _choice(answer).get("logprobs")
    tokens, values = (found.get("tokens"), found.get("token_logprobs")) if isinstance(found, dict) else (None, None)
    if not isinstance(tokens, list) or not isinstance(values, list) or len(tokens) != len(values) or not tokens:
        return None
    if not all(isinstance(token, str) for token in tokens):
        return None
    return [(token, log_probability(value)) for token, value in zip(tokens, values, strict=True)]


def echoed(answer: dict[str, Any], prompt: str) -> Tokens | None:
    """The prompt's own tokens, where the server repeats them; None where they do not join to the prompt.

    A BOS token at the beginning and the blank that sentencepiece puts before a text are allowed for. What does not join
    because a character is cut into several tokens is not guessed at.
    """
    tokens = generated(answer) or []
    for skipped in (0, 1):
        joined = ""
        for count, (token, _) in enumerate(tokens[skipped:], skipped + 1):
            joined += token
            if joined in (prompt, f" {prompt}"):
                return tokens[:count]
            if len(joined) > len(prompt) + 1:
                break
    return None


def agree(made: Tokens, repeated: Tokens) -> bool:
    """Whether the tokens that a server made have the same log-probabilities when it repeats them.

    Their text may be cut into other tokens when it is read again: from there on nothing is compared.
    """
    pairs = list(takewhile(lambda pair: pair[0][0] == pair[1][0], zip(made, repeated, strict=False)))
    return bool(pairs) and all(
        first is not None and second is not None and abs(first - second) <= _AGREEMENT
        for (_, first), (_, second) in pairs
    )


def labels_by_echo(echoes: Sequence[Tokens | None]) -> list[float] | None:
    """Log-probability of each label out of the tokens of the text alone and those of the text with each label.

    Where a label changes how the end of the text is cut into tokens, all labels are scored from the last common token.
    """
    known = [tokens for tokens in echoes if tokens is not None]
    if len(known) < len(echoes):
        return None
    words = [[token for token, _ in tokens] for tokens in known]
    common = min(_shared(words[0], other) for other in words[1:])
    tails = [[value for _, value in tokens[common:]] for tokens in known[1:]]
    if common == 0 or not all(tails):
        return None
    sums = [[value for value in tail if value is not None] for tail in tails]
    if any(len(some) < len(tail) for some, tail in zip(sums, tails, strict=True)):
        return None
    return [sum(some) for some in sums]


def labels_by_first_token(answer: dict[str, Any], labels: Sequence[str]) -> list[float] | None:
    """Log-probability of each label as the single next token; None unless every one is among those that are told."""
    likeliest = _likeliest(_choice(answer).get("logprobs"))
    found = [likeliest.get(label.encode("utf-8", "replace")) for label in labels]
    known = [value for value in found if value is not None]
    return known if len(known) == len(labels) else None


def _likeliest(found: Any) -> dict[bytes, float]:
    if not isinstance(found, dict):
        return {}
    older, newer = found.get("top_logprobs"), found.get("content")
    pairs: list[tuple[bytes, Any]] = []
    if isinstance(newer, list) and newer and isinstance(newer[0], dict):
        entries = newer[0].get("top_logprobs")
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict):
                pairs.append((token_bytes(entry), entry.get("logprob")))
    elif isinstance(older, list) and older and isinstance(older[0], dict):
        pairs = [(str(token).encode("utf-8", "replace"), value) for token, value in older[0].items()]
    known = [(token, number) for token, value in pairs if (number := log_probability(value)) is not None]
    # Tokens that read alike: the likeliest is the one that the text would be cut into.
    return dict(sorted(known, key=lambda pair: pair[1]))


def _choice(answer: dict[str, Any]) -> dict[str, Any]:
    choices = answer.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def _shared(first: Sequence[str], second: Sequence[str]) -> int:
    same = 0
    while same < min(len(first), len(second)) and first[same] == second[same]:
        same += 1
    return same
