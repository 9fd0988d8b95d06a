"""The deterministic checks of capability probes: does this answer state the expected one?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from ml_pipeline.errors import SuiteError
from ml_pipeline.scoring.choices import stated_choice
from ml_pipeline.scoring.lists import ListReader, canonical_items
from ml_pipeline.scoring.number_values import agrees
from ml_pipeline.scoring.outputs import same_output, stated_output
from ml_pipeline.scoring.phrases import find_mentions, stated_phrase, stated_yes_or_no
from ml_pipeline.scoring.plain_text import own_answer, plain, unmarked
from ml_pipeline.scoring.stated_number import NumberReader
from ml_pipeline.scoring.thinking import split_thinking
from ml_pipeline.suites.patterns import find_first
from ml_pipeline.suites.schema import (
    CHECK,
    ChoiceCheck,
    ContainsAllCheck,
    LogLikelihoodCheck,
    NumberCheck,
    OutputCheck,
    PhraseCheck,
    RegexCheck,
    SequenceCheck,
    YesNoCheck,
)

MARKING_VERSION = "2"
"""Version of how answers are read. Raise it with every change of a verdict: stored results of an earlier version are
then shown as out of date, and scoring them again from the stored responses asks no model."""
MAX_EXTRACTED_CHARS = 300
MAX_READ_CHARS = 20_000


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Whether an answer passed, what was read out of it (None when nothing could be), and what was wanted."""

    passed: bool
    extracted: str | None
    expected: str


def check_answer(check: Mapping[str, Any], answer: str, *, prompt: str = "") -> CheckResult:
    """Check an answer against a probe's check (see `suites.schema` for the types and their fields).

    Thinking is removed first, so that an answer of nothing but thinking passes no check. The prompt, where given,
    tells numbers and sentences that the answer only restates from those that it states. Of an answer of more than
    MAX_READ_CHARS the first quarter of that and the last three are read. Pure, and never runs what a model wrote.

    Raises SuiteError when the check is not a valid one; checks out of a loaded suite are.
    """
    text, asked = plain(_ends(own_answer(split_thinking(answer).answer, prompt))), plain(prompt)
    result = _check(_validated(check), text, asked)
    return replace(result, extracted=result.extracted and shortened(result.extracted))


def shortened(extracted: str) -> str:
    """What was read out of an answer, cut to MAX_EXTRACTED_CHARS for the tables."""
    return extracted if len(extracted) <= MAX_EXTRACTED_CHARS else extracted[: MAX_EXTRACTED_CHARS - 1] + "…"


def expected_answer(check: Mapping[str, Any]) -> str:
    """What a check wants, in words; raises SuiteError when the check is not a valid one."""
    return _check(_validated(check), "", "").expected


def _ends(text: str) -> str:
    if len(text) <= MAX_READ_CHARS:
        return text
    head = MAX_READ_CHARS // 4
    return f"{text[:head]}\n{text[head - MAX_READ_CHARS :]}"


def _validated(check: Mapping[str, Any]) -> Any:
    try:
        return CHECK.validate_python(dict(check))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise SuiteError.from_problems("check", problems, "Load checks with suites.load_suites.") from error


def _check(check: Any, text: str, prompt: str) -> CheckResult:
    match check:
        case NumberCheck():
            return _number(check, text, prompt)
        case PhraseCheck():
            stated = stated_phrase(
                text,
                [*check.accept, *check.reject],
                prompt=prompt,
                about=check.about,
                case_sensitive=check.case_sensitive,
                alike=check.accept,
            )
            return CheckResult(stated in check.accept, stated, " or ".join(check.accept))
        case YesNoCheck():
            stated = stated_yes_or_no(text, prompt)
            return CheckResult(stated == check.answer, stated, check.answer)
        case ChoiceCheck():
            stated = stated_choice(text, check.choices, prompt)
            return CheckResult(stated == check.answer, stated, f"{check.answer}) {check.choices[check.answer]}")
        case SequenceCheck():
            return _sequence(check, text, prompt)
        case ContainsAllCheck():
            return _contains_all(check, text)
        case RegexCheck():
            found = find_first(check.pattern, text)
            rejected = find_first(check.reject, text) if check.reject is not None else None
            expected = f"/{check.pattern}/" + (f" and not /{check.reject}/" if check.reject else "")
            return CheckResult(found is not None and rejected is None, rejected or found, expected)
        case OutputCheck():
            stated = stated_output(text, check.text, prompt)
            return CheckResult(stated is not None and same_output(stated, plain(check.text)), stated, check.text)
        case LogLikelihoodCheck():
            raise SuiteError("a check of type 'log_likelihood' reads no text: see scoring.log_likelihood.")
        case _:
            raise AssertionError(f"a check type without a reader: {check!r}")


def _number(check: NumberCheck, text: str, prompt: str) -> CheckResult:
    wanted = check.wanted
    number = NumberReader(text, prompt, check.variable, ratios=0 < wanted < 1).read()
    expected = f"{check.value if check.is_fraction else f'{wanted:g}'}{'%' if check.percent else ''}"
    if check.tolerance > 1e-6:
        expected += f" ± {check.tolerance:g}"
    if number is None:
        return CheckResult(False, None, expected)
    passed, value = agrees(check, number, prompt)
    return CheckResult(passed, f"{value:.10g}", expected)


def _sequence(check: SequenceCheck, text: str, prompt: str) -> CheckResult:
    stated = ListReader.of(text, check.items, check.reject, prompt).read()
    wanted = canonical_items(check.items)
    expected = ", ".join(wanted) + ("" if check.ordered else " (in any order)")
    if stated is None:
        return CheckResult(False, None, expected)
    passed = stated == wanted if check.ordered else sorted(stated) == sorted(wanted)
    return CheckResult(passed, ", ".join(stated), expected)


def _contains_all(check: ContainsAllCheck, text: str) -> CheckResult:
    parts = [*check.parts, *check.reject]
    named = {mention.phrase for shown in (text, unmarked(text)) for mention in find_mentions(shown, parts)}
    found = [part for part in [*check.parts, *check.reject] if part in named]
    passed = named == set(check.parts)
    return CheckResult(passed, ", ".join(found) or None, " and ".join(check.parts))
