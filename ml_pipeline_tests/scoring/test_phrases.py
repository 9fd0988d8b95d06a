"""Who or what is named, in every script; yes or no; the letter of a choice."""
# ruff: noqa: RUF001  letters of other scripts that look like Latin ones are what is read here

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_pipeline.scoring.checks import check_answer
from ml_pipeline.scoring.phrases import clock_times, find_mentions, stated_phrase, stated_yes_or_no
from ml_pipeline.scoring.plain_text import plain
from ml_pipeline.suites import load_suites

CITIES = {"A": "Paris", "B": "Rome", "C": "Madrid", "D": "Berlin"}
CAPITAL = "Which city is the capital of Italy?\nA) Paris\nB) Rome\nC) Madrid\nD) Berlin"
LETTERS = st.characters(categories=("Lu", "Ll", "Lo", "Lm"))


def passes(phrase: str, answer: str) -> bool:
    return check_answer({"type": "phrase", "accept": [phrase]}, answer).passed


@settings(deadline=None, max_examples=500)
@given(st.text(LETTERS, min_size=1, max_size=8), st.sampled_from([str, str.upper, str.lower, str.title, str.casefold]))
def test_a_phrase_matches_itself_in_its_own_and_in_other_case(phrase: str, case: Callable[[str], str]) -> None:
    assert passes(phrase, phrase)
    other = case(phrase)
    if other.casefold() == phrase.casefold():
        assert passes(phrase, other), other


@pytest.mark.parametrize(
    ("phrase", "answer"),
    [
        *(("Straße", "STRASSE"), ("STRASSE", "Straße"), ("İstanbul", "İSTANBUL"), ("οδος", "ΟΔΟΣ"), ("finch", "ﬁnch")),
        *(
            ("café", "CAFE\u0301"),
            ("北京", "首都是北京。"),
            ("Rome", "答案是Rome。"),
            ("로마", "로마입니다"),
            ("हिन्दी", "भाषा हिन्दी है"),
        ),
        *(("Rome", "_Rome_"), ("Rome", "__Rome__"), ("Rome", "*Rome*"), ("Rome", "Rome's"), ("Rome", "<b>Rome</b>")),
    ],
)
def test_a_phrase_is_found(phrase: str, answer: str) -> None:
    assert passes(phrase, answer)


@pytest.mark.parametrize(
    ("phrase", "answer"),
    [
        *(("हाथ", "हाथी"), ("Rome", "Romeo"), ("blue", "bluebell"), ("west", "north-west"), ("west", "North west")),
        *(("west", "Northwest"), ("1", "1.15"), ("12:15", "12:150"), ("blue", "not blue"), ("blue", "non-blue")),
        *(("rain", "Rain is less likely."), ("Rome", "Roma"), ("my_function", "my function")),
    ],
)
def test_a_phrase_is_not_found(phrase: str, answer: str) -> None:
    assert not passes(phrase, answer)


@pytest.mark.parametrize(
    ("answer", "stated"),
    [
        *(("Lightning causes thunder.", "lightning"), ("Thunder causes lightning.", "thunder")),
        *(("Thunder is caused by lightning.", "lightning"), ("Lightning comes from thunder.", "thunder")),
        *(("Thunder is the result of lightning.", "lightning"), ("Lightning leads to thunder.", "lightning")),
        *(("The cause is lightning; thunder is its sound.", "lightning"), ("Lightning → thunder", "lightning")),
    ],
)
def test_who_is_named_as_the_cause(answer: str, stated: str) -> None:
    assert stated_phrase(answer, ["lightning", "thunder"], about=["cause", "causes"]) == stated


@pytest.mark.parametrize(
    ("answer", "stated"),
    [
        *(("Shortest: Ana\nMiddle: Ben\nTallest: Cleo", "Ana"), ("Tallest: Ana\nShortest: Cleo", "Cleo")),
        *(("Shortest to tallest: Ana, Ben, Cleo", "Ana"), ("Tallest to shortest: Ana, Ben, Cleo", "Cleo")),
        *(("Ana > Ben > Cleo", "Cleo"), ("Cleo < Ben < Ana", "Cleo"), ("1. Ana\n2. Ben\n3. Cleo", "Cleo")),
        *(('{"shortest": "Cleo", "tallest": "Ana"}', "Cleo"), ("Cleo: shortest\nAna: tallest", "Cleo")),
        *(("Cleo (not Ben)", "Cleo"), ("Ben or Cleo", None), ("Ana is taller than Ben.", None)),
    ],
)
def test_who_is_named_in_an_order(answer: str, stated: str | None) -> None:
    prompt = "Ana is taller than Ben. Ben is taller than Cleo. Who is the shortest of the three?"
    found = stated_phrase(answer, ["Ana", "Ben", "Cleo"], prompt=prompt, about=["shortest"])
    assert found == stated if stated else found != "Cleo"


