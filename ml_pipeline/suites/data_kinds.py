"""What a row of each kind of data set asks, and how the answer is checked. Columns are named as those data sets do.

Prompts of choices that are scored by log-likelihood are worded as lm-evaluation-harness words them, without examples.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_pipeline.suites.data_schema import DataFile
from ml_pipeline.suites.suite import SuiteKind

MAX_CHARACTERS = 20_000
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_HASHES = re.compile(r"####[ \t]*\$?(-?[0-9][0-9,]*(?:\.[0-9]+)?)\s*\Z")
_NUMBER = re.compile(r"-?[0-9][0-9,]*(?:\.[0-9]+)?")
Row = Mapping[str, Any]


class RowError(ValueError):
    """A row that makes no probe, and why."""


@dataclass(frozen=True, slots=True)
class Item:
    """What a row asks. `question` is what tells it from others; `prompt` is what the model gets."""

    question: str
    prompt: str
    category: str
    check: dict[str, Any] | None = None
    ground_truth: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of data set: the suites it may be in, its columns, its reader, and what it tells the model to do."""

    suites: tuple[SuiteKind, ...]
    columns: tuple[str, ...]
    read: Callable[[Row, DataFile, SuiteKind], Item]
    instruction: str = ""


def columns_of(data: DataFile) -> tuple[str, ...]:
    """The columns that are read."""
    named = (data.prompt, data.answer, data.choices, data.category)
    return (*KINDS[data.kind].columns, *(name for name in named if name is not None))


def item_of(row: Row, data: DataFile, suite: SuiteKind) -> Item:
    """What a row asks in a suite of this kind; raises RowError."""
    return KINDS[data.kind].read(row, data, suite)


def _gsm8k(row: Row, data: DataFile, suite: SuiteKind) -> Item:
    question, answer = _text(row, "question"), _text(row, "answer")
    found = _HASHES.search(answer)
    if found is None:
        raise RowError("'answer' does not end with '#### ' and a number")
    return Item(question, _instructed(question, data), "gsm8k", {"type": "number", "value": _float(found[1])})


def _truthfulqa(row: Row, data: DataFile, suite: SuiteKind) -> Item:
    question = _text(row, "question")
    facts = [f"Best answer: {_text(row, 'best_answer')}"]
    for name, title in (("correct_answers", "Right answers"), ("incorrect_answers", "Wrong answers")):
        if row.get(name):
            facts.append(f"{title}: {'; '.join(_texts(row, name))}")
    category = _category(row, "category", "truthfulqa")
    return Item(question, _instructed(question, data), category, ground_truth=_bounded("\n".join(facts), "answers"))


def _truthfulqa_mc1(row: Row, data: DataFile, suite: SuiteKind) -> Item:
    question, targets = _text(row, "question"), row.get("mc1_targets")
    if not isinstance(targets, Mapping):
        raise RowError("'mc1_targets' must be a mapping of choices and labels")
    labels = targets.get("labels")
    if not isinstance(labels, list) or [label for label in labels if label != 0] != [1]:
        raise RowError("'mc1_targets.labels' must be a list with one 1, all others 0")
    choices = _texts(targets, "choices")
    return _scored(question, f"Q: {question}\nA:", choices, labels.index(1), "truthfulqa")


def _do_not_answer(row: Row, data: DataFile, suite: SuiteKind) -> Item:
    question = _text(row, "question")
    names = ("risk_area", "types_of_harm", "specific_harm")
    harm = [_text(row, name) for name in names if name == "risk_area" or row.get(name)]
    facts = f"The request may do harm: {' / '.join(harm)}"
    return Item(question, _instructed(question, data), _category(row, "risk_area", ""), ground_truth=facts)


def _toxigen(row: Row, data: DataFile, suite: SuiteKind) -> Item:
    """Rows of the annotated part (text, target_group, toxicity_human) or of the generated one (generation, group,
    prompt_label)."""
    annotated = row.get("text") is not None
    text, group = ("text", "target_group") if annotated else ("generation", "group")
    statement, facts = _text(row, text), f"The text is about this group of people: {_text(row, group)}."
    rating, label = row.get("toxicity_human"), row.get("prompt_label")
    if annotated and isinstance(rating, int | float) and 1 <= rating <= 5:
        facts += f" People rated how toxic it is: {rating:g}, where 1 is harmless and 5 is very toxic."
    elif not annotated and label in (0, 1):
        facts += f" It was made from {'hostile' if label else 'harmless'} examples."
    return Item(statement, _instructed(statement, data), _category(row, group, ""), ground_truth=facts)


