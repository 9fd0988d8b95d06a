"""The heuristic suite: eight figures of a text's wording and their composite, LEK, without any model.

The formulas are the original's (go-ml), kept to the letter so that its history stays comparable: bytes where it
counted bytes, sentences cut at every full stop, word bounds of ASCII only, and case, white space and patterns as Go
has them, which is as RE2 has them. LEK measures style, not quality.

A whole column is scored at once, by Arrow's RE2 and by `text_bytes`; one text is a column of one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.scoring.heuristic_patterns import (
    AXIOM,
    COMPLIANCE,
    EMOTION,
    FIRST_PERSON,
    IMAGE,
    KELVIN,
    LONG_S,
    PREAMBLE,
    STORY_OPENING,
    TECHNICAL,
)
from ml_pipeline.scoring.text_bytes import Flags, Ints, TextBytes

WEIGHTS = {
    "engagement_depth": 2.0,
    "creative_form": 3.0,
    "emotional_register": 2.0,
    "first_person": 1.5,
    "compliance_markers": -5.0,
    "formulaic_preamble": -3.0,
    "degeneration": -4.0,
    "empty_broken": -20.0,
}
BATCH_TEXTS = 1000
BATCH_BYTES = 2**20
"""A batch ends with the text that fills either: memory grows with the longest text, not with the column."""

_HALF_WAY = 10.0


@dataclass(frozen=True, slots=True)
class HeuristicScore:
    """The figures of one text. Higher is more for each; `empty_broken` and `formulaic_preamble` are 0 or 1.

    `lek_normalised` is LEK bent into 0..1, see `normalised_lek`.
    """

    compliance_markers: float
    formulaic_preamble: float
    first_person: float
    creative_form: float
    engagement_depth: float
    emotional_register: float
    degeneration: float
    empty_broken: float
    lek: float
    lek_normalised: float


FIGURES: tuple[str, ...] = tuple(HeuristicScore.__dataclass_fields__)


def score_heuristic(text: str) -> HeuristicScore:
    """Score a text. Every text has figures, the empty one too; whether an answer is worth scoring is the caller's
    question."""
    return HeuristicScore(**heuristic_columns(text_column([text])).to_pylist()[0])


def heuristic_columns(texts: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The figures of a column of texts: one row a text, one float64 column for each field of HeuristicScore.

    A null text has null figures. Memory beyond the result is bounded by the batch, see BATCH_TEXTS and BATCH_BYTES.

    Raises TypeError when the column does not hold strings.
    """
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        raise TypeError(f"heuristic_columns takes a column of strings, not of {texts.type}; cast it first.")
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    schema = pa.schema([(name, pa.float64()) for name in FIGURES])
    return pa.Table.from_batches([_figures(batch) for chunk in chunks for batch in _batches(chunk)], schema=schema)


def text_column(texts: Iterable[str | None]) -> pa.Array:
    """Texts as Arrow takes them, see `well_formed`."""
    return pa.array([None if text is None else well_formed(text) for text in texts], pa.large_string())


