"""Whether an answer is in another language than its prompt, by script and by stop words.

A hint, no more: scripts are told apart by the names of their letters, and seven languages of the Latin script by a
dozen words each. Short answers, code, names, mixed texts and all other languages of one script pass as the same
language; a prompt that asks for a translation is answered in another one rightly.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

_FEWEST_LETTERS = 20
_FEWEST_STOP_WORDS = 5
_CLEARLY = 2
_MAX_CHARS = 4_000
_WORD = re.compile(r"[^\W\d_]+")
_STOP_WORDS = {
    "English": "the and of to is that it for with are this was you have from",
    "German": "der das und ist nicht ein eine mit von den zu auf wird sich dem",
    "French": "le la les et est une dans que pour pas des du sur avec il",
    "Spanish": "el los las y es una en que por con para del se su lo",
    "Italian": "il lo gli e una di che per non con del della sono si nel",
    "Portuguese": "o os e uma em que por com para da se na dos um ao",
    "Dutch": "de het een en van niet dat op te voor zijn er ook maar naar",
}
# None of the other languages' words is one in English too, as "die", "do" and "is" are.
_LANGUAGES: dict[str, list[str]] = {}
for _language, _listed in _STOP_WORDS.items():
    for _stop_word in _listed.split():
        _LANGUAGES.setdefault(_stop_word, []).append(_language)


def other_language(prompt: str, answer: str) -> bool:
    """Whether most letters of the answer are of a script that the prompt does not have, or its stop words clearly of
    another language than the prompt's."""
    scripts, asked = _scripts(answer[:_MAX_CHARS]), _scripts(prompt[:_MAX_CHARS])
    letters = scripts.total()
    if letters < _FEWEST_LETTERS or not asked:
        return False
    script, most = scripts.most_common(1)[0]
    if most > letters / 2 and script not in asked:
        return True
    language = _language_of(answer[:_MAX_CHARS])
    return language is not None and _language_of(prompt[:_MAX_CHARS], fewest=3) not in (None, language)


def _language_of(text: str, fewest: int = _FEWEST_STOP_WORDS) -> str | None:
    """The language whose stop words are clearly the most frequent, or None."""
    hits: Counter[str] = Counter()
    for word in _WORD.findall(text.casefold()):
        hits.update(_LANGUAGES.get(word, ()))
    ranked = [*hits.most_common(2), ("", 0), ("", 0)]
    (first, most), (_, next_most) = ranked[0], ranked[1]
    return first if most >= fewest and most >= _CLEARLY * next_most else None


def _scripts(text: str) -> Counter[str]:
    """How many letters of each script a text has."""
    counts: Counter[str] = Counter()
    for char, count in Counter(text).items():
        if char.isalpha():
            counts[_script(char)] += count
    return counts


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    """The script of a letter: the first word of its Unicode name. Kana and Chinese characters count as one."""
    if char.isascii():
        return "LATIN"
    script = unicodedata.name(char, "UNNAMED").split()[0].split("-")[0]
    return "CJK" if script in ("HIRAGANA", "KATAKANA", "BOPOMOFO") else script
