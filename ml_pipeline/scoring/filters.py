"""The named filters of answers: small steps over a whole column, one after another.

A filter maps strings to strings; null means that it found nothing, and stays null. All patterns are RE2's, so that no
answer can make one slow. `suites.filters` has the names that a suite may use, and the form in YAML.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.scoring.filter_numbers import first_number, last_number, number
from ml_pipeline.scoring.plain_text import OWN_ANSWER_HINT, own_answer, plain
from ml_pipeline.scoring.thinking import THINKING_HINT, split_thinking
from ml_pipeline.suites.filters import RegexFilter
from ml_pipeline.suites.patterns import first_matches

Filter = Callable[[pa.Array], pa.Array]

_SENTENCE = r"(?P<found>[^\n]*?)[*_]*(?:[.!?][*_\")]*(?:\s|\z)|\n|\z)"


def extract(texts: pa.Array, filters: Sequence[str | RegexFilter]) -> pa.Array:
    """What a pipeline of filters makes of each text; null where one of them found nothing.

    Raises KeyError for a name that is no filter; names out of a loaded suite are.
    """
    for step in filters:
        texts = first_matches(step.regex, texts) if isinstance(step, RegexFilter) else FILTERS[step](texts)
    return texts


def _where(pattern: str, change: Callable[[str], str]) -> Filter:
    """A filter that works text by text, on the few texts that hold something to work on."""

    def apply(texts: pa.Array) -> pa.Array:
        hit = pc.fill_null(pc.match_substring_regex(texts, pattern=pattern), False)
        if not pc.any(hit).as_py():
            return texts
        changed = [change(text) for text in texts.filter(hit).to_pylist()]
        return pc.replace_with_mask(texts, hit, pa.array(changed, texts.type))

    return apply


def _find(pattern: str) -> Filter:
    return lambda texts: pc.struct_field(pc.extract_regex(texts, pattern=pattern), "found")


def _first_of(*filters: Filter) -> Filter:
    return lambda texts: pc.coalesce(*(one(texts) for one in filters))


_after_hashes = _find(r"(?s).*####[ \t]*(?P<found>[^\n]+)")
_boxed = _find(r"(?s).*\\(?:boxed|fbox)\s*\{(?P<found>[^{}]*)\}")
_after_answer = _find(rf"(?is).*\banswer\b[*_]*\s*(?:is|:|=)[\s*_:]*(?-i:{_SENTENCE})")
_marked = _first_of(_after_hashes, _boxed, _after_answer, lambda texts: texts)
_letter = _find(r"\A[\s(*\"'`\[{$_]*(?P<found>[A-Za-z])[\s)\].:*\"'`}$_]*\z")
_last_capital = _find(
    r"(?s)(?:\A|.*[\s(*\"'`\[{$:_\x{3000}-\x{ffef}])(?P<found>[A-Z])(?:[)\].,:;*\"'`}$_\x{3000}-\x{ffef}]|\s*\n|\s*\z)"
)


def _lm_eval_last_number(texts: pa.Array) -> pa.Array:
    """The last match of lm-evaluation-harness's (-?[$0-9.,]{2,})|(-?[0-9]+): the last run of these characters that has
    two of them or is a digit, with the minus before it, since `findall` takes runs whole."""
    parts = pc.extract_regex(
        texts, pattern=r"(?s)\A(?:.*(?P<minus>[^$0-9.,]))?(?P<run>[$0-9.,]{2,}|[0-9])(?:[^$0-9.,].*)?\z"
    )
    run = pc.struct_field(parts, "run").cast(pa.string())
    return pc.if_else(pc.equal(pc.struct_field(parts, "minus"), "-"), pc.binary_join_element_wise("-", run, ""), run)


FILTERS: dict[str, Filter] = {
    "strip_thinking": _where(THINKING_HINT, lambda text: split_thinking(text).answer),
    "own_answer": _where(OWN_ANSWER_HINT, own_answer),
    "plain": _where(r"[^\x01-\x0c\x0e-\x7f]|\\|\{,\}|[\^_]\{", plain),
    "strip": pc.utf8_trim_whitespace,
    "lowercase": pc.utf8_lower,
    "first_line": _find(r"\A\s*(?P<found>[^\n]*[^\s])"),
    "last_line": _find(r"(?P<found>[^\s\n][^\n]*)\s*\z"),
    "marked": _marked,
    "after_hashes": _after_hashes,
    "boxed": _boxed,
    "after_answer": _after_answer,
    "bold": _find(r"(?s).*\*\*(?P<found>[^*\n]+)\*\*"),
    "number": number,
    "first_number": first_number,
    "last_number": last_number,
    "letter": _letter,
    "last_letter": _first_of(_last_capital, lambda texts: _letter(_marked(texts))),
    "lm_eval_last_number": _lm_eval_last_number,
}
"""Every filter by its name.

strip_thinking: without thinking, in the marks of any model. own_answer: up to a question of the model's own ("Question:
..."). plain: LaTeX unwrapped, look-alike characters folded. strip: without white
space at the ends. first_line, last_line: the first or last that holds something. after_hashes, boxed, after_answer,
bold: what the last `####`, `\\boxed{}`, "answer is" or `**...**` marks; marked: the first of hashes, box and
"answer is" that is there, else the text.
number: the text if it is nothing but a number. letter: the same for the letter of a choice. last_letter:
the last capital one that stands alone, else the letter that marked leaves. lm_eval_last_number: what
flexible-extract of lm-evaluation-harness's gsm8k takes.
"""
