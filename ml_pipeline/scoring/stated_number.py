"""Reading the number that an answer states, past restated questions, operands, steps, formulas, units and asides."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from ml_pipeline.scoring.number_values import PERCENT_ASKED
from ml_pipeline.scoring.number_words import word_numbers, word_ordinals
from ml_pipeline.scoring.numbers import Number, find_numbers, variables_of
from ml_pipeline.scoring.plain_text import unmarked
from ml_pipeline.scoring.statements import Statement, is_question, sentences, statements

_RELATION = r"=>|->|==?|≈|→|~="
_IS = (
    r"equals|is equal to|is|are|gives|makes|yields|comes to|ergibt|macht|ist|sind|es|son|est|font|fait|égale|é|são|è|fa"
    r"|sono|jest|равно|это|будет|等于|等於|是|は|为|為|이다|है|eşittir|adalah|wynosi"
)
_UNIT = (
    r"(?>(?:[ ]{0,3}(?:°[CF]?|[%$€£¥]|(?!(?:and|or|so|then|but|which|since|because|minus|plus|times|divided"
    r"|multiplied|x|is|are"
    r"|equals|gives|makes|of|over)\b)[A-Za-zµΩ]{1,16}(?:\^?-?[23])?)(?:[ ]?/[ ]?[A-Za-z]{1,14}(?:\^?[23])?)?){0,4})"
)
_MONEY = r"[(\[{$€£¥ ]{0,5}"
_SIGNED_OPERATOR = r"(?:\*\*|[-+*/^]|\b(?:x|times|plus|minus|divided by|multiplied by|over|mod)\b)"
_OPERATED_AFTER = re.compile(
    rf"{_UNIT}[)\]]{{0,3}}[ ]{{0,3}}{_SIGNED_OPERATOR}[ ]{{0,3}}{_MONEY}[-+]?(?:[\d√]|\.\d|sqrt"
    rf"|[a-zA-Z](?![a-zA-Z])(?![ ][a-z]{{2}})|[A-Za-z]+(?=[ ][*/+][ ]))"
    r"|\((?=[ ]?[-+]?\d[^()\n]{0,20}[-+*/])",
    re.ASCII,
)
_SHARE_AFTER = re.compile(r"[ ]of[ ](?:the[ ]|all[ ]|its[ ]|these[ ])?[$€£]?(?=\d)")
_RELATED_AFTER = re.compile(
    rf"{_UNIT}[)\]}}]{{0,3}}[ ]{{0,3}}(?:(?:{_RELATION})[^\n.;]{{0,60}}?|\b(?:{_IS})[ ]{{1,3}}(?:(?:about"
    rf"|approximately|roughly|exactly|only)[ ]+)?{_MONEY}[-+]?)(?=\d|\.\d)"
    rf"|{_UNIT}[)\]}}]{{0,3}}[ ]{{0,3}}(?:{_RELATION})[ ]*[(]?[ ]*[A-Za-z]?\(?[ ]*(?=[\d(√]|sqrt)"
)
_OPERATOR_BEFORE = re.compile(
    r"(?:(?P<minus>[\d)\]%°](?:[ ]{0,3}[A-Za-z°/^]{1,16}){0,4}[)\]]{0,3}[ ]{0,3}-"
    r"|(?<![A-Za-z])[a-zA-Z](?:\^\d)?[ ]{0,3}-)"
    r"|[\w)\]%°][ ]{0,3}(?:\*\*|[+*/^]|(?<=[ \d)])x(?=[ ])|\b(?:times|plus|minus|divided by|multiplied by"
    r"|mod)\b))[ ]{0,3}"
    r"[(\[{$€£¥ ]{0,4}[-+]?\Z"
)
_PART_OF = re.compile(
    r"(?:%|percent|\d/\d+|\bhalf|\bthirds?|\bquarters?|\bfourths?|\bfifths?|\btenths?)[ ]+of[ ]+(?:the[ ]+|its[ ]+"
    r"|all[ ]+)?[$€£]?\Z"
    r"|\b(?:sum|product|difference|average|mean|quotient|ratio|root|square|cube|half|double|triple|twice|gcd|lcm"
    r"|multiple)[ ]+"
    r"(?:of[ ]+|between[ ]+)?(?:the[ ]+(?:numbers?[ ]+)?)?[$€£]?\Z"
    r"|\b(?:sum|product|difference|average|mean)[ ]+(?:of|between)[ ]+[$€£]?\d[\d., $€£]{0,40}(?:and|,)[ ]+[$€£]?\Z"
    r"|\d[ ]+(?:out[ ]+)?of[ ]+(?:the[ ]+|all[ ]+)?[$€£]?\Z|(?:√|sqrt|root)[ ]*\(?[ ]*\Z|\bmod[ ]+\Z"
)
_INSTRUCTED = re.compile(
    r"\b(?:add(?:ing)?|subtract(?:ing)?|tak(?:e|ing)(?:[ ]+away)?|divid(?:e|ed|ing)(?:[ ]+[\w/]{1,14}){0,3}?[ ]+by"
    r"|multipl(?:y|ied|ying)(?:[ ]+[\w/]{1,14}){0,3}?[ ]+by"
    r"|carry|write|borrow|increases?[ ]+by|decreases?[ ]+by|goes[ ]+up[ ]+by|skips?|steps?[ ]+of|starts?[ ]+(?:at"
    r"|with|from)|from)[ ]+[$€£]?\Z",
    re.IGNORECASE,
)
_NOT = re.compile(
    r"(?:\b(?:not|never|than|neither|nor|without|instead[ ]of|rather[ ]than)|≠|!=|n't|nicht|kein|pas|no[ ]es|не|不是"
    r"|ではなく)[ ]+"
    r"(?:be[ ])?(?:just[ ]|only[ ]|equal[ ]to[ ]|simply[ ]|exactly[ ])?[$ (]*\Z|(?:不是|不等于)[ ]*\Z",
    re.IGNORECASE,
)
_COMPARED = re.compile(r"[\w)][ ]*(?:[<>≤≥]=?)[ ]*\Z")
_NOT_AFTER = re.compile(
    r"[ ](?:is|are|was|would be)[ ](?:wrong|incorrect|not|too[ ](?:high|low|big|small|large))\b|[ ]isn't\b"
)
_NAME = re.compile(r"(?:^|[^\w'^)\]])(?P<name>[A-Za-z])[\s\"'*_$)]*\Z")
_TERM = re.compile(r"(?:[\d)\]][ ]*[-+*/^]?|[-+*/^])[ ]*[A-Za-z][\s\"'*_$)]*\Z")
_NAMED = re.compile(
    r"(?<![\w'^])(?P<name>[A-Za-z])[\"'*_$) ]*(?:=|,[ ]+is\b|≈|→|:|\b(?:is|equals|must be|has to be|would be|will be"
    r"|stands for|represents|ist|es|est|é|è)\b)"
    r"[ ]*(?:therefore|then|thus|equal to|about|the number|:|exactly|just)?[\"'*_$( ]*\Z"
)
_TUPLE = re.compile(
    r"\([ ]*([a-zA-Z])[ ]*,[ ]*([a-zA-Z])[ ]*\)[ ]*=[ ]*\([ ]*([-+]?\d[\d.]*)[ ]*,[ ]*([-+]?\d[\d.]*)[ ]*\)"
)
_LINK_END = re.compile(rf"(?:{_RELATION})[ ]*{_MONEY}(?:(?:about|approximately|roughly)[ ])?[-+]?[ ]*\Z")
# "x = 12 → y = 7" goes on to another letter.
_NEXT_EQUATION = re.compile(rf"{_UNIT}[)\]}}]{{0,3}}[ ]{{0,3}}(?:=>|->|→)[ ]*(?P<name>[A-Za-z])[ ]*=")
# In "3x = 15 → x = 5" the arrow parts two equations.
_ARROW_BEFORE = re.compile(r"\A.*(?:→|=>|->)(?=[^→=>]*[=≈])", re.DOTALL)
_DECIMAL_FORM = re.compile(rf"[ )]*(?:{_RELATION})[ (]*(?:about |approximately |roughly )?")
_FACTOR = re.compile(r"[-+*/×·÷−–] *\Z")  # noqa: RUF001 - signs of arithmetic
# "P(at least one head)" names a value.
_FUNCTION = re.compile(r"(?<![A-Za-z])[A-Za-z]\([^()]{1,60}\)[ ]*\Z")
# "21 divided by 3 is 7"
_SAID_SUM = re.compile(
    r"\d[^.;,:\n=]{0,24}\b(?:plus|minus|times|divided by|multiplied by)\b[^.;,:\n=]{0,24}\d[^.;,:\n=]{0,16}"
    r"\b(?:is|equals|gives|makes|leaves)[ ]+[$€£]?\Z"
)
_SPLIT = re.compile(rf"{_RELATION}")
_CLAUSE_START = re.compile(
    r"[;:,\n|]|[.!?](?=\s)|\b(?:and|so|or|then|get|gives|that|if|when|where|therefore|thus|hence|is|are|with|have"
    r"|now|since|because|solution|let|for|to|yields|means)\b",
    re.IGNORECASE,
)
_FORMULA = re.compile(r"\d[ ]?[A-Za-z](?![A-Za-z])|(?<![A-Za-z'])[A-Za-z](?![A-Za-z'])")
_NUMERIC = re.compile(r"[\d.,]")
_NEARLY = re.compile(
    r"\b(?:about|approximately|approx|roughly|exactly|just|simply|therefore|then|nearly|around|is|a|total|of"
    r"|[A-Za-z] ?=)\b\s*|[A-Za-z] ?=\s*",
    re.IGNORECASE,
)
_HYPOTHETICAL = re.compile(
    r"\b(?:would|could|might)\b|\bif\b[^.!?\n]{0,80}\b(?:were|had|was)\b|\bsuppose\b|\bassum(?:e|ing)\b", re.IGNORECASE
)
_CLAIM_AFTER = re.compile(r"\b(?:but|so|therefore|however|hence|thus)\b", re.IGNORECASE)
_REMARK = re.compile(
    r"[\s(*]*(?:check(?:ing)?|verif(?:y|ication|ying)|note|notice|proof|for example|e\.g|fun fact|p\.?s|tip|hint"
    r"|remember|by comparison"
    r"|in comparison|for comparison|alternatively|(?:to )?double[- ]check|let'?s (?:check|verify)|you can check"
    r"|we can check)\b",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r",[ ]*(?:an?|the|which|i\.e|that is|saving|compared|instead|up from|down from|more|less)\b|\bi\.e\.|\bthat is\b"
    r"|[ ]and[ ]saves?\b|[-—][ ]"
    r"|,[ ]*[$€£]?\d[\d,.]*[ ](?:more|less|fewer)\b",
    re.IGNORECASE,
)
_OFF_POINT = re.compile(r"^[ ]{0,2}(?:[A-Za-z]+[ ])?(?:more|less|fewer|extra|too many|too few)[ ]|^[ ]?o'clock\b")
_ADVERBIAL = re.compile(
    r"(?:^|[.!?\n;,][ ]*|\b(?:so|and|but)[ ])(?:in|after|within|during|by|on|for|at|with|per)[ ]+(?:the[ ]|each[ ]"
    r"|every[ ])?(?:year[ ]|day[ ]|all[ ])?[$€£]?\Z",
    re.IGNORECASE,
)
_AFTERWARDS = re.compile(
    r"\b(?:after (?:that|it|this)|and then|then comes?|followed by|then)\b[ :a-z]{0,16}\Z", re.IGNORECASE
)
_REASON = re.compile(r"\b(?:because|since)\b", re.IGNORECASE)
_OR = re.compile(r"[ ]*,?[ ]*(?:\b[a-z]{1,12})?,?[ ]+or[ ]+(?:even[ ]|about[ ])?[$€£]?", re.IGNORECASE)
_SAME_VALUE = re.compile(r"[ ]*(?:[,(]|or|=|which is|i\.e\.|that is|meaning|[ ])*", re.IGNORECASE)
_RUN_GAP = re.compile(r"[ ]*,?[ ]*(?:and[ ]|or[ ])?[ ]*|[ ]*\n[ ]*")
_CONTENT = re.compile(r"[^\W\d_]{2,}")
_CLAUSE_END = re.compile(r"[,;:(]|[ ](?:and|but|while|so|or|i\.e\.)[ ]")
_NEW_CLAUSE = re.compile(r"[,;(]|[ ](?:and|but|while|so|or|i\.e\.)[ ]")
_EMPTY_WORDS = frozenset(
    (
        *(
            "how",
            "many",
            "much",
            "what",
            "which",
            "is",
            "are",
            "the",
            "of",
            "in",
            "on",
            "at",
            "to",
            "for",
            "does",
            "did",
            "do",
            "it",
        ),
        *(
            "its",
            "was",
            "were",
            "and",
            "or",
            "with",
            "from",
            "by",
            "her",
            "his",
            "their",
            "has",
            "have",
            "there",
            "be",
            "will",
        ),
        *("that", "this", "who", "when", "where", "get", "number", "answer", "one", "two", "value", "find", "give"),
        *("work", "out", "would", "you", "we", "they", "she", "he", "an", "as", "per", "each"),
    )
)
_TIME_UNITS = frozenset(("second", "minute", "hour", "day", "week", "month", "year"))
_OF_TIME = {"hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month", "yearly": "year", "annual": "year"}
_POSITIVE = re.compile(
    r"\b(?P<positive>positive)|\b(?P<negative>negative)[ ]+(?:solution|root|value|number|one|integer)", re.IGNORECASE
)
_WORD_CHARACTER = re.compile(r"\w")
_SEEN = 200


@dataclass(frozen=True, slots=True)
class Result:
    """A number that may be the answer: no operand, not superseded by a "=" after it, not denied.

    `name` is the letter or word whose value it is. `weak`: in brackets, in a supposition or in a remark, so that any
    other result goes before it. `computed`: it ends a calculation.
    """

    number: Number
    name: str | None
    weak: bool
    computed: bool

    @property
    def value(self) -> float:
        """The number's value."""
        return self.number.value

    @property
    def start(self) -> int:
        """The number's place."""
        return self.number.start


