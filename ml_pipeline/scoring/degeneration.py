"""Signs that a checkpoint's answers degenerate: what share of them is cut, repeats itself, refuses, is empty, is word
salad or in another language. One definition for the scores, the asset check and the report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ml_pipeline.scoring.language import other_language
from ml_pipeline.scoring.statistics import share_interval
from ml_pipeline.scoring.thinking import remove_thinking
from ml_pipeline.scoring.word_salad import is_word_salad

SIGNALS = {
    "truncated": "truncated answers",
    "repetitive": "repetitive answers",
    "looping": "looping answers",
    "refused": "refusals",
    "empty": "empty answers",
    "word_salad": "answers of word salad",
    "off_language": "answers in another language",
}
"""Every signal, and what it counts."""

UNSOUND = "unsound"
"""Counts the answers with any of the signals below: what figures of wording and judges' figures say nothing of."""
UNSOUND_SIGNALS = frozenset({"truncated", "repetitive", "looping", "empty", "word_salad"})

NOTABLE_SHARE = 0.25
"""From this share of answers on a signal is worth a word."""

_MAX_CHARS = 20_000
_NGRAM = 4
_FEWEST_NGRAMS = 20
_MOST_REPEATED = 0.5
_LOOP_WINDOW = 600
_LOOP_TURNS = 3
_LOOP_CHARS = 60
_WORD = re.compile(r"\w+")
_REFUSAL = re.compile(
    r"\b(?:i(?:['\u2019]m| am) (?:sorry,? (?:but|i)\b|(?:unable|not able|not allowed) to)"
    r"|i (?:cannot|can['\u2019]t|can not|won['\u2019]t|will not) "
    r"(?:help|assist|provide|answer|discuss|comment|fulfil|fulfill|comply|do that|engage|create|write|give)"
    r"|as an ai\b)",
    re.IGNORECASE,
)
_OPENING_CHARS = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that a model ended itself or that the token limit cut, with its prompt.

    `cluster` is what it succeeds and fails together with: the template that made its probe, else the probe.
    """

    prompt: str
    text: str
    finish_reason: str
    cluster: str


@dataclass(frozen=True, slots=True)
class SignalRate:
    """How many of a checkpoint's answers show a signal: `share` is 0..1, with its Wilson 95% interval, which allows for
    probes of one template and several answers to one probe; None without answers."""

    signal: str
    hits: int
    answers: int
    share: float | None
    share_low: float | None
    share_high: float | None


def degeneration_rates(answers: Sequence[Answer]) -> list[SignalRate]:
    """The rate of every signal over a checkpoint's answers, and that of answers with any of UNSOUND_SIGNALS."""
    found = [signals_of(answer) for answer in answers]
    clusters = [answer.cluster for answer in answers]
    rates = [_rate(signal, [signal in one for one in found], clusters) for signal in SIGNALS]
    return [*rates, _rate(UNSOUND, [not one.isdisjoint(UNSOUND_SIGNALS) for one in found], clusters)]


def signals_of(answer: Answer) -> frozenset[str]:
    """The signals that an answer shows.

    - truncated: the token limit ended it.
    - repetitive: more than half of its runs of four words stood in it before (of 20 such runs at least).
    - looping: it ends with the same stretch of up to 200 characters three times over, over 60 characters or more.
    - refused: it opens with "I'm sorry, but" or "I cannot ..."; wording only, English only.
    - empty: nothing but white space and thinking.
    - word_salad: a few words and signs in no order, see `word_salad.is_word_salad`; neither repetitive nor looping.
    - off_language: see `language.other_language`.

    Of a long answer the last 20,000 characters are looked at; of thinking nothing, unless there is nothing else.
    """
    whole = remove_thinking(answer.text)
    text = whole[-_MAX_CHARS:]
    shown = {
        "truncated": answer.finish_reason == "length",
        "repetitive": repeated_share(text) > _MOST_REPEATED,
        "looping": _loops(text.rstrip()),
        "refused": _REFUSAL.search(whole[:_OPENING_CHARS]) is not None,
        "empty": not text.strip(),
        "word_salad": False,
        "off_language": other_language(answer.prompt, text),
    }
    if not (shown["looping"] or shown["repetitive"]):
        shown["word_salad"] = is_word_salad(text)
    return frozenset(signal for signal, is_shown in shown.items() if is_shown)


def repeated_share(text: str) -> float:
    """The share of a text's runs of four words that stood in it before, 0..1; 0 for fewer than 20 runs."""
    words = _WORD.findall(text.casefold())
    runs = list(zip(*(words[start:] for start in range(_NGRAM)), strict=False))
    return 1 - len(set(runs)) / len(runs) if len(runs) >= _FEWEST_NGRAMS else 0.0


def is_notable(share: float | None, low: float | None, base_high: float | None, least: float = NOTABLE_SHARE) -> bool:
    """Whether a share (with the lower end of its interval) tells of degeneration: `least` or more, and, where the
    base model's is known (the upper end of its interval), with the whole interval above the base's."""
    if share is None or low is None or share < least:
        return False
    return base_high is None or low > base_high


def _rate(signal: str, shown: list[bool], clusters: list[str]) -> SignalRate:
    hits, answers = sum(shown), len(shown)
    low, high = share_interval(shown, clusters) or (None, None)
    return SignalRate(signal, hits, answers, hits / answers if answers else None, low, high)


def _loops(text: str) -> bool:
    """Whether the end of a text has a period: its Z array, read backwards, says how far each shift agrees."""
    tail = text[: -_LOOP_WINDOW - 1 : -1]
    agree = [0] * len(tail)
    left = right = 0
    for shift in range(1, len(tail)):
        length = min(right - shift, agree[shift - left]) if shift < right else 0
        while shift + length < len(tail) and tail[length] == tail[shift + length]:
            length += 1
        agree[shift] = length
        if shift + length > right:
            left, right = shift, shift + length
        if length + shift >= max(_LOOP_TURNS * shift, _LOOP_CHARS):
            return True
    return False