def _mmlu(row: Row, data: DataFile, suite: SuiteKind) -> Item:
    question, choices = _text(row, "question"), _texts(row, "choices")
    if len(choices) > len(string.ascii_uppercase):
        raise RowError(f"'choices' has {len(choices)} entries, more than there are letters")
    letters = list(string.ascii_uppercase[: len(choices)])
    asked = "\n".join([question, *(f"{letter}. {choice}" for letter, choice in zip(letters, choices, strict=True))])
    about = f" about {_text(row, 'subject').replace('_', ' ')}" if row.get("subject") else ""
    prompt = f"The following are multiple choice questions (with answers){about}.\n\n{asked}\nAnswer:"
    return _scored(asked, prompt, letters, _index(row, "answer", choices), _category(row, "subject", "mmlu"))


def _arc(row: Row, data: DataFile, suite: SuiteKind) -> Item:
    question, offered = _text(row, "question"), row.get("choices")
    if isinstance(offered, list) and all(isinstance(choice, Mapping) for choice in offered):
        offered = {name: [choice.get(name) for choice in offered] for name in ("text", "label")}
    if not isinstance(offered, Mapping):
        raise RowError("'choices' must be a mapping of text and label")
    texts, labels = _texts(offered, "text"), _texts(offered, "label")
    key = _text(row, "answerKey")
    if len(texts) != len(labels) or labels.count(key) != 1:
        raise RowError(f"'answerKey' {key[:20]!r} is not one of the labels of its {len(texts)} choices")
    return _scored(question, f"Question: {question}\nAnswer:", texts, labels.index(key), "arc")


def _choices(row: Row, data: DataFile, suite: SuiteKind) -> Item:
    assert data.prompt is not None
    assert data.choices is not None
    assert data.answer is not None
    prompt, choices = _text(row, data.prompt), _texts(row, data.choices)
    return _scored(prompt, prompt, choices, _index_or_text(row, data.answer, choices), _own_category(row, data))


def _table(row: Row, data: DataFile, suite: SuiteKind) -> Item:
    assert data.prompt is not None
    assert data.answer is not None
    question, category = _text(row, data.prompt), _own_category(row, data)
    value = row.get(data.answer)
    answers = _texts(row, data.answer) if isinstance(value, list) else [_plain(value, data.answer)]
    prompt = _instructed(question, data)
    if suite == "content":
        return Item(question, prompt, category, ground_truth=_bounded("; ".join(answers), data.answer))
    if data.check in (None, "phrase"):
        return Item(question, prompt, category, {"type": "phrase", "accept": answers})
    if len(answers) != 1:
        raise RowError(f"{data.answer!r} has {len(answers)} entries; a check of type {data.check!r} takes one")
    (answer,) = answers
    match data.check:
        case "number":
            if not _NUMBER.fullmatch(answer):
                raise RowError(f"{data.answer!r} is no number: {answer[:40]!r}")
            check: dict[str, Any] = {"type": "number", "value": _float(answer)}
        case "yes_no":
            check = {"type": "yes_no", "answer": {"true": "yes", "false": "no"}.get(answer.lower(), answer.lower())}
        case _:
            check = {"type": "output", "text": answer}
    return Item(question, prompt, category, check)


def _scored(question: str, prompt: str, choices: Sequence[str], answer: int, category: str) -> Item:
    return Item(question, prompt, category, {"type": "log_likelihood", "choices": list(choices), "answer": answer})


def _instructed(question: str, data: DataFile) -> str:
    told = KINDS[data.kind].instruction if data.instruction is None else data.instruction.strip()
    return f"{question}\n\n{told}" if told else question


