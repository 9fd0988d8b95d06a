"""Where in an answer a model says what its answer is.

Models restate the question, work step by step and chat on after the answer. Every reader (numbers, phrases, ...) goes
through the same places, from the firmest statement to the weakest, and takes the first that it can read.
"""
# ruff: noqa: RUF001  letters of other scripts that look like Latin ones are what is read here

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from ml_pipeline.scoring.plain_text import unmarked

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{[^{}]{0,200}\}){1,200})\}")
_TAGGED = re.compile(r"<(?:final_)?answer>[ \t]*\n?([^<>]{1,400})</(?:final_)?answer>", re.IGNORECASE)
_HASHES = re.compile(r"####[ \t]*(?=\S)")
_MARKER = re.compile(
    r"\b(?:answer|result|solution|output|(?:next|missing|following)(?=[ \t]+(?:\w+[ \t]+)?(?:is|would be|will be)\b))\b"
    r"[*_]*(?:[ \t]+[^\s:=,;]+){0,6}?[ \t]*"
    r"(?::|=|\b(?:is|are|equals|was|would be|will be|must be|should be)\b)[ \t*_]*(?:equal to\b|that\b|:)?",
    re.IGNORECASE,
)
# The word for "answer" or "result" in other languages, with the copula or colon after it.
_FOREIGN_MARKER = re.compile(
    r"\b(?:antwort|ergebnis|lösung|resultat|réponse|résultat|solution|respuesta|resultado|solución|resposta"
    r"|solução|risposta"
    r"|risultato|soluzione|antwoord|uitkomst|odpowiedź|odpowiedzią|wynik|ответ|результат|відповідь|cevap|yanıt"
    r"|sonuç|jawaban"
    r"|jawabannya|hasilnya|svaret|svar|odpověď|απάντηση|αποτέλεσμα|răspunsul|válasz|đáp án|kết quả)\b"
    r"(?:[ \t]+[^\s:=,;]+){0,6}?[ \t]*"
    r"(?::|=|\b(?:ist|lautet|beträgt|est|es|é|è|is|jest|är|adalah|là|este|είναι|это|будет)\b|[-—](?=[ ]))[ \t*_]*:?"
    r"|(?:答案|答え|正解|回答|結果|结果|故选|故選|应选|應選|选择|選擇|选(?=[ ]*[(\[]?[A-Za-z]\b)"
    r"|選(?=[ ]*[(\[]?[A-Za-z]\b)"
    r"|정답|해답|결과|답은|답:|الجواب|الإجابة|النتيجة|الناتج|תשובה|उत्तर|जवाब|উত্তর|คำตอบ|సమాధానం|பதில்|விடை|ಉತ್ತರ"
    r"|ഉത്തരം|જવાબ|ਜਵਾਬ"
    r"|پاسخ|جواب)[ \t*_]*(?:(?:النهائي|النهائية|الصحيحة|الصحيح)[ \t*_]+)?"
    r"(?::|=|\b(?:هو|هي|是)\b|应该是|應該是|就是|是|为|為|は|が|은|는|है|হল|হলো|คือ|[-—])?[ \t*_]*:?",
    re.IGNORECASE,
)
_REVERSED = re.compile(
    r"[ \t]{1,3}(?:is|are)[ \t]+(?:the|my)[ \t]+(?:[a-z]+[ \t]+){0,2}(?:answer|result(?![ \t]+of\b)|solution)\b",
    re.IGNORECASE,
)
_CONCLUSION = re.compile(
    r"(?:\b(?:therefore|thus|hence|consequently|in conclusion|in total|finally|as a result|this means|which means"
    r"|that means|(?:which|that|this) leaves|daher|deshalb|folglich|somit|donc|ainsi|por lo tanto|por tanto"
    r"|entonces|portanto"
    r"|então|quindi|dunque|więc|zatem|значит|следовательно|итак|поэтому|отже|jadi|vậy|yani|dolayısıyla"
    r"|so(?![ \t]+(?:far|that|much|many|on|called|long|is|are|was)\b))\b|→(?=[ ]*[a-z][ ]*=)|所以|因此|よって"
    r"|したがって|따라서|그러므로|इसलिए|لذلك|إذن|অতএব|ดังนั้น),?",
    re.IGNORECASE,
)
_BOLD = re.compile(r"\*\*([^*\n]{1,120})\*\*")
# "i.e.", "approx." and their like end no sentence.
_SENTENCE_END = re.compile(
    r"(?<!\bi\.e)(?<!\be\.g)(?<!\bapprox)(?<!\bRs)(?<!\bNo)(?<!\bvs)(?<!\bca)(?<!\bDr)(?<!\bMr)[.!?][\"')*_]*(?=\s"
    r"|$)|\n"
)
# A first line that is but a step: "x = 5 * 2", "Day 1: 22".
_STEP = re.compile(r"=|[^\W\d_][ ]\d{1,3}:")
_NUMBERED = re.compile(r"[^\W\d_][ ]\d{1,3}:")
# "Solution:" over several lines of working marks none of them.
_HEADING = re.compile(
    r"(?:solution|lösung|solución|solução|soluzione)[*_ \t]*:?[*_ \t]*\n\s*\S[^\n]*\n\s*\S", re.IGNORECASE
)
_WORD = re.compile(r"[^\W_]+|[<>=!]+")
_NOTHING = re.compile(r"[\s*_`:$\"'.\\-]*$")

