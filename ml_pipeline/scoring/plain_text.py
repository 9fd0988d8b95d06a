"""Answers as plain text: LaTeX and markup unwrapped, look-alike characters folded, the answer's own end found."""
# ruff: noqa: RUF001  letters of other scripts that look like Latin ones are what is read here

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_SUPERSCRIPT = re.compile("[⁺⁻]?[⁰¹²³⁴-⁹]+")
_SUBSCRIPT = re.compile("[₀-₉]+")
_VULGAR_FRACTION = re.compile("(?<=[^\\W_])[¼-¾⅐-⅞]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_FOREIGN_DIGIT = re.compile(r"[^\W0-9]")
_LOOK_ALIKES = {
    "\N{MINUS SIGN}": "-",
    "\N{EN DASH}": "-",
    "\N{HYPHEN}": "-",
    "\N{NON-BREAKING HYPHEN}": "-",
    "\N{FIGURE DASH}": "-",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    "\N{DOUBLE LOW-9 QUOTATION MARK}": '"',
    "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}": '"',
    "\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}": '"',
    "\N{LEFT CORNER BRACKET}": '"',
    "\N{RIGHT CORNER BRACKET}": '"',
    "\N{LEFT BLACK LENTICULAR BRACKET}": "[",
    "\N{RIGHT BLACK LENTICULAR BRACKET}": "]",
    "\N{MULTIPLICATION SIGN}": "*",
    "\N{DOT OPERATOR}": "*",
    "\N{ASTERISK OPERATOR}": "*",
    "\N{DIVISION SIGN}": "/",
    "\N{DIVISION SLASH}": "/",
    "\N{ARABIC DECIMAL SEPARATOR}": ".",
    "\N{ARABIC THOUSANDS SEPARATOR}": ",",
    "\N{ARABIC PERCENT SIGN}": "%",
    "\N{MIDDLE DOT}": "*",
    "\N{RIGHTWARDS DOUBLE ARROW}": "→",
    "\N{LONG RIGHTWARDS ARROW}": "→",
    "\N{LONG RIGHTWARDS DOUBLE ARROW}": "→",
    "\N{ALMOST EQUAL TO}": "≈",
    "\N{APPROXIMATELY EQUAL TO}": "≈",
}
_SYMBOLS = str.maketrans(_LOOK_ALIKES)
# Scripts without spaces end their sentences with marks that no space follows; ours are told by the space.
_STOPS = {"。": ".", "｡": ".", "।": ".", "॥": ".", "、": ",", "،": ",", "؟": "?", "؛": ";", "۔": "."}
_STOP = re.compile("[" + "".join(_STOPS) + "]")
_WIDE_STOP = re.compile("[！？：；]|(?<![0-9０-９])，|，(?![0-9０-９])")

_NEW_LINE = re.compile(r"\\\\(?:\[[^\[\]\n]{0,10}\])?(?![a-zA-Z])")
_MATH_SPACE = re.compile(
    r"\\[,;:> ]|\\q?quad(?![a-zA-Z])|(?<!\\)~(?!~)(?<!~~)|\\[()\[\]]|\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])\.?"
)
_LATEX = (
    (
        re.compile(
            r"\\begin\s*\{[^{}]{1,40}\}(?:\{[^{}]{0,40}\})?|\\end\s*\{[^{}]{1,40}\}|\\(?:hline"
            r"|displaystyle)(?![a-zA-Z])"
        ),
        " ",
    ),
    (re.compile(r"&(?=\s*(?:=|\\approx|\\implies|\\Rightarrow))|(?<==)\s*&"), " "),
    (re.compile(r"\\!|\{\}"), ""),
    (re.compile(r"(?<=\d)\{,\}(?=\d)"), ","),
    (re.compile(r"\\(?:times|cdot|ast|bullet)(?![a-zA-Z])"), "*"),
    (re.compile(r"\\div(?![a-zA-Z])"), "/"),
    (re.compile(r"\\(?:approx|simeq|doteq)(?![a-zA-Z])"), "≈"),
    (re.compile(r"\\(?:[Ll]ongrightarrow|[Rr]ightarrow|Longrightarrow|to|implies|therefore)(?![a-zA-Z])"), "→"),
    (re.compile(r"\\(?:l|c|v)?dots(?![a-zA-Z])"), "..."),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![a-zA-Z])"), "°"),
    (re.compile(r"\\([$%#&_{}])"), r"\1"),
)
_NESTED = (
    (
        re.compile(
            r"\\(?:text(?:bf|it|rm|sf|tt|normal|sc)?|math(?:rm|bf|it|sf|bb|cal|tt)|boldsymbol|bm|mbox|hbox|emph"
            r"|underline|operatorname\*?|overline|phantom|large|textcolor\{[^{}]{1,20}\})\s*\{([^{}]{0,200})\}"
        ),
        r"\1",
    ),
    (
        re.compile(
            r"\\[dtc]?frac\s*(?:\{\s*([^{}]{1,80}?)\s*\}|(\d)|\s([a-zA-Z]))\s*(?:\{\s*([^{}]{1,80}?)\s*\}|(\d)"
            r"|([a-zA-Z]))"
        ),
        None,
    ),
    (re.compile(r"\\sqrt\s*\{([^{}]{1,80})\}"), r"sqrt(\1)"),
    (re.compile(r"\\sqrt\s*\[[^\[\]{}]{1,10}\]\s*\{([^{}]{1,80})\}"), r"root(\1)"),
    (re.compile(r"\^\s*\{\s*([-+]?[0-9]{1,12}|[A-Za-z]{1,2})\s*\}"), r"^\1"),
    (re.compile(r"\^\s*\{([^{}]{1,40})\}"), r"^(\1)"),
    (re.compile(r"_\s*\{\s*([^{}]{0,40}?)\s*\}"), r"_\1"),
)
_SIMPLE = re.compile(r"[-+]?[0-9.,]+|[A-Za-z]")
_MOST_NESTING = 6