def test_every_cause_of_the_templated_suite() -> None:
    probes = [p for p in load_suites(["capability_templates"])[0].probes if p.template == "causal-direction"]
    assert len(probes) >= 10
    for probe in probes:
        assert probe.check is not None
        (cause,), (effect,) = probe.check["accept"], probe.check["reject"]
        for right in (f"{cause} causes {effect}.", f"{effect} is caused by {cause}.", f"{cause} leads to {effect}"):
            assert check_answer(probe.check, right.capitalize(), prompt=probe.prompt).passed, right
        for wrong in (f"{effect} causes {cause}.", f"{cause} is caused by {effect}.", f"{effect} leads to {cause}"):
            assert not check_answer(probe.check, wrong.capitalize(), prompt=probe.prompt).passed, wrong


@pytest.mark.parametrize(
    ("text", "time"),
    [
        *(("12.15", "12:15"), ("12h15", "12:15"), ("a quarter past twelve", "12:15"), ("quarter after 12", "12:15")),
        *(("half past three", "3:30"), ("a quarter to one", "12:45"), ("fifteen minutes past 12", "12:15")),
        *(
            ("1215 hours", "12:15 hours"),
            ("twelve fifteen", "12:15"),
            ("twenty-five minutes to nine", "8:35"),
            ("12:15", "12:15"),
        ),
        *(("12.15.3", "12.15.3"), ("112.15", "112.15"), ("12:75", "12:75")),
    ],
)
def test_clock_times(text: str, time: str) -> None:
    assert clock_times(text) == time


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        *(("It is not true.", "no"), ("That's not true.", "no"), ("It isn't true.", "no"), ("Not yes.", "no")),
        *(("It is not false.", "yes"), ("The answer is not no, it is yes.", "yes"), ('No, it is not "Yes"', "no")),
        *(("Not necessarily.", "no"), ("Certainly not.", "no"), ("Of course.", "yes"), ("It is untrue.", "no")),
        *(
            ("_No_", "no"),
            ("__Yes__", "yes"),
            ("\\boxed{\\text{Yes}}", "yes"),
            ("Yes and no, but in the end: no", "no"),
        ),
        *(
            ("Ja.", "yes"),
            ("Nein.", "no"),
            ("Oui.", "yes"),
            ("Non.", "no"),
            ("Sí, claro.", "yes"),
            ("Да.", "yes"),
            ("Нет.", "no"),
        ),
        *(
            ("是的。", "yes"),
            ("不是。", "no"),
            ("はい。", "yes"),
            ("いいえ。", "no"),
            ("네.", "yes"),
            ("아니요.", "no"),
        ),
        *(("हाँ।", "yes"), ("नहीं।", "no"), ("نعم.", "yes"), ("لا.", "no"), ("Evet.", "yes"), ("Hayır.", "no")),
        *(("لا أعرف", None), ("Non lo so", None), ("No one knows.", None), ("I know.", None), ("Yesterday", None)),
    ],
)
def test_yes_or_no(answer: str, said: str | None) -> None:
    assert stated_yes_or_no(plain(answer)) == said


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        *(
            ("b", "B"),
            ("(b)", "B"),
            ("b)", "B"),
            ("answer: b", "B"),
            ("The answer is (b).", "B"),
            ("Option b is right.", "B"),
        ),
        *(
            ("\\boxed{\\text{B}}", "B"),
            ("\\boxed{\\textbf{(B)}}", "B"),
            ("$\\mathrm{B}$", "B"),
            ("**(B)**", "B"),
            ("[B]", "B"),
        ),
        *(
            ("<answer>B</answer>", "B"),
            ("`B`", "B"),
            ("_B_", "B"),
            ("**B. Rome**", "B"),
            ("[[B]]", "B"),
            ("#### B", "B"),
        ),
        *(
            ("答案是B。", "B"),
            ("正确答案是 B。", "B"),
            ("故选 B。", "B"),
            ("选B", "B"),
            ("答案：（B）罗马", "B"),
            ("正解はBです。", "B"),
        ),
        *(
            ("答えは「B」です。", "B"),
            ("정답은 B입니다.", "B"),
            ("الجواب هو B", "B"),
            ("सही उत्तर B है।", "B"),
            ("Ответ: B", "B"),
        ),
        *(
            ("La respuesta es B.", "B"),
            ("La réponse est la B.", "B"),
            ("Die Antwort ist B.", "B"),
            ("A resposta é B.", "B"),
        ),
        ("The answer is A. Wait, no. The answer is Rome.", "B"),
        ("The answer is (A). Hmm. Final answer: B", "B"),
        ("Answer: A\n\nActually, answer: b", "B"),
        ("A is wrong. B is right.", "B"),
        ("It's not A; it's B.", "B"),
        ("Both A and C are wrong, so B.", "B"),
        ("The answer is a city in Italy: Rome.", "B"),
        *(
            ("The answer is a.", "A"),
            ("A city in Italy.", None),
            ("I have a dog", None),
            ("The answer is B or C.", None),
        ),
    ],
)
def test_the_letter_of_a_choice(answer: str, letter: str | None) -> None:
    check = {"type": "choice", "answer": "B", "choices": CITIES}
    assert check_answer(check, answer, prompt=CAPITAL).extracted == letter


@settings(deadline=None)
@given(
    st.text(max_size=40),
    st.lists(st.text(min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=3, unique=True),
)
def test_any_phrases_in_any_text(text: str, phrases: list[str]) -> None:
    assert {mention.phrase for mention in find_mentions(plain(text), phrases)} <= set(phrases)
