"""The numbers of a plain text, each read as a whole or not at all.

Signs ("- 5", "minus 5"), money, thousands marks (`1,234`, `1 234`, `1'234`, `1.234.567`, `12,34,567`), a decimal comma,
powers of ten, magnitude words, fractions, mixed numbers and percents belong to their number. What looks like more than
one number in one (`1.2.3`, `12:15`, `2024-01-05`, `1010_2`) is none.
"""
# ruff: noqa: RUF001  letters of other scripts that look like Latin ones are what is read here

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

_CURRENCY = r"(?:[$€£¥₹₩₽฿₫₪₺₱₦₴]|\b(?:USD|EUR|GBP|JPY|CNY|INR|RMB|CHF|Rs\.?|US\$|R\$))"
_RUN = re.compile(
    # What is no number, whatever its parts are: times, ratios, dates, versions, numbers of another base.
    r"(?P<none>\d{1,4}(?::\d{1,4})+(?!\d)|\d{4}-\d{2}-\d{2}(?!\d)|\d{1,2}/\d{1,2}/\d{4}(?!\d)|0[xXbB][0-9a-fA-F]+\b"
    r"|\d{1,2}h\d{2}\b|\d+(?:\.\d+){2,}[A-Za-z])"
    r"|(?P<digits>\d{1,3}(?:[ ]\d{3})+(?![\d]|[.,]?\d{4})(?:[.,]\d{1,2}(?!\d))?"
    r"|\d+(?:[.,']\d+)*|(?<![\d.])\.\d+)",
    re.ASCII,
)
_EXPONENT = re.compile(
    r"[eE](?P<e>[-+]?\d{1,3})(?![\w]|\.\d)"
    r"|[ ]*[*xX][ ]*10[ ]*(?:\^|\*\*)[ ]*\(?[ ]*(?P<ten>[-+]?[ ]*\d{1,3})[ ]*\)?(?!\d)"
    r"|[ ]?(?:\^|\*\*)[ ]?\(?(?P<power>[-+]?\d{1,3})\)?(?![\d.]*\d)",
    re.ASCII,
)
_BELOW = re.compile(r"[ ]?/[ ]?(?P<below>\d{1,15}(?:,\d{3})*(?:\.\d+)?)(?![\d]|[ ]?/[ ]?\d|\.\d)", re.ASCII)
_TWO_SLASHES = re.compile(r"[ ]?/[ ]?[\d.,]{1,30}[ ]?/[ ]?\d", re.ASCII)
_MIXED = re.compile(
    r"(?:[ ](?:and[ ])?(?P<over>\d{1,4})[ ]?/[ ]?(?P<below>\d{1,4})(?![\d]|[ ]?/[ ]?\d|[.,]\d)"
    r"|[ ]and[ ](?:a|one)[ ](?P<part>half|quarter|third))",
    re.ASCII | re.IGNORECASE,
)
_MAGNITUDES = {
    **{"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12, "lakh": 1e5, "crore": 1e7},
    **{"lakhs": 1e5, "crores": 1e7, "millions": 1e6, "billions": 1e9, "mn": 1e6, "bn": 1e9, "mio": 1e6, "mrd": 1e9},
    **{"millionen": 1e6, "milliarden": 1e9, "tausend": 1e3, "millones": 1e6, "mil": 1e3, "milhões": 1e6, "mille": 1e3},
    **{"millón": 1e6, "milhão": 1e6, "milliard": 1e9, "milliards": 1e9, "milioni": 1e6, "miliardi": 1e9, "mila": 1e3},
    **{"тысяч": 1e3, "тысячи": 1e3, "тыс": 1e3, "миллион": 1e6, "миллиона": 1e6, "миллионов": 1e6, "млн": 1e6},
    **{
        "млрд": 1e9,
        "万": 1e4,
        "萬": 1e4,
        "億": 1e8,
        "亿": 1e8,
        "千": 1e3,
        "만": 1e4,
        "억": 1e8,
        "लाख": 1e5,
        "करोड़": 1e7,
    },
    **{"हज़ार": 1e3, "हजार": 1e3, "مليون": 1e6, "ألف": 1e3, "bin": 1e3, "milyon": 1e6, "milyar": 1e9, "nghìn": 1e3},
    **{"triệu": 1e6, "ribu": 1e3, "juta": 1e6, "tys": 1e3, "mln": 1e6, "mld": 1e9},
}
_MAGNITUDE = re.compile(
    r"[ ]?(?P<word>" + "|".join(sorted(_MAGNITUDES, key=len, reverse=True)) + r")(?![a-zа-я])"
    r"|(?P<letter>k|K|M|bn|B)(?![\w^])",
    re.IGNORECASE,
)
_PERCENT = re.compile(
    r"[ ]?[%٪]|[ -]?(?:percent|per[ ]cent|pct|prozent|pour[ ]cent|por[ ]ciento|por[ ]cento|per[ ]cento|procent|procenta"
    r"|процент(?:ов|а)?|パーセント|퍼센트|phần[ ]trăm|persen)(?![A-Za-z])",
    re.IGNORECASE,
)
_SIGN_WORD = re.compile(
    r"(?:(?<![A-Za-z])(?:minus|negative|moins|menos|meno|минус|eksi)[ ]+|负|負|零下|氷点下|マイナス|마이너스[ ]?"
    r"|영하[ ]?|منفي[ ]?|ऋण[ ])" + _CURRENCY + r"?[ ]?\Z",
    re.IGNORECASE,
)
_BELOW_ZERO = re.compile(
    r"[ ]?(?:°[CF]?|degrees?(?:[ ](?:Celsius|Fahrenheit))?)?[ ]below[ ](?:zero|0(?![\d.]))", re.IGNORECASE
)
_SIGN = re.compile(rf"(?P<sign>[-+])(?P<gap>[ ]*)(?:{_CURRENCY}[ ]?)?\Z")
_MONEY = re.compile(rf"{_CURRENCY}[ ]*(?P<minus>-[ ]?)?\Z")
_NEGATING_BEFORE = re.compile(
    r"(?:^|[({\[=≈→:,;|+*/<>\n$]|\b(?:is|are|was|equals|be|to|of|gives|makes|and|or|by|than|exactly|about|get|gets"
    r"|ist|est|es))[ \t*_\"]*\Z"
)
_OPERAND_END = re.compile(r"[\w)\]%°}][ ]*\Z")
_OPERAND_BEFORE_WORD = re.compile(r"[\d)\]%a-zA-Z°][ ]*\Z")
_GLUED_BEFORE = re.compile(r"(?:[A-Za-z0-9_^±]|√[ ]?\(?|sqrt[ ]?\(|\^[-+(]|_[{(]|\d[.,'/:]|[A-Za-z]\.)\Z", re.ASCII)
_GLUED_MONEY = re.compile(r"(?:US|R|C|A|NZ|HK|S|USD|EUR|GBP|INR|RMB|CHF|CNY|JPY|Rs\.?)\Z")
_GLUED_AFTER = re.compile(r"_\d|[ ]?(?:√|π|sqrt\b|\\sqrt)|(?:st|nd|rd|th|º|ª|er|ème|-я|-й)(?![A-Za-z])", re.ASCII)
_WRITTEN_ON = re.compile(r"(?:[.,:'/]?\d)+", re.ASCII)
_ORDINAL = re.compile(r"[ ]?(?:st|nd|rd|th)(?![A-Za-z])|\^(?:st|nd|rd|th)\b")
_SYMBOLIC = re.compile(r"(?P<name>[A-Za-z])(?![A-Za-z])")
_HEADING_BEFORE = re.compile(
    r"(?:\b(?:step|part|question|problem|option|case|example|equation|eq|figure|table|chapter|exercise|method|rule"
    r"|premise"
    r"|schritt|étape|paso|passo|шаг|krok)[ ]*\.?[ ]*#?[ ]*\(?|(?:步骤|第|ステップ|단계)[ ]?)\Z",
    re.IGNORECASE,
)
_LABEL_LINE = re.compile(r"(?:^|\n|\|)[ \t]*[^\W\d_][^\W\d_.-]{1,14}[ ]#?\Z")
_LIST_NUMBER = re.compile(r"^[ \t#>*_-]*(\d{1,3})[.)][*_]*[ \t]+(?=\S)", re.MULTILINE | re.ASCII)
_RATIO = re.compile(
    r"(?<![\w.])(\d{1,9})[ -]+(?:out[ -]of|chances?[ -]in|in|of|von|sur|de|su|из)[ -]+(?:a[ ]|every[ ]"
    r"|the[ ])?(\d{1,9})(?![\w.,:/]*\d)",
    re.ASCII,
)
_USUAL_VARIABLES = frozenset("xyzn")
_VARIABLE = re.compile(
    r"(?<![\w'])([b-zB-Z])[ ]*(?:[=≈]|[-+*/][ ]*[\d(]|\bis\b)|(?:[=+*/(]"
    r"|(?<=[ \d])-)[ ]*\d*([b-z])(?![\w'^])[ ]*(?=[-+*/=)\n]|\Z)"
)
_WHOLE_FORMS = (
    re.compile(r"\d+"),
    re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?"),
    re.compile(r"\d+\.\d+|\.\d+"),
    re.compile(r"[1-9]\d?(?:,\d{2})+,\d{3}(?:\.\d+)?"),
    re.compile(r"[1-9]\d{0,2}(?:'\d{3})+(?:[.,]\d+)?"),
    re.compile(r"[1-9]\d{0,2}(?:[ ]\d{3})+(?:[.,]\d{1,2})?"),
)
_DOTTED = re.compile(r"[1-9]\d{0,2}(?:\.\d{3}){2,}(?:,\d+)?|[1-9]\d{0,2}(?:\.\d{3})+,\d+")
_DECIMAL_COMMA = re.compile(r"\d+,\d{1,2}|\d+,\d{4,}|0,\d+|\d{4,},\d+")
_LISTED = re.compile(r"\d+(?:,\d+)+")
_PARTS = {"half": 0.5, "quarter": 0.25, "third": 1 / 3}
_WINDOW = 40

_ROUNDING = 1e-12
"""Takes up the rounding of binary fractions."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a text, with its place.

    `percent`: `value` is a hundredth of what is written. `exact`: it is a fraction or a ratio. `base`: the number
    before a magnitude word ("1.5 million"), else None. `ordinal`: "5th". `unit` is what one of its last digit is
    worth: 0.01 for "0.15", 0.01 too for "15%"; 0 for what rounds nothing. `fraction` is the one whose decimal form it
    is, as in "3/20 = 0.15".
    """

    value: float
    start: int
    end: int
    percent: bool = False
    exact: bool = False
    base: float | None = None
    ordinal: bool = False
    unit: float = 0.0
    fraction: float | None = None

    def states(self, wanted: float, tolerance: float) -> bool:
        """Whether it is the fraction `wanted`: equal to it, or as a decimal within `tolerance` of it and rounded or
        cut to the digits that it has."""
        if self.fraction is not None and not _same(self.fraction, wanted):
            return False
        if not self.unit:
            return _same(self.value, wanted)
        off = abs(self.value - wanted)
        is_cut = off < self.unit and abs(self.value) <= abs(wanted)
        return off <= tolerance + _ROUNDING and (off <= self.unit / 2 + _ROUNDING or is_cut)


def find_numbers(
    text: str,
    *,
    ratios: bool = False,
    lists: bool = False,
    ordinals: bool = False,
    variables: frozenset[str] = _USUAL_VARIABLES,
) -> Iterator[Number]:
    """Every number of a plain text that stands for a quantity: no list numbers, exponents, subscripts, coefficients of
    `variables`, nor "Step 3".

    `ratios` reads "1 in 3" and "2 out of 6" as fractions. `lists`: "3,5" is two numbers. `ordinals` are left out
    unless asked for.
    """
    skipped = _list_numbers(text)
    fractions = {m.start(1): m for m in _RATIO.finditer(text)} if ratios else {}
    position = 0
    while match := _RUN.search(text, position):
        position = match.end()
        if match["none"] is not None or match.start() in skipped or _is_glued(text, match.start()):
            position = _skip_glued(text, position)
            continue
        if _is_label(text, match.start(), match.end()):
            continue
        if (ratio := fractions.get(match.start())) and 0 < int(ratio[1]) < int(ratio[2]):
            position = ratio.end()
            yield Number(int(ratio[1]) / int(ratio[2]), match.start(), position, exact=True)
            continue
        if " " in match["digits"] and lists:
            position = match.start() + match["digits"].index(" ")
        for number in _read(text, match.start("digits"), position, lists, variables):
            position = max(position, number.end)
            if math.isfinite(number.value) and (ordinals or not number.ordinal):
                yield number


def variables_of(*texts: str) -> frozenset[str]:
    """Letters that stand for numbers in these texts, next to the usual x, y, z and n."""
    found = {letter for text in texts for pair in _VARIABLE.findall(text[:5000]) for letter in pair if letter}
    return _USUAL_VARIABLES | found


def _read(text: str, start: int, end: int, lists: bool, variables: frozenset[str]) -> Iterator[Number]:
    """The number whose digits are at this place; several for a list without spaces; none where it is not understood."""
    written = text[start:end]
    if lists and "," in written and not re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", written):
        yield from _listed(text, start, written)
        return
    value = _digits_value(written, text[max(0, start - 1) : start])
    if value is None:
        if _LISTED.fullmatch(written):
            yield from _listed(text, start, written)
        return
    exact, base, percent, magnitude = False, None, False, 1.0
    unit_of_last_digit = _last_digit(written, value)
    is_whole = written.isdigit()
    if match := _EXPONENT.match(text, end):
        raised = _raised(value, match)
        if raised is None:
            return
        unit_of_last_digit *= raised / value if value else 0.0
        value, end = raised, match.end()
    elif is_whole and (match := _MIXED.match(text, end)) and not lists:
        below = float(match["below"] or 1)
        if not below:
            return
        value += _PARTS[match["part"].lower()] if match["part"] else int(match["over"]) / below
        exact, end = True, match.end()
    elif match := _BELOW.match(text, end):
        below = float(match["below"].replace(",", ""))
        value = value / below if below else math.inf
        exact, end = True, match.end()
    elif _TWO_SLASHES.match(text, end):
        return
    if match := _PERCENT.match(text, end):
        percent, end = True, match.end()
    elif (match := _MAGNITUDE.match(text, end)) and (unit := _magnitude(match, text, start, variables)):
        magnitude, base, end = unit, value, match.end()
        if (more := _MAGNITUDE.match(text, end)) and (second := _magnitude(more, text, start, variables)):
            magnitude, end = magnitude * second, more.end()
    sign, begin = _sign(text, start)
    if begin is None:
        return
    if sign > 0 and (match := _BELOW_ZERO.match(text, end)):
        sign, end = -1.0, match.end()
    ordinal = False
    if base is None and (glued := _GLUED_AFTER.match(text, end)):
        if not (_ORDINAL.match(text, end) and is_whole):
            return
        ordinal, end = True, glued.end()
    elif (
        base is None
        and not percent
        and end < len(text)
        and (letter := _SYMBOLIC.match(text, end))
        and letter["name"] in variables
    ):
        return
    yield Number(
        sign * value * magnitude / (100 if percent else 1),
        begin,
        end,
        percent,
        exact,
        None if base is None else sign * base,
        ordinal,
        0.0 if exact else unit_of_last_digit * magnitude / (100 if percent else 1),
    )


def _last_digit(written: str, value: float) -> float:
    """What one of the last digit is worth of digits that were read as this value."""
    mark = max(written.rfind("."), written.rfind(","))
    decimals = len(written) - mark - 1 if mark >= 0 and not value.is_integer() else 0
    return float(10.0**-decimals)


def _digits_value(written: str, before: str) -> float | None:
    """The value of digits with their marks, or None where they are not understood as a whole."""
    if len(written) > 400:
        return math.inf
    if any(form.fullmatch(written) for form in _WHOLE_FORMS):
        whole = written.replace("'", "").replace(" ", "")
        if re.fullmatch(r"\d+,\d{1,2}", whole) or re.search(r"[' ].*,", written):
            whole = whole.replace(",", ".")
        return float(whole.replace(",", ""))
    if _DOTTED.fullmatch(written):
        return float(written.replace(".", "").replace(",", "."))
    if _DECIMAL_COMMA.fullmatch(written) and before not in ("(", "[", "{"):
        return float(written.replace(",", "."))
    return None


def _listed(text: str, start: int, written: str) -> Iterator[Number]:
    for match in re.finditer(r"\d+(?:\.\d+)?", written):
        sign, begin = _sign(text, start) if match.start() == 0 else (1.0, start + match.start())
        if begin is not None:
            yield Number(sign * float(match[0]), begin, start + match.end())


def _raised(value: float, match: re.Match[str]) -> float | None:
    try:
        if match["e"] is not None:
            return float(f"{value!r}e{int(match['e'])}") if "e" not in repr(value) else value * 10.0 ** int(match["e"])
        if match["ten"] is not None:
            power = int(match["ten"].replace(" ", ""))
            return float(f"{value!r}e{power}") if "e" not in repr(value) else value * 10.0**power
        return float(value ** int(match["power"]))
    except (OverflowError, ZeroDivisionError):
        return None


def _magnitude(match: re.Match[str], text: str, start: int, variables: frozenset[str]) -> float | None:
    if match["word"]:
        word = match["word"].lower()
        return _MAGNITUDES[word]
    letter = match["letter"]
    if letter.lower() in variables or (letter == "m" or letter == "b"):
        return None
    money = _MONEY.search(text, max(0, start - 8), start) is not None
    if letter in ("k", "K"):
        return 1e3
    return {"M": 1e6, "bn": 1e9, "B": 1e9}.get(letter) if money else None


def _sign(text: str, start: int) -> tuple[float, int | None]:
    """The sign of the number whose digits start here, and where it starts with sign and currency."""
    window = max(0, start - _WINDOW)
    begin, sign = start, 1.0
    if money := _MONEY.search(text, window, start):
        begin = money.start()
        if money["minus"]:
            return -1.0, begin
        while begin > window and text[begin - 1] == "$":
            begin -= 1
    if found := _SIGN_WORD.search(text, window, start):
        if _OPERAND_BEFORE_WORD.search(text, max(0, found.start() - 3), found.start()) and not _is_copula(
            text, found.start()
        ):
            return 1.0, begin
        return -1.0, found.start()
    if found := _SIGN.search(text, window, begin):
        place = found.start("sign")
        if found["sign"] == "+":
            operand = _OPERAND_END.search(text, max(0, place - 3), place)
            return 1.0, begin if operand else place
        directly = not found["gap"] and not (place and (text[place - 1].isalnum() or text[place - 1] in ")]_}"))
        if directly and place >= 2 and text[place - 1] == " " and _is_operator_place(text, place):
            directly = False
        if directly or (found["gap"] and _NEGATING_BEFORE.search(text, max(0, place - 12), place)):
            return -1.0, place
    return sign, begin


def _is_operator_place(text: str, place: int) -> bool:
    """Whether "-" after a blank and right before a digit still takes away: "58 -19"."""
    return re.search(r"[\d)\]][ ]+\Z", text[max(0, place - 4) : place]) is not None


def _is_copula(text: str, end: int) -> bool:
    return (
        re.search(
            r"\b(?:is|are|was|equals|be|to|of|gives|makes|get|gets|answer|result|ist|est|es|é|è|and|or|than|the|a"
            r"|about|at|exactly|only|nearly|around|were|equal|war|waren|sind|beträgt|lautet|fait|faisait|était|son"
            r"|era|eran"
            r"|são|był[ao]?|был[ао]?|было|это|равно)[ ]*\Z",
            text[max(0, end - 12) : end],
            re.IGNORECASE,
        )
        is not None
    )


def _is_glued(text: str, start: int) -> bool:
    """Whether digits belong to what stands right before them: a name, an exponent, a subscript, another number."""
    before = text[max(0, start - 6) : start]
    return _GLUED_BEFORE.search(before) is not None and not (
        _GLUED_MONEY.search(before) or before.endswith((" x", "\nx"))
    )


def _skip_glued(text: str, position: int) -> int:
    """Past all that is written on without a gap, so that no tail of it is read."""
    match = _WRITTEN_ON.match(text, position)
    return match.end() if match else position


def _is_label(text: str, start: int, end: int) -> bool:
    """Whether a number only counts what it stands before: "Step 2", "Day 4: ...", "(3)" at the start of a line."""
    window = max(0, start - 24)
    if _HEADING_BEFORE.search(text, window, start):
        return True
    after = text[end : end + 3]
    return after[:1] == ":" and not after[1:2].isdigit() and _LABEL_LINE.search(text, window, start) is not None


def _unit(match: re.Match[str]) -> float:
    if match["below"]:
        return 0.0
    digits, _, exponent = match["digits"].lower().partition("e")
    decimals = len(digits.partition(".")[2]) + (2 if match["percent"] else 0)
    return float(10.0 ** (int(exponent or 0) - decimals))


def _same(value: float, wanted: float) -> bool:
    return abs(value - wanted) <= _ROUNDING * max(1.0, abs(wanted))


def _list_numbers(text: str) -> set[int]:
    """Places of the numbers of a numbered list: those that open a line and count up from 1."""
    places: set[int] = set()
    expected = 1
    for match in _LIST_NUMBER.finditer(text):
        number = int(match[1])
        if number == 1 or number == expected:
            places.add(match.start(1))
            expected = number + 1
    return places
