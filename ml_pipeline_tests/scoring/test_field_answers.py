"""Some two thousand answers to all probes of both suites, against the verdict of a careful reader."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.scoring.checks import check_answer
from ml_pipeline.suites import load_suites
from ml_pipeline.yaml_file import read_yaml

FOLDER = Path(__file__).parent
ANSWERS = read_yaml(FOLDER / "field_answers.yaml").content
MOST_MISJUDGED = 0.02
PROBES: dict[str, tuple[str, Any]] = {
    name: (fields["prompt"], fields["check"])
    for file in ("answers.yaml", "field_answers.yaml")
    for name, fields in read_yaml(FOLDER / file).content.items()
    if "prompt" in fields
} | {
    probe.id: (probe.prompt, probe.check)
    for suite in load_suites(["capability", "capability_templates"])
    for probe in suite.probes
}


def wrongly_marked(name: str, answers: dict[str, list[str]]) -> Iterator[tuple[str, str, str | None]]:
    prompt, check = PROBES[name]
    for verdict in ("right", "wrong"):
        for text in answers.get(verdict, ()):
            result = check_answer(check, text, prompt=prompt)
            if result.passed is not (verdict == "right"):
                yield verdict, text, result.extracted


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_are_marked_as_a_reader_marks_them(name: str) -> None:
    assert list(wrongly_marked(name, ANSWERS[name])) == []


@pytest.mark.parametrize("name", [name for name, fields in ANSWERS.items() if "misjudged" in fields])
def test_what_is_listed_as_misjudged_still_is(name: str) -> None:
    listed = ANSWERS[name]["misjudged"]
    found = [(verdict, text) for verdict, text, _ in wrongly_marked(name, listed)]
    assert found == [(verdict, text) for verdict, texts in listed.items() for text in texts]


def test_every_probe_has_answers_of_both_sorts() -> None:
    (capability, templates) = load_suites(["capability", "capability_templates"])
    wanted = {probe.id for probe in capability.probes} | {p.id for p in templates.probes if p.id.endswith("/001")}
    assert {name for name in wanted if not {"right", "wrong"} <= ANSWERS.get(name, {}).keys()} == set()


@pytest.mark.parametrize("verdict", ["right", "wrong"])
def test_few_are_misjudged(verdict: str) -> None:
    well = sum(len(fields.get(verdict, ())) for fields in ANSWERS.values())
    badly = sum(len(fields.get("misjudged", {}).get(verdict, ())) for fields in ANSWERS.values())
    assert badly <= MOST_MISJUDGED * (well + badly)
