"""Whether a text is word salad: a few words and signs in ever changing order, as a model writes that training broke.

A text that says something, in whatever language, as mathematics or as code, uses many different words and signs; their
perplexity (the exponential of the entropy of how often each occurs) says how many. Of 9,679 passages of manual pages in
22 languages, of source code and of data, each of 20 words and signs or more, the lowest was at 6.7; of the 90 answers
of the broken sample run that are as long 74 are below 6.5. Tables of few different cells have as few, but in rows of
one length. What is taken for word salad and is none: few different things on one line, such as the tosses of a coin.
What is not found: a salad of many different words, and a short one.
"""

from __future__ import annotations

import math
import re
from collections import Counter

_TOKEN = re.compile(r"\w+|([^\w\s])\1*")
_FEWEST_TOKENS = 20
_FEWEST_KINDS = 6.5
_FEWEST_ROWS = 3
_FEWEST_CELLS = 3
_ROWS_ALIKE = 0.75


def is_word_salad(text: str) -> bool:
    """Whether a text of 20 words and signs or more has a perplexity below 6.5 and is no table. A run of one sign, such
    as a rule of dashes, counts as one."""
    tokens = _tokens(text)
    if len(tokens) < _FEWEST_TOKENS:
        return False
    shares = [count / len(tokens) for count in Counter(tokens).values()]
    perplexity = math.exp(-sum(share * math.log(share) for share in shares))
    return perplexity < _FEWEST_KINDS and not _is_table(text)


def _tokens(text: str) -> list[str]:
    return [match[0].casefold() for match in _TOKEN.finditer(text)]


def _is_table(text: str) -> bool:
    """Whether most lines have equally many cells, three or more."""
    cells = Counter(count for line in text.splitlines() if (count := len(_tokens(line))))
    most, rows = max(cells.items(), key=lambda pair: pair[1])
    return rows >= _FEWEST_ROWS and most >= _FEWEST_CELLS and rows >= _ROWS_ALIKE * cells.total()