# No honest answer states itself more often or at more length; the bounds keep hostile ones cheap.
_MOST_STATEMENTS = 20
_MOST_CHARS = 500

Firmness = Literal["stated", "bare", "concluded"]


@dataclass(frozen=True, slots=True)
class Statement:
    """A stretch of the answer, and how it states: after a marker ("stated"), as all there is on its line ("bare"),
    or as the end of an argument or in bold ("concluded")."""

    start: int
    end: int
    firmness: Firmness


def statements(text: str) -> Iterator[Statement]:
    """The statements of a plain text, firmest first; of equally firm ones the last first, since models correct
    themselves onwards."""
    boxed = [Statement(m.start(1), m.end(1), "stated") for pattern in (_BOXED, _TAGGED) for m in _last(pattern, text)]
    yield from sorted(boxed, key=lambda statement: statement.start, reverse=True)
    marked_text, text = text, unmarked(text)
    marked = [
        m.end()
        for pattern in (_HASHES, _MARKER, _FOREIGN_MARKER)
        for m in _last(pattern, text)
        if not _HEADING.match(text, m.start())
    ]
    after = [Statement(*_rest(text, start), "stated") for start in marked]
    before = [Statement(_sentence_start(text, m.start()), m.start(), "stated") for m in _last(_REVERSED, text)]
    yield from sorted(after + before, key=lambda statement: statement.start, reverse=True)
    lines = _edge_lines(text)
    if len(lines) > 1 and _word_count(text, lines[-1], 3):
        yield Statement(*lines[-1], "bare")
    concluded = [Statement(m.end(), _sentence_end(text, m.end()), "concluded") for m in _last(_CONCLUSION, text)]
    yield from reversed(concluded)
    if lines:
        first = (lines[0][0], min(lines[0][1], _sentence_end(text, lines[0][0])))
        step = _NUMBERED.search(text, *first) is not None and first[1] < len(text.rstrip())
        step = step or (len(lines) > 1 and _STEP.search(text, *first) is not None)
        if text[first[1] - 1] != "?" and not step and _word_count(text, first, 4):
            yield Statement(*first, "bare")
    bold = [Statement(m.start(1), m.end(1), "concluded") for m in _last(_BOLD, marked_text)]
    yield from (statement for statement in reversed(bold) if _word_count(text, (statement.start, statement.end), 6))


def sentences(text: str, *, questions: bool = False) -> list[tuple[int, int]]:
    """Start and end of every sentence and line that holds more than white space, questions only where wanted."""
    found: list[tuple[int, int]] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        if (questions or match[0][0] != "?") and text[start : match.start()].strip():
            found.append((start, match.end()))
        start = match.end()
    if text[start:].strip():
        found.append((start, len(text)))
    return found


def is_question(sentence: str) -> bool:
    """Whether a sentence, as `sentences` cuts them, is a question."""
    return sentence.rstrip(" \t\n\"')*_").endswith("?")


@lru_cache(maxsize=512)
def folded_words(text: str) -> str:
    """A text as its lower-case words between single spaces, for finding one text in another."""
    words = " ".join(_WORD.findall(text.casefold()))
    return f" {words} "


def repeats(prompt: str, part: str) -> bool:
    """Whether a part of an answer only restates the prompt: in its words, or one of its sentences with gaps."""
    if not prompt or len(part) > len(prompt) + 8:
        return False
    words = folded_words(part)
    return words in folded_words(prompt) or any(_is_part(words.split(), told) for told in _told(prompt))


def _is_part(words: list[str], sentence: tuple[str, ...]) -> bool:
    """Whether five words or more occur in a sentence in their order, and are most of it."""
    if len(words) < 5 or len(words) * 3 < len(sentence) * 2:
        return False
    following = iter(sentence)
    return all(word in following for word in words)


@lru_cache(maxsize=512)
def _told(prompt: str) -> tuple[tuple[str, ...], ...]:
    """The words of the sentences of a prompt that are no questions."""
    return tuple(tuple(folded_words(prompt[start:end]).split()) for start, end in sentences(prompt)[:100])


def _last(pattern: re.Pattern[str], text: str) -> Iterable[re.Match[str]]:
    return deque(pattern.finditer(text), maxlen=_MOST_STATEMENTS)


def _rest(text: str, start: int) -> tuple[int, int]:
    """From a marker to the end of its sentence; where its line is empty, the next line that is not."""
    end = _sentence_end(text, start)
    while start < end < len(text) and _NOTHING.match(text, start, end):
        start, end = end, _sentence_end(text, end)
    return start, end


def _sentence_end(text: str, start: int) -> int:
    most = min(len(text), start + _MOST_CHARS)
    match = _SENTENCE_END.search(text, start, most)
    return match.end() if match else most


def _sentence_start(text: str, end: int) -> int:
    window = max(0, end - 400)
    last = None
    for last in _SENTENCE_END.finditer(text, window, end):  # noqa: B007  only the last one is wanted
        pass
    return last.end() if last else window


def _edge_lines(text: str) -> list[tuple[int, int]]:
    """The first and the last line that hold something; one entry where they are the same."""
    first = re.search(r"\S[^\n]*", text)
    if first is None:
        return []
    end = len(text.rstrip())
    start = text.rfind("\n", 0, end) + 1
    return [first.span()] if start <= first.start() else [first.span(), (start, end)]


def _word_count(text: str, span: tuple[int, int], most: int) -> bool:
    return span[1] - span[0] <= 200 and len(text[span[0] : span[1]].split()) <= most
