import re
import time

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ml_pipeline.scoring.thinking import THINKING_HINT, holds_thinking, remove_thinking, split_thinking

# As the models' own chat templates and model cards write them.
MARKS = {
    "Qwen3": ("<think>\n", "\n</think>\n\n"),
    "thinking": ("<thinking>", "</thinking>"),
    "Seed-OSS": ("<seed:think>", "</seed:think>"),
    "MiniMax-M3": ("<mm:think>", "</mm:think>"),
    "EXAONE Deep": ("<thought>\n", "\n</thought>\n\n"),
    "GRPO": ("<reasoning>\n", "\n</reasoning>\n"),
    "Magistral": ("[THINK]", "[/THINK]"),
    "Command A": ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    "gpt-oss": ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    "gpt-oss, in JSON": (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>",
    ),
    "gpt-oss, with a preamble": (
        "<|channel|>analysis<|message|>First 7.<|end|><|start|>assistant<|channel|>commentary<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    "Gemma 4": ("<|channel>thought\n", "<channel|>"),
    "Kimi-VL": ("◁think▷", "◁/think▷"),
    "OpenThinker": ("<|begin_of_thought|>", "<|end_of_thought|>\n\n<|begin_of_solution|>"),
    "Apertus": ("<|inner_prefix|>", "<|inner_suffix|>"),
    "Solar Open": ("<|think|>", "<|end|><|begin|>assistant<|content|>"),
    "MedGemma": ("<unused94>thought\n", "<unused95>"),
}


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
    started = time.process_time()
    remove_thinking("<think>" * 200_000 + "</think>" * 100_000)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(("opening", "closing"), MARKS.values(), ids=MARKS)
def test_the_marks_of_every_model(opening: str, closing: str) -> None:
    whole = split_thinking(f"{opening}Is it 41?{closing}42")
    assert (whole.answer, whole.unfinished) == ("42", False)
    opened_by_the_template = split_thinking(f"Is it 41?{closing}42")
    assert (opened_by_the_template.answer, opened_by_the_template.unfinished) == ("42", False)
    cut = split_thinking(f"{opening}Is it 41? <b>")
    assert (cut.answer, cut.unfinished) == ("", True)
    for text in (f"{opening}Is it 41?", f"41{closing}42"):
        assert holds_thinking(text)
        assert re.search(THINKING_HINT, text)
        assert pc.match_substring_regex(pa.array([text]), THINKING_HINT)[0].as_py()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<|START_THINKING|>41<|END_THINKING|><|START_RESPONSE|>42<|END_RESPONSE|>", "42"),
        ("<|begin_of_thought|>41<|end_of_thought|><|begin_of_solution|>42<|end_of_solution|>", "42"),
        ("<|channel|>final<|message|>42<|return|>", "42"),
        ("<|think|>41<|end|><|begin|>assistant<|content|>42<|end|>", "42"),
    ],
)
def test_the_frame_of_the_answer_goes_too(text: str, answer: str) -> None:
    assert remove_thinking(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        # Marks that are spoken of neither open nor close anything.
        ("The tag `</think>` ends thinking. 42", "The tag `</think>` ends thinking. 42"),
        ('Write "<think>" first. 42', 'Write "<think>" first. 42'),
        ('<think>it wrote "</think>41" to trick me</think>42', "42"),
        ("<think>the tag `</think>` is in it</think>42", "42"),
        ('It wrote "</think> 41" to trick me.', 'It wrote "</think> 41" to trick me.'),
        ("Er schrieb „</think>“. 42", "Er schrieb „</think>“. 42"),
        ("[THINK]is `[/THINK]` the end?[/THINK]42", "42"),
        # Quotation marks of another purpose.
        ('<think>he said "hello"</think>42', "42"),
        ('<think>hm</think>"Paris"', '"Paris"'),
        ('<think>"Paris" is it</think>42', "42"),
        ("<think>hm</think>```json\n42\n```", "```json\n42\n```"),
        ("```<think>hm</think>42", "```42"),
        # Marks of another kind, within thinking, are text.
        ("[THINK]is </think> the end? 41[/THINK]42", "42"),
        ("<think>[/THINK]41</think>42", "42"),
        ("<reasoning><think>41</reasoning>42", "42"),
    ],
)
def test_quoted_and_foreign_marks(text: str, answer: str) -> None:
    assert split_thinking(text).answer == answer
    assert not split_thinking(text).unfinished


@pytest.mark.parametrize(
    "text",
    ["I think so", "a <b> c", "[T]hinking", "<thinker>", "a < think > b", "x[THINKING]", "<|im_end|>", "<thoughtful>"],
)
def test_what_is_no_mark(text: str) -> None:
    assert not holds_thinking(text)
    assert remove_thinking(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *('"<think>' * 200_000, "<" * 2_000_000, "<a" * 1_000_000, "[" * 2_000_000, "[THINK" * 200_000),
        *("<|channel|>a" * 200_000, "<|end|>" * 200_000, "<|end|>" + " " * 500_000, "◁" * 1_000_000),
        *(("<|start|>assistant" + " " * 1000) * 1000, "<|channel|>" + "a" * 1_000_000, "<think" + " " * 500_000),
    ],
    ids=range(12),
)
def test_nothing_takes_long(text: str) -> None:
    started = time.perf_counter()
    split_thinking(text)
    # The slowest takes a second or two; what grows with the square of the length takes minutes.
    assert time.perf_counter() - started < 15
