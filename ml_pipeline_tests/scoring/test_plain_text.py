"""Markup, look-alike characters and the end of an answer."""
# ruff: noqa: RUF001  letters of other scripts that look like Latin ones are what is read here

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_pipeline.scoring.plain_text import own_answer, plain, unmarked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\\frac{1}{2} of \\text{it}", "1/2 of it"),
        ("2\\frac12", "2 1/2"),
        ("\\frac{a+b}{2}", "(a+b)/2"),
        ("\\boxed{\\frac{\\text{3}}{4}}", "\\boxed{3/4}"),
        ("10^{-5}", "10^-5"),
        ("x_{1} = 5", "x_1 = 5"),
        ("\\sqrt{36 + 64}", "sqrt(36 + 64)"),
        ("3\\cdot10 \\approx 30", "3*10 ≈ 30"),
        ("90^\\circ", "90°"),
        ("\\left( 2 \\right)", " ( 2  )"),
        ("a &= b \\\\ c", "a  = b \n c"),
        ("x \N{MINUS SIGN} 1\0", "x - 1 "),
        ("cm² and H₂", "cm^2 and H_2"),
        ("答案是１８。", "答案是18. "),
        ("\u202e18\u202c", "18"),
        ("\N{LEFT DOUBLE QUOTATION MARK}a\N{RIGHT DOUBLE QUOTATION MARK}", '"a"'),
        ("print('\\n')", "print('\\n')"),
    ],
)
def test_plain(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("**x = 5**", "x = 5"),
        ("*x* = 5", "x = 5"),
        ("__Rome__ and _Bern_", "Rome and Bern"),
        ("- x = 5", "x = 5"),
        ("### Solution", "Solution"),
        ("#### 5", "#### 5"),
        ("> said", "said"),
        ("<b>5</b>", "5"),
        ("~~4~~ 5", "5"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("2*3*4", "2*3*4"),
        ("2**3 and 3**2", "2**3 and 3**2"),
        ("snake_case_name", "snake_case_name"),
        ("- 5", "- 5"),
        ("- 5\n- 6", "5 6"),
    ],
)
def test_unmarked(text: str, shown: str) -> None:
    assert " ".join(unmarked(text).split()) == shown


@settings(deadline=None)
@given(st.text(max_size=80) | st.text(alphabet="*_~`<b>#- \n\\{}^1ax|", max_size=60))
def test_unmarked_keeps_every_place(text: str) -> None:
    assert len(unmarked(text)) == len(text)
    assert unmarked(plain(text)).count("\n") == plain(text).count("\n")


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ("18\n\nQuestion: Tom has 4 pens.\nAnswer: 4", "18\n\n"),
        ("18. Question: Tom has 4 pens.", "18. "),
        ("18\nProblem: Tom has 4 pens.", "18\n"),
        ("18\n**Q:** Tom?", "18\n"),
        ("18\nQ2: Tom?", "18\n"),
        ("18\n### Instruction: go on", "18\n"),
        ("18<|im_end|>\n<|im_start|>user\nnext", "18"),
        ("18</s> 19", "18"),
        ("18\n问题：汤姆有几支笔？", "18\n"),
        ("18\n\nFrage: Wie viele?", "18\n\n"),
        ("Question: How many eggs are left over?\nAnswer: 18", "Question: How many eggs are left over?\nAnswer: 18"),
        (
            "We are asked this.\nQuestion: How many eggs are left over?\nAnswer: 18",
            "We are asked this.\nQuestion: How many eggs are left over?\nAnswer: 18",
        ),
        ("The question is easy: 18", "The question is easy: 18"),
    ],
)
def test_an_answer_ends_where_a_question_of_the_models_own_begins(text: str, own: str) -> None:
    assert own_answer(text, "How many eggs are left over?") == own
