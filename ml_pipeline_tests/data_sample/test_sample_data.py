"""The shipped sample: checkpoints that parse and name no machine, and training questions that no suite asks."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from ml_pipeline.suites import available_suites, load_suites

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "data" / "sample"
RUNS = ("adapters-smollm2-135m-reasoning", "adapters-smollm2-135m-hot")
MEGABYTE = 1_000_000
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
MACHINE_PATH = re.compile(r"/(?:home|root|work|tmp|Users|var|opt|mnt|private)\b|[A-Z]:\\|\.venv|site-packages")


def _run_folder(run: str) -> Path:
    return SAMPLE / "checkpoints" / run


def _checkpoints(run: str) -> list[Path]:
    return sorted(_run_folder(run).glob("*_adapters.safetensors"))


@pytest.mark.parametrize("run", RUNS)
def test_a_run_holds_four_numbered_checkpoints_its_configuration_and_its_log(run: str) -> None:
    names = {path.name for path in _run_folder(run).iterdir()}
    numbered = {name for name in names if re.fullmatch(r"\d{7}_adapters\.safetensors", name)}
    assert len(numbered) >= 4
    assert names - numbered == {"adapter_config.json", "training.log"}


@pytest.mark.parametrize("run", RUNS)
def test_checkpoints_hold_the_pairs_that_the_configuration_promises(run: str) -> None:
    config = json.loads((_run_folder(run) / "adapter_config.json").read_text())
    lora = config["lora_parameters"]
    last = 30
    expected = {
        f"model.layers.{layer}.{key}.lora_{half}"
        for layer in range(last - config["num_layers"], last)
        for key in lora["keys"]
        for half in "ab"
    }
    for path in _checkpoints(run):
        tensors = load_file(path)
        assert set(tensors) == expected
        for name, tensor in tensors.items():
            assert tensor.dtype == "float32"
            assert tensor.shape[name.endswith("a")] == lora["rank"]
    assert config["iters"] == int(_checkpoints(run)[-1].name[:7])


@pytest.mark.parametrize("run", RUNS)
def test_the_log_reports_losses_and_every_save(run: str) -> None:
    text = ANSI.sub("", (_run_folder(run) / "training.log").read_text("utf-8"))
    assert re.search(r"^\s+\d+\s+val \d+\.\d+", text, re.MULTILINE)
    assert len(re.findall(r"^\s+\d+\s+\d+\.\d+", text, re.MULTILINE)) >= 10
    for path in _checkpoints(run):
        assert path.name in text


@pytest.mark.parametrize("run", RUNS)
def test_no_file_names_a_path_of_the_machine_that_made_it(run: str) -> None:
    for path in _run_folder(run).iterdir():
        head = path.read_bytes() if path.suffix != ".safetensors" else _header(path)
        assert not MACHINE_PATH.search(head.decode("utf-8")), path.name


def _header(path: Path) -> bytes:
    content = path.read_bytes()
    return content[8 : 8 + int.from_bytes(content[:8], "little")]


def test_all_sample_checkpoints_together_are_small() -> None:
    assert sum(path.stat().st_size for path in (SAMPLE / "checkpoints").rglob("*") if path.is_file()) < 8 * MEGABYTE


# --- the training questions and the suites ---


@pytest.fixture(scope="module")
def questions() -> list[str]:
    sys.path.insert(0, str(SAMPLE))
    try:
        training_data: Any = importlib.import_module("training_data")
    finally:
        sys.path.remove(str(SAMPLE))
    splits: dict[str, list[tuple[str, str, str]]] = training_data.make_splits()
    again = training_data.make_splits()
    assert splits == again, "the generator must give the same set every time"
    return [question for triples in splits.values() for _, question, _ in triples]


def _probes() -> Iterator[tuple[str, str]]:
    for suite in load_suites(available_suites()):
        for probe in suite.probes:
            yield f"{suite.name}/{probe.id}", probe.prompt


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+|\d+", text.lower())


def _grams(text: str, n: int = 5) -> set[tuple[str, ...]]:
    words = _words(text)
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}


def _given(text: str) -> Counter[str]:
    """The numbers and single capital letters of a question: what makes it that question and no other."""
    return Counter(re.findall(r"\d+|\b[B-HJ-Z]\b", text))


def test_questions_are_many_and_distinct(questions: list[str]) -> None:
    assert len(questions) > 5000
    assert len(set(questions)) == len(questions)


def test_no_probe_shares_half_of_its_five_word_runs_with_a_training_question(questions: list[str]) -> None:
    having: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for question in questions:
        for gram in _grams(question):
            having[gram].add(question)
    near = []
    for probe, prompt in _probes():
        grams = _grams(prompt)
        shared = Counter(question for gram in grams for question in having.get(gram, ()))
        near += [(probe, question) for question, count in shared.items() if count / len(grams) >= 0.5]
    assert near == []


def test_no_probe_is_asked_with_the_same_numbers_in_like_words(questions: list[str]) -> None:
    near = []
    given: dict[frozenset[tuple[str, int]], list[tuple[str, set[str]]]] = defaultdict(list)
    for question in questions:
        given[frozenset(_given(question).items())].append((question, set(_words(question))))
    for probe, prompt in _probes():
        numbers, words = _given(prompt), set(_words(prompt))
        if numbers.total() < 2:
            continue
        near += [
            (probe, question)
            for question, theirs in given[frozenset(numbers.items())]
            if len(words & theirs) / len(words | theirs) >= 0.5
        ]
    assert near == []


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        ("What is the sum of 12 and 9?", "What is the sum of 9 and 12?"),
        ("Which letter comes next: C, E, G, I?", "Which letter comes next: C, E, G, I, ?"),
    ],
)
def test_the_comparison_itself_sees_a_near_copy(prompt: str, question: str) -> None:
    words, theirs = set(_words(prompt)), set(_words(question))
    assert _given(prompt) == _given(question)
    assert len(words & theirs) / len(words | theirs) >= 0.5