_STRUCK = re.compile(r"~~([^~\n]{1,200})~~")
_EMPHASIS = (
    re.compile(r"(?<![*\d)])(\*{2,3})(?=[^\s*])([^*\n]{1,400}?)(?<=[^\s*])(\*{2,3})"),
    re.compile(r"(?<![*\w)])(\*)(?=[^\s*])([^*\n]{1,400}?)(?<=[^\s*])(\*)(?![*\w])"),
    re.compile(r"(?<!\w)(_{1,3})(?=[^\s_])([^_\n]{1,400}?)(?<=[^\s_])(_{1,3})(?!\w)"),
)
_TAG = re.compile(
    r"</?(?:b|i|u|s|em|strong|sub|sup|p|br|span|code|mark|center|div|h[1-6]|li|ul|ol|final_answer|answer"
    r"|result)\b[^<>\n]{0,60}>",
    re.IGNORECASE,
)
_LINE_MARK = re.compile(
    r"^[ \t]*(?:(?:#{1,3}|#{5,6})(?=[ \t])|>{1,3}(?=[ \t])|[-*+•‣◦·▪●–—](?=[ \t]+\S))", re.MULTILINE
)
_ONLY_A_SIGN = re.compile(r"\s*-[ \t]+[$€£¥]?[.\d][^\n]*(?:\n|\Z)")
_DASHES = re.compile(r"(?m)^[ \t]*-[ \t]")
_TURN = re.compile(
    r"<\|(?:im_end|im_start|eot_id|end_of_text|endoftext|end|user|start_header_id)\|>|</s>|<end_of_turn>|<\|im_sep\|>"
    r"|(?<!\w)Question[ \t]*:"
    r"|^[^\n]{0,60}\b(?:[Ss]imilar|[Pp]ractice|[Oo]ther|[Mm]ore|[Aa]dditional|[Rr]elated)[ ](?:problems|questions"
    r"|exercises|examples)\b"
    r"[^\n]{0,60}:[*_ \t]*$"
    r"|^[ \t#*>]*(?:(?:Question|Problem|Exercise|Q)[ \t]*\#?\d{0,3}[*]*[ \t]*[:.](?!\d)|(?:Human|User|Instruction"
    r"|USER)[*]*[ \t]*:"
    r"|(?:问题|問題|题目|Frage|Pregunta|Pergunta|Domanda|Вопрос|प्रश्न|سؤال|질문|Vraag|Pytanie"
    r"|Soru)[*]*[ \t]*\d{0,3}[ \t]*[:：])",
    re.MULTILINE,
)
OWN_ANSWER_HINT = (
    r"(?i)question[ \t]*:|(?m:^[ \t#>*]*(?:question|problem|exercise|q|human|user|instruction|frage|pregunta"
    r"|pergunta|domanda"
    r"|vraag|pytanie|soru)\b)|(?:similar|practice|other|more|additional|related)[ ](?:problems|questions|exercises"
    r"|examples)\b"
    r"|<\||</s>|<end_of_turn>|问题|問題|题目|Вопрос|प्रश्न|سؤال|질문"
)
"""Found, by RE2, in every text that `own_answer` may cut, and in few others."""
_WORDS = re.compile(r"[^\W_]+")