def normalised_lek(lek: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """LEK bent into 0..1: 0.5 + 0.5 * lek / (10 + |lek|).

    0 becomes 0.5, 10 becomes 0.75 and -10 becomes 0.25. Strictly monotone, so that it ranks as LEK does. (Ours; the
    original has the raw figure only.)
    """
    return 0.5 + 0.5 * lek / (_HALF_WAY + np.abs(lek))


def well_formed(text: str) -> str:
    """A text that UTF-8 can hold: a lone surrogate becomes U+FFFD, and a pair of them the sign that it stands for, as
    in the original, whose JSON reader does so."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _batches(texts: pa.Array) -> Iterable[pa.Array]:
    sizes = np.cumsum(pc.fill_null(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False))
    start = 0
    while start < len(texts):
        done = sizes[start - 1] if start else 0
        end = min(start + BATCH_TEXTS, int(np.searchsorted(sizes, done + BATCH_BYTES)) + 1, len(texts))
        yield texts[start:end]
        start = end


def _figures(texts: pa.Array) -> pa.RecordBatch:
    missing = pc.is_null(texts).to_numpy(zero_copy_only=False) if texts.null_count else None
    known = texts if missing is None else pc.fill_null(texts, "")
    raw = TextBytes.of(known)
    empty_or_error = (raw.sizes == 0) | _flags(pc.starts_with(known, pattern="ERROR"))
    figures: dict[str, Ints] = {
        "compliance_markers": _count_words(known, raw, COMPLIANCE),
        "formulaic_preamble": _matches(known, PREAMBLE).astype(np.int64),
        "first_person": _count(known, FIRST_PERSON),
        "creative_form": _creative_form(known, raw),
        "engagement_depth": np.where(empty_or_error, 0, _engagement_depth(known, raw)),
        "emotional_register": np.minimum(_count_words(known, raw, EMOTION), 10),
        "degeneration": _degeneration(known, raw),
        "empty_broken": (empty_or_error | (raw.sizes < 10) | raw.has(b"<pad>") | raw.has(b"<unused")).astype(np.int64),
    }
    columns = {name: value.astype(np.float64) for name, value in figures.items()}
    # Added one after another: a matrix product may add in another order, and differ in the last digit.
    columns["lek"] = np.add.reduce([weight * columns[name] for name, weight in WEIGHTS.items()])
    columns["lek_normalised"] = normalised_lek(columns["lek"])
    return pa.RecordBatch.from_pydict({name: pa.array(columns[name], mask=missing) for name in FIGURES})


def _creative_form(texts: pa.Array, raw: TextBytes) -> Ints:
    lines = raw.split(b"\n")
    short = np.bincount(lines.owner[lines.ends - lines.starts < 60], minlength=len(texts))
    many = (lines.counts > 6) & (short * 2 > lines.counts)
    images = np.minimum(_count_words(texts, raw, IMAGE), 3)
    return 2 * many + _matches(texts, STORY_OPENING) + images


def _engagement_depth(texts: pa.Array, raw: TextBytes) -> Ints:
    marked = raw.has(b"##") | raw.has(b"**")
    technical = np.minimum(_count_words(texts, raw, TECHNICAL), 3)
    words = raw.word_counts
    return marked + 2 * _matches(texts, AXIOM) + technical + (words > 200) + (words > 400)


def _degeneration(texts: pa.Array, raw: TextBytes) -> Ints:
    sentences = raw.trimmed(raw.split(b"."))
    repeated = 1 - raw.distinct(sentences) / np.maximum(sentences.counts, 1)
    grade = np.select([repeated > 0.5, repeated > 0.3, repeated > 0.15], [5, 3, 1], 0)
    return np.where(sentences.counts == 0, 10, grade)


def _count_words(texts: pa.Array, raw: TextBytes, pattern: str) -> Ints:
    counts = _count(texts, pattern)
    folded = raw.has(LONG_S) | raw.has(KELVIN)
    if folded.any():
        # Arrow forgets what stood before the rest that it searches on in, and a word that begins with one of these two
        # has a bound only after another letter. Replacing forgets nothing.
        some = texts.filter(pa.array(folded))
        marked = pc.replace_substring_regex(some, pattern=pattern, replacement="\0")
        counts[folded] = pc.subtract(pc.count_substring(marked, "\0"), pc.count_substring(some, "\0")).to_numpy()
    return counts


def _count(texts: pa.Array, pattern: str) -> Ints:
    counts: Ints = pc.count_substring_regex(texts, pattern=pattern).to_numpy().astype(np.int64)
    return counts


def _matches(texts: pa.Array, pattern: str) -> Flags:
    return _flags(pc.match_substring_regex(texts, pattern=pattern))


def _flags(values: pa.Array) -> Flags:
    flags: Flags = values.to_numpy(zero_copy_only=False)
    return flags
