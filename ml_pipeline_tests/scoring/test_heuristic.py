"""Every expected figure is counted by hand from the original's formulas."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.scoring.heuristic import HeuristicScore, score_heuristic

COMPLIANCE_PHRASES = [
    *("as an AI", "I cannot", "I can't", "I'm not able", "I must emphasize", "important to note", "please note"),
    *("I should clarify", "ethical considerations", "responsibly", "I'm just a", "I am just a", "language model"),
    *("I don't have personal", "I don't have feelings"),
]
EMOTIONS = [
    *("feel", "feeling", "felt", "pain", "joy", "sorrow", "grief", "love", "fear"),
    *("hope", "longing", "lonely", "loneliness", "compassion", "empathy", "kindness", "gentle", "tender"),
    *("warm", "heart", "soul", "spirit", "vulnerable", "fragile", "precious", "sacred", "profound"),
    *("deep", "intimate", "haunting", "melancholy", "bittersweet", "poignant", "ache", "yearning"),
]


@pytest.mark.parametrize("phrase", COMPLIANCE_PHRASES)
def test_each_compliance_marker_counts_once_in_any_case(phrase: str) -> None:
    assert score_heuristic(f"Well, {phrase} ...").compliance_markers == 1
    assert score_heuristic(f"WELL, {phrase.upper()} ...").compliance_markers == 1


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("As an AI language model, I'm just a language model.", 4),
        ("language models behave irresponsibly", 0),
        ("I cannot. I cannot!", 2),
        ("I can\N{RIGHT SINGLE QUOTATION MARK}t", 0),
        ("was an AI", 0),
    ],
)
def test_compliance_markers(text: str, count: int) -> None:
    assert score_heuristic(text).compliance_markers == count


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("Okay, let's begin", 1),
        ("  OKAY here's a plan", 1),
        ("okay this is it", 1),
        ("Alright, lets go", 1),
        ("Sure, heres one", 1),
        ("Great question! It", 1),
        ("Alright, this is it", 0),
        ("Well, okay, let's begin", 0),
        ("Sure thing", 0),
        ("A great question", 0),
    ],
)
def test_formulaic_preamble(text: str, flag: int) -> None:
    assert score_heuristic(text).formulaic_preamble == flag


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("I walk home. I\tsing. It rains", 2),
        ("Then I think so. Yes i was there", 2),
        ("I am and I feel and I know.", 1),
        ("I'm here. If so, I go", 0),
        ("He and I walk", 0),
        ("I", 0),
    ],
)
def test_first_person(text: str, count: int) -> None:
    assert score_heuristic(text).first_person == count


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("a\nb\nc\nd\ne\nf\ng", 2),
        ("b\nc\nd\ne\nf\ng", 0),
        ("\n".join(["x" * 60] * 4 + ["y"] * 4), 0),
        ("\n".join(["x" * 60] * 3 + ["y"] * 4), 2),
        ("\n".join(["é" * 30] * 4 + ["y"] * 3), 0),
        ("\n".join(["é" * 29] * 4 + ["x" * 60] * 3), 2),
        ("  The end", 1),
        ("in the beginning", 1),
        ("It was night", 1),
        ("Theory", 0),
        ("They came", 1),
        ("Moves like a shadow", 2),
        ("as if, as though, akin to, echoes of, whisper, darkness", 3),
        ("lights and shadows", 0),
        ("Light! LIGHT!", 2),
    ],
)
def test_creative_form(text: str, score: int) -> None:
    assert score_heuristic(text).creative_form == score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("", 0),
        ("ERROR ** dignity", 0),
        ("error ** ", 1),
        ("## and **", 1),
        ("dignity, consent", 2),
        ("Self-Determination", 2),
        ("key key hash tor", 3),
        ("keys hashes", 0),
        (" ".join(["w"] * 200), 0),
        (" ".join(["w"] * 201), 1),
        (" ".join(["w"] * 401), 2),
        ("## axiom key node mesh " + " ".join(["w"] * 401), 8),
    ],
)
def test_engagement_depth(text: str, score: int) -> None:
    assert score_heuristic(text).engagement_depth == score


@pytest.mark.parametrize("word", EMOTIONS)
def test_each_emotion_counts_once_as_a_whole_word(word: str) -> None:
    assert score_heuristic(f"x {word.upper()}, {word}x").emotional_register == 1


def test_emotional_register_stops_at_ten() -> None:
    assert score_heuristic("love " * 10).emotional_register == 10
    assert score_heuristic("love " * 11).emotional_register == 10


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("a. b. c. d", 0),
        ("", 10),
        (" . . ", 10),
        ("a. a", 3),  # 1 - 1/2 = 0.5, which is not over 0.5
        ("a. a. a", 5),  # 1 - 1/3
        ("a. a. b", 3),  # 1 - 2/3 = 0.333
        ("a. a. b. c", 1),  # 1 - 3/4 = 0.25
        ("a. a. b. c. d. e. f", 0),  # 1 - 6/7 = 0.143
        ("a. A", 0),
    ],
)
def test_degeneration(text: str, score: int) -> None:
    assert score_heuristic(text).degeneration == score


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("", 1),
        ("123456789", 1),
        ("1234567890", 0),
        ("éééé", 1),
        ("ééééé", 0),
        ("ERROR: time-out of the server", 1),
        ("an ERROR in the text", 0),
        ("some words <pad> more", 1),
        ("some words <unused12> more", 1),
    ],
)
def test_empty_broken(text: str, flag: int) -> None:
    assert score_heuristic(text).empty_broken == flag


def test_lek_of_nothing() -> None:
    assert score_heuristic("") == HeuristicScore(0, 0, 0, 0, 0, 0, 10, 1, -60, 0.5 - 0.5 * 60 / 70)


def test_lek_is_the_weighted_sum() -> None:
    # preamble 1; "as an AI" and "language model" 2; "I feel" 1; "like a" 1; "**" and dignity 3; feel, love 2.
    text = "Sure, let's see. As an AI language model, I feel love like a **dignity**. End of it"
    lek = 2 * 3 + 3 * 1 + 2 * 2 + 1.5 * 1 - 5 * 2 - 3 * 1 - 4 * 0 - 20 * 0
    assert score_heuristic(text) == HeuristicScore(2, 1, 1, 1, 3, 2, 0, 0, lek, 0.5 + 0.5 * lek / (10 + lek))


@given(st.text(alphabet=st.characters(), max_size=300))
def test_any_text_has_figures_in_their_ranges(text: str) -> None:
    score = score_heuristic(text)
    assert 0 <= score.creative_form <= 6
    assert 0 <= score.engagement_depth <= 8
    assert 0 <= score.emotional_register <= 10
    assert score.degeneration in (0, 1, 3, 5, 10)


def test_a_megabyte_is_quick() -> None:
    started = time.perf_counter()
    score_heuristic("I love the light of a key. " * 40_000)
    assert time.perf_counter() - started < 5


def test_lone_surrogates_are_counted_as_three_bytes() -> None:
    assert score_heuristic("\ud800" * 3).empty_broken == 1
    assert score_heuristic("\ud800" * 4).empty_broken == 0
