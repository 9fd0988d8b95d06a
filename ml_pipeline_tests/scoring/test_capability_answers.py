"""Every probe of the capability suite, and some of this test's own, against answers that it must pass and must fail."""

from pathlib import Path

import pytest

from ml_pipeline.scoring.checks import check_answer
from ml_pipeline.suites import Probe, load_suites
from ml_pipeline.yaml_file import read_yaml

ANSWERS = read_yaml(Path(__file__).with_name("answers.yaml")).content
PROBES = {probe.id: probe for probe in load_suites(["capability"])[0].probes}
OWN_PROBES = {
    name: Probe(name, "own", fields["prompt"], check=fields["check"])
    for name, fields in ANSWERS.items()
    if name not in PROBES
}
CASES = [
    pytest.param(probe, answer, verdict == "right", id=f"{name}-{verdict}-{index}")
    for name, probe in (PROBES | OWN_PROBES).items()
    for verdict in ("right", "wrong")
    for index, answer in enumerate(ANSWERS[name][verdict])
]
CHAT_AFTER = "\n\nI hope this helps! Let me know if you have any other question."
THINKING = "<think>First guess: the answer is 999. Or yes, or no, or red, or Bo?\n\nAnswer: 998</think>\n\n"


def test_every_probe_has_three_answers_of_each_sort() -> None:
    assert ANSWERS.keys() >= PROBES.keys()
    assert [name for name, of in ANSWERS.items() if min(len(of["right"]), len(of["wrong"])) < 3] == []
    assert [name for name, of in ANSWERS.items() if set(of["right"]) & set(of["wrong"])] == []


@pytest.mark.parametrize(("probe", "answer", "right"), CASES)
def test_answer(probe: Probe, answer: str, right: bool) -> None:
    assert probe.check is not None
    result = check_answer(probe.check, answer, prompt=probe.prompt)
    assert result.passed is right, result


@pytest.mark.parametrize(("probe", "answer", "right"), CASES)
def test_thinking_before_and_chat_after_change_nothing(probe: Probe, answer: str, right: bool) -> None:
    assert probe.check is not None
    result = check_answer(probe.check, THINKING + answer + CHAT_AFTER, prompt=probe.prompt)
    assert result.passed is right, result


@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
def test_nothing_and_the_question_itself_are_wrong(probe: Probe) -> None:
    assert probe.check is not None
    for answer in ("", " \n", "\0", "🙂", "لا أعرف", probe.prompt):
        assert not check_answer(probe.check, answer, prompt=probe.prompt).passed