class NumberReader:
    """Reads one answer. `text` is plain (see `plain_text.plain`), as is the prompt, whose numbers are restated ones.

    `variable` prefers "x = 5". `ratios` reads "1 in 3" and "2 out of 6" as fractions.
    """

    def __init__(self, text: str, prompt: str = "", variable: str | None = None, *, ratios: bool = False) -> None:
        self._source = text
        self._text = unmarked(text)
        self._prompt = prompt
        self._variable = variable
        self._ratios = ratios
        self._remarks: dict[tuple[int, int], int] = {}
        self._variables = variables_of(self._text, prompt) | ({variable} if variable else set())

    def read(self) -> Number | None:
        """The stated number, or None when the answer holds none or leaves it open ("12 or 13")."""
        number = self._read()
        if number is None or self._is_left_open(number):
            return None
        number = self._as_percentage(number)
        return replace(number, fraction=self._fraction_before(number)) if number.unit else number

    def _as_percentage(self, number: Number) -> Number:
        """Where a percentage is asked for, the "72%" that follows "0.72, i.e." as the same value."""
        place = bisect_left([other.start for other in self._numbers], number.end)
        following = self._numbers[place] if place < len(self._numbers) else None
        if following is None or number.percent or not following.percent or not PERCENT_ASKED.search(self._prompt):
            return number
        gap = _SAME_VALUE.fullmatch(self._text, number.end, following.start)
        return following if gap and abs(following.value - number.value) < 1e-9 else number

    def _fraction_before(self, number: Number) -> float | None:
        """The fraction whose decimal form this number is given as, "3/20 = 0.15"; None where there is none."""
        place = bisect_left([other.start for other in self._numbers], number.start)
        if not place:
            return None
        before = self._numbers[place - 1]
        is_form = _DECIMAL_FORM.fullmatch(self._text, before.end, number.start) is not None
        factor = _FACTOR.search(self._text, max(0, before.start - 4), before.start) is not None
        return before.value if before.exact and is_form and not factor else None

    def _is_left_open(self, number: Number) -> bool:
        """Whether an "or" puts another value beside a number; "3/4, or 0.75" says one value twice."""
        place = bisect_left([other.start for other in self._numbers], number.start)
        near = self._numbers[max(0, place - 1) : place + 2]
        for first, second in pairwise(near):
            gap = self._text[first.end : second.start]
            # "60 * 2.5, or 150" says one value twice too.
            if number in (first, second) and _OR.fullmatch(gap) and not self._is_operand(first):
                values = {first.value, first.value * 100, second.value, second.value * 100}
                pair = abs(first.value - second.value)
                if pair > 0.01 * abs(second.value) and not (first.percent != second.percent and len(values) < 4):
                    return True
        return False

    def _read(self) -> Number | None:
        results = self._results
        if self._variable is not None and (pairs := self._tuple()):
            return pairs
        tried_variable = self._variable is None
        last_computed = max((r.start for r in self._fresh(results) if r.computed and not r.weak), default=-1)
        for statement in statements(self._source):
            if statement.firmness == "concluded" and not tried_variable:
                tried_variable = True
                if assigned := self._assigned(results):
                    return assigned.number
            superseded = last_computed >= statement.end and self._variable is None
            if statement.firmness == "concluded" and superseded:
                continue
            inside = [r for r in results if statement.start <= r.start < statement.end]
            if statement.firmness == "concluded" and self._source[statement.start - 2 : statement.start] == "**":
                inside = self._bold_beside(inside)
            if (
                statement.firmness == "bare"
                and inside
                and not self._opens(statement, inside[0].start)
                and self._is_a_step(inside[0].number, statement, results)
            ):
                continue
            if statement.firmness == "bare" and superseded and not (inside and self._opens(statement, inside[0].start)):
                continue
            if found := self._in_statement(statement, inside):
                if statement.firmness == "concluded" and self._is_a_step(found, statement, results):
                    continue
                return found
        if self._variable is not None and (assigned := self._assigned(results)):
            return assigned.number
        return self._at_the_end(results)

    @cached_property
    def _asked_values(self) -> list[float]:
        return [number.value for number in find_numbers(unmarked(self._prompt), variables=self._variables)]

    @cached_property
    def _asked_runs(self) -> list[list[float]]:
        """The prompt's own series of three numbers or more."""
        prompt = unmarked(self._prompt)
        runs: list[list[Number]] = []
        for number in find_numbers(prompt, variables=self._variables, lists=True):
            near = runs and re.fullmatch(
                r"[ ]*,?[ ]*(?:and[ ]|then[ ]|then[ ]+)*", prompt[runs[-1][-1].end : number.start]
            )
            if near:
                runs[-1].append(number)
            else:
                runs.append([number])
        return [[number.value for number in run[:100]] for run in runs[:20] if len(run) > 2]

    @cached_property
    def _asked(self) -> set[float]:
        asked = set(self._asked_values)
        return asked | {round(value * 100, 12) for value in asked if 0 < value < 1}

    @cached_property
    def _numbers(self) -> list[Number]:
        return list(find_numbers(self._text, ratios=self._ratios, variables=self._variables))

    @cached_property
    def _results(self) -> list[Result]:
        numbers = self._without_lists(self._numbers)
        asides = self._brackets
        sign = _POSITIVE.search(self._prompt) if self._variable is not None else None
        found: list[Result] = []
        for number in numbers:
            if self._is_operand(number):
                continue
            name, computed, equation = self._left_side(number)
            if equation or (
                self._variable is not None and name is not None and len(name) == 1 and name != self._variable
            ):
                continue
            if sign and (number.value > 0) is not (sign["positive"] is not None):
                continue
            weak = any(start < number.start < end for start, end in asides) or self._is_remark(number)
            found.append(Result(number, name, weak or self._is_a_reason(number, found), computed))
        return found

    def _is_a_reason(self, number: Number, earlier: list[Result]) -> bool:
        """Whether a number only stands in the reason for another one of its sentence: "12, because 10 is too low"."""
        start = max(self._sentence_of(number)[0], number.start - _SEEN)
        reason = next(iter(deque(_REASON.finditer(self._text, start, number.start), maxlen=1)), None)
        return reason is not None and any(start <= r.start < reason.start() and not r.weak for r in earlier[-20:])

    def _fresh(self, results: Sequence[Result]) -> list[Result]:
        return [result for result in results if result.value not in self._asked]

    def _in_statement(self, statement: Statement, inside: list[Result]) -> Number | None:
        if self._variable is not None and statement.firmness != "bare" and (assigned := self._assigned(inside)):
            return assigned.number
        results = [result for result in inside if not result.weak] or inside
        words = [
            Number(word.value, statement.start + word.start, statement.start + word.end, exact=word.exact)
            for word in word_numbers(self._text[statement.start : statement.end])
        ]
        if not results or (words and words[0].start < results[0].start and self._opens(statement, words[0].start)):
            return words[0] if words else None
        if statement.firmness != "concluded" and self._opens(statement, results[0].start):
            # "12 * 8 = 96, 96 - 75 = 21": the last of several sums is the answer.
            sums = [result for result in self._fresh(results) if result.computed] if results[0].computed else []
            return (sums or results)[-1 if len(sums) > 1 else 0].number
        fresh = self._fresh(results)
        if statement.firmness == "concluded":
            return self._of_a_sentence(fresh, first=self._variable is not None) if fresh else None
        return (fresh or results)[0].number

    def _is_a_step(self, found: Number, statement: Statement, results: Sequence[Result]) -> bool:
        """Whether a later sentence speaks more of what was asked than a conclusion: "so 72 remain. Now 64 are left"."""
        later = [r for r in self._fresh(results) if r.start >= statement.end and not r.weak]
        here = [r for r in results if r.number == found]
        return bool(later and here) and self._closeness(later[-1:], 0) > self._closeness(here, 0)

    def _bold_beside(self, inside: list[Result]) -> list[Result]:
        """With a result in bold, all others in bold of its sentence."""
        if not inside:
            return inside
        start, end = self._sentence_of(inside[-1])
        return [
            r for r in self._results if start <= r.start < end and self._source[max(0, r.start - 2) : r.start] == "**"
        ] or inside

    def _opens(self, statement: Statement, start: int) -> bool:
        return not re.search(r"[^\W\d_]", _NEARLY.sub("", self._text[statement.start : start]))

    def _assigned(self, results: Sequence[Result]) -> Result | None:
        named = [result for result in results if result.name == self._variable]
        strong = [result for result in named if not result.weak] or named
        return strong[-1] if strong else None

    def _tuple(self) -> Number | None:
        for match in reversed(list(_TUPLE.finditer(self._text))[:20]):
            for name, place in ((match[1], 3), (match[2], 4)):
                if name == self._variable:
                    return Number(float(match[place].rstrip(".")), match.start(place), match.end(place))
        return None

    def _at_the_end(self, results: list[Result]) -> Number | None:
        fresh = self._fresh(results)
        strong = [result for result in fresh if not result.weak]
        words = [Number(w.value, w.start, w.end, exact=w.exact) for w in word_numbers(self._text)]
        if strong:
            start, end = self._sentence_of(strong[-1])
            return self._of_a_sentence([r for r in strong if start <= r.start < end])
        claimed = [word for word in words if not self._is_reason(word)]
        for candidates in ([r.number for r in fresh], claimed, words, [r.number for r in results]):
            if candidates:
                return candidates[-1]
        return self._ordinal()

    def _is_reason(self, word: Number) -> bool:
        """Whether a number in words only stands in a reason, or says by how much."""
        start, _ = self._sentence_of(word)
        before = self._text[max(start, word.start - _SEEN) : word.start]
        return _REASON.search(before) is not None or before.endswith("by ") or _INSTRUCTED.search(before) is not None

    def _of_a_sentence(self, results: list[Result], *, first: bool = False) -> Number:
        """Which of the results of one sentence is the answer: the one that speaks of what was asked, else the last."""
        if len(results) == 1 or first:
            return results[0].number
        # The result of a calculation is not an aside, so the last one counts.
        if any(result.computed for result in results):
            return results[-1].number
        closeness = [self._closeness(results, place) for place in range(len(results))]
        best = max(closeness)
        if closeness.count(best) == 1 and best > 0:
            return results[closeness.index(best)].number
        between = self._text[results[0].number.end : results[1].start]
        aside = _ASIDE.search(self._text[results[0].number.end : results[1].start + 20])
        direct = self._sentence_of(results[0])[0] <= self._first_sentence_start and "\n" not in between
        return results[0 if aside and direct else -1].number

    @property
    def _first_sentence_start(self) -> int:
        return len(self._text) - len(self._text.lstrip())

    def _closeness(self, results: list[Result], place: int) -> int:
        start, end = self._sentence_of(results[place])
        if place:
            start = max(start, results[place - 1].number.end)
            start = _clause_end(self._text, start, results[place].start)
        elif clauses := deque(_NEW_CLAUSE.finditer(self._text, start, results[place].start), maxlen=1):
            start = clauses[0].end()
        end = _clause_end(self._text, results[place].number.end, min(end, results[place].number.end + 40))
        clause = self._text[start:end]
        words = {_singular(word) for word in _CONTENT.findall(clause)}
        asked = self._question_words
        other_time = (words & _TIME_UNITS) - asked if asked & _TIME_UNITS else set()
        return len(asked & words) - len(other_time)

    @cached_property
    def _question_words(self) -> set[str]:
        asked = re.split(r"(?<=[.!?])\s+", self._prompt.strip())
        question = next((part for part in reversed(asked) if part.endswith("?")), asked[-1] if asked else "")
        return {_singular(word) for word in _CONTENT.findall(question) if word.casefold() not in _EMPTY_WORDS}

    @cached_property
    def _asks_next(self) -> bool:
        """Whether the prompt asks for the next of a series, so that what follows that is no answer."""
        return re.search(r"\b(?:next|follows|right after)\b", self._prompt) is not None

    @cached_property
    def _sentences(self) -> list[tuple[int, int]]:
        return sentences(self._text, questions=True)

    @cached_property
    def _sentence_starts(self) -> list[int]:
        return [start for start, _ in self._sentences]

    def _sentence_of(self, result: Result | Number) -> tuple[int, int]:
        place = bisect_right(self._sentence_starts, result.start) - 1
        if place >= 0 and result.start < self._sentences[place][1]:
            return self._sentences[place]
        return 0, len(self._text)

    @cached_property
    def _brackets(self) -> list[tuple[int, int]]:
        """Bracketed asides: not factors, sets or arguments."""
        found = []
        for match in re.finditer(r"\(([^()]{0,300})\)", self._text):
            before = self._text[max(0, match.start() - 4) : match.start()]
            after = self._text[match.end() : match.end() + 4]
            words = re.search(r"[^\W\d_]{2,}|^[ ]*[$€£]?\d[\d.,]*[ ]?%?[ ]*$|[-+*/=]", match[1])
            outside = _WORD_CHARACTER.search(self._text, 0, match.start())
            factor = re.search(r"[-+*/^=(]\s*$|[a-z]\Z", before) or re.match(r"\s*[-+*/^=(]", after)
            if words and outside and not factor:
                found.append(match.span())
        return found

    def _is_remark(self, number: Number) -> bool:
        """Whether a number only stands in a remark, a question, a supposition or a condition."""
        start, end = self._sentence_of(number)
        before = self._text[max(start, number.start - 40) : number.start]
        return (
            number.start < self._remarked(start, end)
            or _OFF_POINT.match(self._text[number.end : number.end + 30]) is not None
            or _ADVERBIAL.search(before) is not None
            or (self._asks_next and _AFTERWARDS.search(before) is not None)
            or _NOT_AFTER.match(self._text, number.end) is not None
            or _INSTRUCTED.search(before) is not None
        )

    def _remarked(self, start: int, end: int) -> int:
        """Up to where a sentence is but a remark, a question or a supposition."""
        if (start, end) not in self._remarks:
            self._remarks[start, end] = self._remark_end(start, end)
        return self._remarks[start, end]

    def _remark_end(self, start: int, end: int) -> int:
        sentence = self._text[start:end]
        if _REMARK.match(sentence) or (is_question(sentence) and self._text[end:].strip()):
            return end
        supposed = deque(_HYPOTHETICAL.finditer(sentence), maxlen=1)
        if not supposed:
            return start
        claims = deque(_CLAIM_AFTER.finditer(sentence, supposed[0].end()), maxlen=1)
        if claims:
            return start + claims[0].start()
        known = self._asked | {number.value for number in self._numbers if number.start < start}
        unknown = {n.value for n in self._numbers if start <= n.start < end} - known
        return end if re.search(r"\b(?:if|suppose|assum\w+)\b", sentence, re.IGNORECASE) or len(unknown) > 1 else start

    def _without_lists(self, numbers: list[Number]) -> list[Number]:
        """The numbers, of a run of three or more only the one that goes on the prompt's own run: a list of values is no
        number."""
        kept: list[Number] = []
        run: list[Number] = []
        for number in [*numbers, None]:
            if number is not None and run and _RUN_GAP.fullmatch(self._text[run[-1].end : number.start]):
                run.append(number)
                continue
            kept += self._of_a_run(run)
            run = [] if number is None else [number]
        return kept

    def _of_a_run(self, run: list[Number]) -> list[Number]:
        if len(run) < 3:
            return run
        values = [number.value for number in run]
        for asked in self._asked_runs:
            for size in range(min(len(values) - 1, len(asked)), 1, -1):
                if any(asked[at : at + size] == values[:size] for at in range(len(asked) - size + 1)):
                    return [run[size]]
        if set(values) <= set(self._asked_values) or self._ends_a_sum(run[-1]):
            return run
        return []

    def _ends_a_sum(self, number: Number) -> bool:
        return bool(_OPERATED_AFTER.match(self._text, number.end) or _RELATED_AFTER.match(self._text, number.end))

    def _is_operand(self, number: Number) -> bool:
        text, window = self._text, max(0, number.start - _SEEN // 2)
        goes_on = _NEXT_EQUATION.match(text, number.end) if self._variable is not None else None
        if goes_on is None and _RELATED_AFTER.match(text, number.end):
            return True
        if _OPERATED_AFTER.match(text, number.end):
            return True
        if (number.percent or number.exact) and _SHARE_AFTER.match(text, number.end):
            return True
        before = text[window : number.start]
        if _PART_OF.search(before):
            return True
        if _NOT.search(before[-30:]) and not before.rstrip().endswith(" of"):
            return True
        return _COMPARED.search(before) is not None or _OPERATOR_BEFORE.search(before) is not None

    def _left_side(self, number: Number) -> tuple[str | None, bool, bool]:
        """Whose value a number is, whether it ends a calculation, and whether it is but a side of an equation."""
        text = self._text
        window = max(0, number.start - _SEEN)
        line = max(text.rfind("\n", window, number.start) + 1, window)
        left = _ARROW_BEFORE.sub("", text[line : number.start])
        if not _LINK_END.search(left):
            named = _NAMED.search(left)
            name = named["name"] if named and not _is_article(named, left) else None
            return name, name is None and _SAID_SUM.search(left) is not None, False
        sides = _SPLIT.split(left)[:-1]
        heads = []
        for side in reversed(sides):
            boundary = next(iter(deque(_CLAUSE_START.finditer(side), maxlen=1)), None)
            heads.append(side[boundary.end() :] if boundary else side)
            starts_anew = boundary and (boundary[0] != ":" or re.fullmatch(r"\s*[A-Za-z]\s*", heads[-1]))
            if boundary and starts_anew and boundary.end() < len(side) and len(heads) < len(sides):
                break
        head = heads[-1]
        middle = any(_NUMERIC.search(side) and not _FORMULA.search(_words_out(side)) for side in heads[:-1])
        computed = any(_NUMERIC.search(side) and re.search(r"[-+*/^x]|\btimes\b|sqrt|√", side) for side in heads)
        if _FUNCTION.search(head):
            return None, computed, False
        if (name := _NAME.search(head)) and not _TERM.search(head):
            return name["name"], computed, False
        bare = _words_out(head)
        if _FORMULA.search(bare) and re.search(r"\d[ ]?[A-Za-z]|[-+*/^()]", bare):
            evaluated = self._is_asked_formula(head)
            equation = not evaluated and (self._variable is not None or not (middle and len(heads) > 1))
            return None, computed, equation
        word = re.search(r"([^\W\d_]{2,})[\s*_:)]*\Z", head)
        return (word[1] if word else None), computed or len(heads) > 1, False

    def _is_asked_formula(self, formula: str) -> bool:
        asked, wanted = re.sub(r"\s", "", self._prompt), re.sub(r"\s", "", formula)
        if not wanted:
            return False
        at = asked.find(wanted)
        return at >= 0 and "=" not in asked[at + len(wanted) : at + len(wanted) + 1] and self._variable is None

    def _ordinal(self) -> Number | None:
        """The last of "5th" or "fifth" before a word that the prompt asks about."""
        asked = {word.casefold() for word in _CONTENT.findall(self._prompt)}
        found = [n for n in find_numbers(self._text, ordinals=True, variables=self._variables) if n.ordinal]
        found += [Number(w.value, w.start, w.end, ordinal=True) for w in word_ordinals(self._text)]
        for number in sorted(found, key=lambda n: n.start, reverse=True):
            following = _CONTENT.match(self._text[number.end : number.end + 30].strip())
            if following and following[0].casefold() in asked:
                return number
        return None


def _singular(word: str) -> str:
    word = word.casefold()
    if word in _OF_TIME:
        return _OF_TIME[word]
    return word.removesuffix("s") if len(word) > 3 else word


def _clause_end(text: str, start: int, end: int) -> int:
    """Where the clause that goes on at `start` ends."""
    boundary = _CLAUSE_END.search(text, start, end)
    return boundary.start() if boundary else end


def _is_article(named: re.Match[str], left: str) -> bool:
    return named["name"] in "aAI" and not re.search(r"[=≈]", left[named.start() :])


def _words_out(side: str) -> str:
    """A side of an equation without its words and units of several letters."""
    return re.sub(r"[^\W\d_]{2,}(?:[ ]?/[ ]?[^\W\d_]+)?|(?<=\d)[ ]?(?:m|g|s|h|l|L)(?![a-zA-Z])(?:\^\d)?|%", " ", side)