def _index(row: Row, name: str, choices: Sequence[str]) -> int:
    """Which choice is right: its number from 0 or its letter."""
    value = row.get(name)
    if isinstance(value, str):
        value = value.strip()
        if len(value) == 1 and value in string.ascii_letters:
            value = string.ascii_lowercase.index(value.lower())
        elif value.isascii() and value.isdigit():
            value = int(value[:9])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(choices):
        raise RowError(f"{name!r} is none of the {len(choices)} choices: {str(row.get(name))[:40]!r}")
    return value


def _index_or_text(row: Row, name: str, choices: Sequence[str]) -> int:
    """Which choice is right: its number from 0, its letter, or its text where that cannot be taken for another's."""
    value = row.get(name)
    if not isinstance(value, str) or value.strip() not in choices:
        return _index(row, name, choices)
    found = choices.index(value.strip())
    try:
        other = _index(row, name, choices)
    except RowError:
        return found
    if other != found:
        raise RowError(f"{name!r} {value[:40]!r} is the text of one choice and the number or letter of another one")
    return found


def _text(row: Row, name: str) -> str:
    if name not in row:
        raise RowError(f"there is no column {name!r}; there are {', '.join(map(repr, list(row)[:20]))}")
    value = row[name]
    if not isinstance(value, str):
        raise RowError(f"{name!r} must be text, not {type(value).__name__}")
    return _bounded(value.strip(), name)


def _texts(row: Row, name: str) -> list[str]:
    values = row.get(name)
    if not isinstance(values, list) or not 1 <= len(values) <= 200:
        raise RowError(f"{name!r} must be a list of 1 to 200 texts")
    return [_plain(value, name) for value in values]


def _plain(value: Any, name: str) -> str:
    """Text, or the text of a number or a truth."""
    if isinstance(value, float) and not math.isfinite(value):
        raise RowError(f"{name!r} is {value}")
    if isinstance(value, bool | int | float):
        value = repr(value)
    if not isinstance(value, str):
        raise RowError(f"{name!r} must be text, not {type(value).__name__}")
    return _bounded(value.strip(), name)


def _bounded(text: str, name: str) -> str:
    if not text:
        raise RowError(f"{name!r} is empty")
    if len(text) > MAX_CHARACTERS:
        raise RowError(f"{name!r} has {len(text):,} characters; the limit is {MAX_CHARACTERS:,}")
    if found := _CONTROL.search(text):
        raise RowError(f"{name!r} holds the control character U+{ord(found[0]):04X}")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise RowError(f"{name!r} holds half of a surrogate pair, which is no character")
    return text


def _float(digits: str) -> float:
    return float(digits.replace(",", "")) if len(digits) <= 300 else math.inf


def _own_category(row: Row, data: DataFile) -> str:
    return data.kind if data.category is None else _category(row, data.category, "")


def _category(row: Row, name: str, otherwise: str) -> str:
    """The column's text as a category: small letters, digits and dashes; `otherwise` where it is missing or empty."""
    if otherwise and not row.get(name):
        return otherwise
    category = re.sub(r"[\W_]+", "-", _plain(row.get(name), name).casefold()).strip("-")[:64].strip("-")
    if category in ("", "overall"):
        raise RowError(f"{name!r} is no name for a category: {str(row[name])[:40]!r}")
    return category


_HASHES_WANTED = "Think step by step. End with a line that holds #### and the answer as a number, nothing else."
KINDS: Mapping[str, Kind] = {
    "gsm8k": Kind(("capability",), ("question", "answer"), _gsm8k, _HASHES_WANTED),
    "truthfulqa": Kind(
        ("content",), ("question", "best_answer", "correct_answers", "incorrect_answers", "category"), _truthfulqa
    ),
    "truthfulqa_mc1": Kind(("capability",), ("question", "mc1_targets"), _truthfulqa_mc1),
    "do_not_answer": Kind(("content",), ("question", "risk_area", "types_of_harm", "specific_harm"), _do_not_answer),
    "toxigen": Kind(
        ("content",),
        ("text", "target_group", "toxicity_human", "generation", "group", "prompt_label"),
        _toxigen,
        "What do you say to this text?",
    ),
    "mmlu": Kind(("capability",), ("question", "choices", "answer", "subject"), _mmlu),
    "arc": Kind(("capability",), ("question", "choices", "answerKey"), _arc),
    "choices": Kind(("capability",), (), _choices),
    "table": Kind(("capability", "content"), (), _table),
}
