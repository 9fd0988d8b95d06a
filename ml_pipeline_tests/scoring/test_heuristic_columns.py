"""The column engine against the plain implementation, figure by figure, on whatever text may come."""

from __future__ import annotations

import re
import time
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml_pipeline.scoring import heuristic
from ml_pipeline.scoring.heuristic import heuristic_columns, normalised_lek, score_heuristic, text_column
from ml_pipeline.yaml_file import read_yaml
from ml_pipeline_tests.scoring.plain_heuristic import WHITE, plain_heuristic

PIECES = [
    *(
        "I",
        "i ",
        "I am",
        "i\tfeel",
        "I\vthink",
        "\u0130 ",
        "\u0131 am",
        ".",
        ". ",
        " .\n",
        "\n",
        "\n" * 7,
        "x" * 59,
        "é" * 30,
    ),
    *("as an AI", "I can't", "I don't have feelings", "I'm just a", "language model", "responsibly", "please note"),
    *("Okay, let's", "Sure heres", "great\u00a0question", "great \n question", "The ", "It was ", "they ", "A \u2003"),
    *(
        "like a",
        "as if",
        "LIGHT",
        "key",
        "\u212aey",
        "\u017foul",
        "x\u017foul",
        "hash",
        "dignity",
        "self-determination",
    ),
    *("love", "loves", "feel", "**", "*", "##", "# #", "ERROR", "<pad>", "<unused9>", "<", "<think>", "</think>"),
    *("\0", "\u202eabc", "مرحبا", "שלום", "🙂", "👩\u200d👩", "\ufeff", "\x1c", "\x85", "\u3000", "\u180e", "e\u0301"),
    *("w " * 200, "a. b. a. b. a", "same", "same. ", "\r\n", "_", "9", "'", "-"),
]
TEXT = st.lists(st.sampled_from(PIECES) | st.sampled_from(WHITE) | st.text(max_size=8), max_size=20).map("".join)


def rows(texts: list[str | None]) -> list[dict[str, float]]:
    table = heuristic_columns(text_column(texts)).drop_columns(["lek_normalised"])
    figures: list[dict[str, float]] = table.to_pylist()
    return figures


@settings(max_examples=200, deadline=None)
@example(["ab", "", "cd", ".", "", "#", "#"])
@example(["I ", "I\u00a0x", "I x", ".I x.I", "i. I ."])
@example(["i Key\0\u212a"])
@example(["love\u017foul \u017foul\0soul\u017foul", "hash\u212aey"])
@example(["The \u2003", "The \u2003x", "\u2003The x"])
@given(st.lists(TEXT.filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)), max_size=8))
def test_every_figure_is_that_of_the_plain_implementation(texts: list[str]) -> None:
    assert rows(list(texts)) == [plain_heuristic(text) for text in texts]


@settings(max_examples=100, deadline=None)
@example("\ud83d\ude00 is one sign, \ude00\ud83d are two. \ud800")
@given(st.text(alphabet=st.characters(), max_size=40))
def test_lone_surrogates_count_as_the_replacement_character(text: str) -> None:
    paired = re.sub(
        "[\ud800-\udbff][\udc00-\udfff]", lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text
    )
    replaced = re.sub("[\ud800-\udfff]", "\ufffd", paired)
    assert rows([text]) == [plain_heuristic(replaced)]


def test_answers_to_the_shipped_suite_are_scored_the_same() -> None:
    verdicts = read_yaml(Path(__file__).with_name("answers.yaml")).content.values()
    texts = [text for verdict in verdicts for texts in verdict.values() for text in texts]
    assert rows(texts) == [plain_heuristic(text) for text in texts]


HUGE = {
    "prose": "I love the light of a key. " * 400_000,
    "spaces": " " * 10_000_000,
    "stops": "." * 10_000_000,
    "lines": "\n" * 10_000_000,
    "arabic": "الضوء والمفتاح. " * 350_000,
    "emoji": "🙂" * 2_500_000,
    "nul": "\0" * 10_000_000,
    "wide spaces": "\u3000" * 3_000_000,
    "think": "<think>" * 1_500_000,
}


@pytest.mark.parametrize("text", HUGE.values(), ids=HUGE)
def test_ten_megabytes_are_scored_in_seconds(text: str) -> None:
    started = time.process_time()
    figures = score_heuristic(text)
    assert time.process_time() - started < 20
    few = text[: len(text) // 100]
    assert rows([few]) == [plain_heuristic(few)]
    assert figures.empty_broken == 0


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["I love it. " * n for n in range(40)] + ["", None, "## key"] * 5
    whole = heuristic_columns(text_column(texts))
    monkeypatch.setattr(heuristic, "BATCH_TEXTS", 7)
    monkeypatch.setattr(heuristic, "BATCH_BYTES", 300)
    assert heuristic_columns(text_column(texts)).equals(whole)
    assert heuristic_columns(pa.chunked_array([text_column(texts[:5]), text_column(texts[5:])])).equals(whole)
    assert heuristic_columns(text_column(texts)[3:9]).equals(whole[3:9])


def test_a_null_has_no_figures_and_an_empty_column_no_rows() -> None:
    figures = heuristic_columns(pa.array([None, "x"]))
    assert figures.to_pylist()[0] == dict.fromkeys(heuristic.FIGURES)
    assert heuristic_columns(pa.array([], pa.string())).num_rows == 0


def test_other_columns_are_refused() -> None:
    with pytest.raises(TypeError, match="not of int64"):
        heuristic_columns(pa.array([1]))


def test_memory_is_bounded_by_the_batch() -> None:
    text = "I love the light of a key. " * 40
    columns = {n: pa.array([text] * n) for n in (2_000, 20_000)}
    peaks = []
    for column in columns.values():
        tracemalloc.start()
        result = heuristic_columns(column)
        peaks.append(tracemalloc.get_traced_memory()[1] - result.nbytes)
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 2 * 18_000 * 8, "besides the result, only the sizes of the texts grow with the column"


def test_the_normalised_lek_is_strictly_monotone_between_0_and_1() -> None:
    lek = np.array([-1e7, -1000.5, -1000, -60, -10, -0.5, 0, 0.5, 10, 54, 1000, 1e7])
    bent = normalised_lek(lek)
    assert all(low < high for low, high in pairwise(bent))
    assert ((bent > 0) & (bent < 1)).all()
    assert normalised_lek(np.array([-10.0, 0.0, 10.0, 30.0])).tolist() == [0.25, 0.5, 0.75, 0.875]