def plain(text: str) -> str:
    """The text with LaTeX unwrapped and look-alike characters folded, so that one way of writing is left to read.

    Every decimal digit of Unicode becomes an ASCII one, exponents follow "^" and subscripts "_", and the full stops of
    other scripts become ". ". Words, letters' case and Markdown stay as they are.
    """
    text = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
    if not text.isascii():
        text = _folded(text)
    text = text.replace("\0", " ").replace("\r\n", "\n").replace("\r", "\n")
    if "\\" in text or "{,}" in text or "^{" in text or "_{" in text:
        text = _without_latex(text)
    return text


def unmarked(text: str) -> str:
    """A plain text of the same length in which blanks stand for Markdown and HTML: emphasis, bullets, headings (not
    GSM8K's "####"), quotes, tags; and for all that is struck out."""
    return _unmarked(text)


def own_answer(text: str, prompt: str = "") -> str:
    """What the model wrote before it went on with a question of its own ("Question: ..."), as base models do.

    A question before anything else was written, or one that only repeats the prompt, is part of the answer.
    """
    asked = " ".join(_WORDS.findall(prompt.casefold()))
    for match in _TURN.finditer(text):
        if not _WORDS.search(text, 0, match.start()):
            continue
        following = " ".join(_WORDS.findall(text[match.end() : match.end() + 300].casefold()))
        if len(following) >= 12 and asked and (following[:40] in asked or asked[:40] in following):
            continue
        return text[: match.start()]
    return text


def _folded(text: str) -> str:
    text = _INVISIBLE.sub("", text)
    text = _SUPERSCRIPT.sub(lambda match: "^" + unicodedata.normalize("NFKC", match[0].replace("⁻", "-")), text)
    text = _SUBSCRIPT.sub(lambda match: "_" + unicodedata.normalize("NFKC", match[0]), text)
    text = _VULGAR_FRACTION.sub(r" \g<0>", text)
    text = _STOP.sub(lambda match: _STOPS[match[0]] + " ", text)
    text = _WIDE_STOP.sub(lambda match: unicodedata.normalize("NFKC", match[0]) + " ", text)
    text = unicodedata.normalize("NFKC", text.translate(_SYMBOLS)).replace("\N{FRACTION SLASH}", "/")
    return _FOREIGN_DIGIT.sub(_digit, text.translate(_SYMBOLS))


def _digit(match: re.Match[str]) -> str:
    value = unicodedata.decimal(match[0], None)
    return match[0] if value is None else str(value)


def _without_latex(text: str) -> str:
    text = _MATH_SPACE.sub(" ", _NEW_LINE.sub("\n", text))
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    for _ in range(_MOST_NESTING):
        before = text
        for pattern, shown in _NESTED:
            text = pattern.sub(_fraction if shown is None else shown, text)
        if text == before:
            break
    return text


def _fraction(match: re.Match[str]) -> str:
    first, second = (next(part for part in parts if part) for parts in (match.groups()[:3], match.groups()[3:]))
    over, below = (part if _SIMPLE.fullmatch(part) else f"({part})" for part in (first, second))
    start = match.start()
    gap = " " if start and match.string[start - 1].isalnum() else ""
    tail = match.string[match.end() : match.end() + 1]
    return f"{gap}{over}/{below}{' ' if tail.isalnum() else ''}"


@lru_cache(maxsize=64)
def _unmarked(text: str) -> str:
    text = _STRUCK.sub(_blank, text)
    for pattern in _EMPHASIS:
        text = pattern.sub(lambda match: " " * len(match[1]) + match[2] + " " * len(match[3]), text)
    text = _TAG.sub(_blank, text)
    text = text.replace("`", " ")
    kept = 0
    if (sign := _ONLY_A_SIGN.match(text)) and len(_DASHES.findall(text)) == 1:
        # "- 5" on the first line of a text without other bullets is a number.
        kept = sign.end()
    return text[:kept] + _LINE_MARK.sub(_blank, text[kept:])


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])
