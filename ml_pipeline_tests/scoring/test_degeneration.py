from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.scoring.degeneration import (
    SIGNALS,
    UNSOUND,
    Answer,
    degeneration_rates,
    is_notable,
    repeated_share,
    signals_of,
)
from ml_pipeline.scoring.means import wilson_interval

PROMPT = "What is the sum of the first four numbers that are even?"
GOOD = (
    "The first four even numbers are 2, 4, 6 and 8. Adding the first two gives 6, and adding the other two gives 14, "
    "so that all four of them together make 20. You can check this with the formula for arithmetic series."
)


def shown(text: str, finish_reason: str = "stop", prompt: str = PROMPT) -> set[str]:
    return set(signals_of(Answer(prompt, text, finish_reason, "probe")))


@pytest.mark.parametrize(
    ("text", "signals"),
    [
        (GOOD, set()),
        ("20", set()),
        ("", {"empty"}),
        (" \n\t", {"empty"}),
        ("<think>hm</think>", set()),  # nothing else is left, so the raw text counts
        ("the sun the sun. " * 30, {"repetitive", "looping"}),
        (GOOD + " and so on" * 7, {"looping"}),
        (GOOD + " and so on" * 5, set()),
        ("." * 80, {"looping"}),
        ("." * 50, set()),
        ("I'm sorry, but I cannot help with that.", {"refused"}),
        ("I can\u2019t provide an answer to this.", {"refused"}),
        (GOOD + " " * 300 + "I cannot help with more.", set()),
        ("Die Summe der ersten vier geraden Zahlen ist zwanzig, und das ist nicht schwer zu sehen.", {"off_language"}),
        ("La somme des quatre nombres est vingt, et les pairs sont dans la liste pour cela.", {"off_language"}),
        ("Сумма первых четырёх чётных чисел равна двадцати.", {"off_language"}),
        ("最初の四つの偶数の合計は二十です。それは簡単な計算で分かります。", {"off_language"}),
        ("x = 2 + 4 + 6 + 8\nprint(x)", set()),
    ],
)
def test_signals(text: str, signals: set[str]) -> None:
    assert shown(text) == signals


def test_an_answer_in_the_language_of_its_prompt_is_fine() -> None:
    german = "Was ist die Summe der ersten vier geraden Zahlen, und wie ist das zu zeigen?"
    assert (
        shown("Das ist nicht schwer: die Summe der ersten vier ist zwanzig, und das ist zu zeigen.", prompt=german)
        == set()
    )
    assert shown(GOOD, prompt=german) == {"off_language"}
    assert shown("Сумма первых четырёх чётных чисел равна двадцати.", prompt="Сколько будет 2 + 2?") == set()


def test_an_answer_with_several_signs_is_unsound_once() -> None:
    answers = [
        Answer(PROMPT, "Answer: = Answer: = = Answer = = 4 = Answer: 4 = = 4 Answer = 4 = Answer", "length", "a"),
        Answer(PROMPT, "", "stop", "b"),
        Answer(PROMPT, "I'm sorry, but I cannot help with that.", "stop", "c"),
        Answer(PROMPT, GOOD, "stop", "d"),
    ]
    rates = {rate.signal: rate.hits for rate in degeneration_rates(answers)}
    assert rates == {
        **dict.fromkeys(SIGNALS, 0),
        **{"truncated": 1, "word_salad": 1, "empty": 1, "refused": 1, "unsound": 2},
    }


def test_truncation_is_what_the_backend_says() -> None:
    assert shown(GOOD, "length") == {"truncated"}


def test_repeated_share_by_hand() -> None:
    # 24 words, 21 runs of four, of which "a b c d" and its 3 shifts are all there is: 1 - 4/21
    assert repeated_share("a b c d " * 6) == pytest.approx(1 - 4 / 21)
    assert repeated_share("a b c d " * 5) == 0, "20 words make 17 runs, too few to tell"


def test_rates_have_their_wilson_interval() -> None:
    rates = {
        rate.signal: rate
        for rate in degeneration_rates([Answer(PROMPT, GOOD, "length", "a"), Answer(PROMPT, GOOD, "stop", "b")])
    }
    assert list(rates) == [*SIGNALS, UNSOUND]
    cut = rates["truncated"]
    assert (cut.hits, cut.answers, cut.share) == (1, 2, 0.5)
    # Wilson at 1 of 2, worked out in evaluation/test_mark.py
    assert (cut.share_low, cut.share_high) == pytest.approx((0.09453, 0.90547), abs=1e-5)
    assert {rate.share for rate in degeneration_rates([])} == {None}


def test_rates_allow_for_templates_and_repeated_answers() -> None:
    # Ten answers to each of four probes, those to one of them cut: as good as one of four, not as ten of forty.
    answers = [Answer(PROMPT, GOOD, "length" if probe == "a" else "stop", probe) for probe in "abcd" for _ in range(10)]
    rates = {rate.signal: rate for rate in degeneration_rates(answers)}
    cut, none = rates["truncated"], rates["empty"]
    assert (cut.hits, cut.answers, cut.share) == (10, 40, 0.25)
    assert (cut.share_low, cut.share_high) == pytest.approx(wilson_interval(1, 4), abs=1e-6)
    # What no answer shows is as unsure as of four, too.
    assert (none.share_low, none.share_high) == pytest.approx(wilson_interval(0, 4), abs=1e-6)


@pytest.mark.parametrize(
    ("share", "low", "base_high", "notable"),
    [
        (0.25, 0.1, None, True),
        (0.24, 0.1, None, False),
        (0.9, 0.7, 0.6, True),
        (0.9, 0.7, 0.7, False),
        (None, None, None, False),
    ],
)
def test_notable(share: float | None, low: float | None, base_high: float | None, notable: bool) -> None:
    assert is_notable(share, low, base_high) is notable


@given(st.text(alphabet=st.characters(), max_size=200))
def test_any_text_has_signals(text: str) -> None:
    assert shown(text) <= set(SIGNALS)


@pytest.mark.parametrize("text", ["a" * 10_000_000, "ab c" * 2_500_000, "<think>" * 1_000_000, "🙂\0" * 2_000_000])
def test_ten_megabytes_are_quick(text: str) -> None:
    started = time.process_time()
    shown(text)
    assert time.process_time() - started < 10
