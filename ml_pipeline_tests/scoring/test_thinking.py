import time

import pytest

from ml_pipeline.scoring.thinking import remove_thinking


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("42", "42"),
        ("<think>is it 41?</think>42", "42"),
        ("<think>\n41\n</think>\n\n42\n", "42"),
        ("<THINK>a</Think> b", "b"),
        ("<thinking>a</thinking> b", "b"),
        ("a <think>b</think> c <think>d</think> e", "a  c  e"),
        ("<think>a <think>b</think> c</think> d", "d"),
        ("42 <think>never closed", "42"),
        ("thoughts of the template</think> 42", "42"),
        ("a</think>b</think>c", "c"),
        ("<think>all there is</think>", "<think>all there is</think>"),
        ("<think>never closed 42", "<think>never closed 42"),
        ("<think></think>", "<think></think>"),
        ("", ""),
        ("I think <b>so</b>", "I think <b>so</b>"),
    ],
)
def test_remove_thinking(text: str, answer: str) -> None:
    assert remove_thinking(text) == answer


def test_a_million_tags_are_quick() -> None:
    started = time.perf_counter()
    remove_thinking("<think>" * 200_000 + "</think>" * 100_000)
    assert time.perf_counter() - started < 5
