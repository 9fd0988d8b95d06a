"""Reading the letter of a multiple choice that an answer states, or the text that stands for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from ml_pipeline.scoring.phrases import find_mentions, folded, is_correction, stated_phrase
from ml_pipeline.scoring.plain_text import unmarked
from ml_pipeline.scoring.statements import Statement, repeats, sentences, statements

_DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|rather than|instead of|nicht|pas|no es|não|не)"
    r"|n't)(?:[ ]+(?!but\b)[\w'-]{1,12}){0,2}[ ]+[(\"'\[]*\Z"
    r"|(?:不是|不选|ではなく)[ ]*\Z",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"[)\].:\"']*(?:[ ]+[^\s.]{1,20}){0,2}?[ ]+(?:is|are|was|would be|can|could)(?:n't|[ ]+not|[ ]+(?:wrong"
    r"|incorrect|false|ruled out|out|excluded|eliminated))\b"
    r"|[)\].]?[^\n.;]{0,60}?[ ][-:=][ ]*(?:no|false|wrong|incorrect|\u2717|\u2718|\u274c)(?![\w ]*\w)"
    r"|[)\]]*(?:不对|是错|错误|ではない)",
    re.IGNORECASE,
)
_CUE = re.compile(
    r"(?:\b(?:options?|choices?|letter|answer|operator|pick|choose|select|opción|opcion|opção|alternativa|réponse"
    r"|respuesta|resposta|risposta"
    r"|antwort|option|вариант|ответ|буква|pilihan|jawaban|seçenek|cevap|đáp án|svar|odpowiedź|antwoord)\b|选项?"
    r"|選項?|答案|正解|答え|정답|답|उत्तर|विकल्प|الجواب|الإجابة|الخيار)"
    r"[ \"']*(?::|=|is|are|es|est|ist|é|è|was|would be|must be|lautet|หคือ|कोई|है|是|为|為|は|が|은|는|هو|هي"
    r"|-)?[ :]*[(\[\"'{]*\Z",
    re.IGNORECASE,
)
# "C is right" after what was said of the others.
_CONFIRMED = (
    r"(?<![A-Za-z0-9_'])(?P<letter>[{}])[)\]}}\"'*]*(?:[ ]+\S{{1,16}})?[ ]+is[ ]+(?:the[ ]+)?(?:right|correct)\b"
)
_DENIED_FRAME = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot|rather than|instead of)|n't|[^a-z ])(?:[ ]+(?:be|the|option|choice|answer"
    r"|letter|likely|really))*[ ]*\Z",
    re.IGNORECASE,
)
_OPTION = re.compile(r"\s*[(\[]?[A-Z][)\].:]")
_UNDECIDED = re.compile(r"(?<![\w'])[(\[]?[A-Z][)\]]?[ ]+or[ ]+[(\[]?[A-Z][)\]]?(?=[.,;!]|\s*\Z|\s*\n)")


def stated_choice(text: str, choices: Mapping[str, str], prompt: str = "") -> str | None:
    """The letter that the plain text states, or None.

    A letter counts when it stands alone ("C", "(C)", "C)", "option C"), so that the article "A" is not read as one; a
    small one also where a cue goes before it ("answer: c"). Of equally firm statements the last counts, be it by its
    letter or by its text.
    """
    shown = unmarked(text)
    letters = "".join(choices)
    whole = re.fullmatch(rf"[\W_]*([{letters}{letters.lower()}])[\W_]*", shown)
    if whole:
        return whole[1].upper()
    standing, small, right = _patterns(letters)
    by_text = {folded(content): letter for letter, content in choices.items()}
    answered = list(_spans(text, shown, prompt))
    for statement in answered:
        found = _letter(shown, statement, standing, small, right)
        if found and _UNDECIDED.search(shown, statement.start, statement.end):
            return None
        if found is None and len(folded(shown)) == len(shown):
            found = _by_text(shown, statement, by_text, choices)
        elif found is None:
            found = _by_text(shown[statement.start : statement.end], None, by_text, choices)
        if found:
            return found
    named = stated_phrase(text, list(choices.values()), prompt=prompt)
    return by_text.get(folded(named)) if named is not None else None


def _spans(text: str, shown: str, prompt: str) -> Iterator[Statement]:
    yield from statements(text)
    spoken = sentences(shown)
    for span in reversed(spoken[1:]):
        if is_correction(shown[slice(*span)]):
            yield Statement(*span, "bare")
    # A letter by itself restates nothing, nor does a single one of the options.
    restated = [s for s in spoken if repeats(prompt, shown[slice(*s)]) and len(shown[slice(*s)].split()) > 1]
    options = [span for span in restated if _OPTION.match(shown, *span)]
    if len(options) == 1:
        restated.remove(options[0])
    fresh = [span for span in spoken if span not in restated] or spoken
    for start, end in fresh:
        yield Statement(start, end, "bare")


def _letter(
    text: str, statement: Statement, standing: re.Pattern[str], small: re.Pattern[str], right: re.Pattern[str]
) -> str | None:
    """The letter that a stretch says is right, else the first that stands for a choice and is not denied."""
    start, end = statement.start, statement.end
    confirmed = [match for match in right.finditer(text, start, end) if not _is_denied(text, match)]
    if confirmed:
        return confirmed[-1]["letter"]
    for match in standing.finditer(text, start, end):
        if not _is_denied(text, match):
            return next(letter for letter in match.groups() if letter)
    marked = statement.firmness == "stated" or re.fullmatch(r"[\W_]*[A-Za-z][\W_]*", text[start:end]) is not None
    for match in small.finditer(text, start, end):
        cued = _CUE.search(text, max(0, match.start() - 40), match.start()) or (
            marked and not text[start : match.start()].strip(" \t\n([{\"'*:$")
        )
        framed = re.fullmatch(r"\(([a-z])\)|([a-z])\)", match[0]) and not text[start : match.start()].strip(" \t\n\"'")
        if (cued or framed) and not _is_denied(text, match):
            return next(letter for letter in match.groups() if letter).upper()
    return None


def _by_text(
    text: str, statement: Statement | None, by_text: Mapping[str, str], choices: Mapping[str, str]
) -> str | None:
    part = text if statement is None else text[statement.start : statement.end]
    named = {mention.phrase for mention in find_mentions(part, list(choices.values()))}
    return by_text[folded(named.pop())] if len(named) == 1 else None


def _is_denied(text: str, match: re.Match[str]) -> bool:
    before = _DENIED_BEFORE.search(text, max(0, match.start() - 40), match.start())
    # "The song was not rehearsed (A)" denies no letter, "not option (A)" does.
    if before and text[match.start()] == "(" and not _DENIED_FRAME.search(before[0]):
        before = None
    return bool(before or _DENIED_AFTER.match(text, match.end()))


@lru_cache(maxsize=256)
def _patterns(letters: str) -> tuple[re.Pattern[str], ...]:
    standing = (
        rf"(?<![A-Za-z0-9_'])(?:[(\[{{]([{letters}])[)\]}}]|([{letters}])(?=[).:,;\]}}\"'`!?$]|\s*\Z|\s*\n|[ ]{{2}}"
        rf"|[ ](?:is|it[ ]is|does|works|because|since|as|for)\b|[ ]-|[ ]\(|[ ](?=[\u0900-\uffff])"
        rf"|[\u0900-\uffff])(?!['.]\w))"
        rf"|(?:(?i:option|choice|letter|answer|operator|is|pick|choose|select|选|選|是|は|为|опция|opción|opção"
        rf"|réponse))[ ]*[*(\"'`:]*([{letters}])\b(?![ ][a-z])(?!['])"
    )
    little = letters.lower()
    small = (
        rf"(?<![A-Za-z0-9_'])(?:[(\[{{]([{little}])[)\]}}]|([{little}])(?=[).:,;\]}}\"'`!$]|\s*\Z|\s*\n|[ ]{{2}}"
        rf"|[ ](?:is|because|since)\b|[\u3000-\uffff]))"
    )
    return re.compile(standing), re.compile(small), re.compile(_CONFIRMED.format(letters))
