from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ml_pipeline.errors import SuiteError
from ml_pipeline.suites import Suite, load_suites, templates
from ml_pipeline.suites.template_schema import TemplateFile
from ml_pipeline.suites.templates import TemplateError, make_probes

SUITE = """\
name: sums
version: "1"
kind: capability
description: Sums.
temperature: 0.1
max_tokens: 50
seed: 3
templates:
  - id: add
    category: arithmetic
    prompt: Add {a} to {b}.
    variables:
      a: {type: integer, minimum: 3, maximum: 40}
      b: {type: integer, minimum: 3, maximum: 40}
    constraints: [a != b]
    check: {type: number, value: "{a + b}"}
    count: 6
"""


def load(folder: Path, text: str = SUITE) -> Suite:
    (folder / "sums.yaml").write_text(text, encoding="utf-8")
    return load_suites(["sums"], [folder])[0]


def template(**changes: object) -> TemplateFile:
    fields: dict[str, object] = {
        "id": "t",
        "category": "c",
        "prompt": "Add {a} to {b}.",
        "variables": {"a": {"type": "integer", "minimum": 1, "maximum": 3}, "b": {"type": "choice", "of": [5, 7]}},
        "check": {"type": "number", "value": "{a + b}"},
        "count": 6,
    }
    return TemplateFile.model_validate(fields | changes)


def prompts(suite: Suite) -> list[str]:
    return [probe.prompt for probe in suite.probes]


def test_probes_have_stable_ids_computed_checks_and_their_template(tmp_path: Path) -> None:
    suite = load(tmp_path)
    assert [probe.id for probe in suite.probes] == [f"add/00{number}" for number in range(1, 7)]
    assert {(probe.template, probe.category) for probe in suite.probes} == {("add", "arithmetic")}
    for probe in suite.probes:
        a, b = (int(word.strip(".")) for word in probe.prompt.split() if word.strip(".").isdecimal())
        assert a != b
        assert probe.check is not None
        assert (probe.check["type"], probe.check["value"]) == ("number", a + b)
    assert len(set(prompts(suite))) == 6


def test_the_same_seed_makes_the_same_probes_for_ever(tmp_path: Path) -> None:
    # Golden: a change here parts every old score of a templated suite from new ones. Raise GENERATOR_VERSION then.
    assert templates.GENERATOR_VERSION == 1
    assert prompts(load(tmp_path))[:3] == ["Add 39 to 35.", "Add 16 to 31.", "Add 21 to 5."]


def test_a_larger_count_begins_with_the_smaller_ones(tmp_path: Path) -> None:
    few = prompts(load(tmp_path))
    assert prompts(load(tmp_path, SUITE.replace("count: 6", "count: 60")))[:6] == few


def test_a_template_draws_alike_whatever_stands_beside_it(tmp_path: Path) -> None:
    other = SUITE[SUITE.index("  - id: add") :].replace("id: add", "id: sum")
    both = load(tmp_path, SUITE.replace("templates:\n", f"templates:\n{other}"))
    assert [probe.prompt for probe in both.probes if probe.template == "add"] == prompts(load(tmp_path))
    assert [probe.prompt for probe in both.probes if probe.template == "sum"] != prompts(load(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("seed: 3", "seed: 4"),
        lambda text: text.replace("count: 6", "count: 7"),
        lambda text: text.replace("maximum: 40}", "maximum: 41}", 1),
        lambda text: text.replace("a + b", "b + a"),
        lambda text: text.replace("a != b", "a < b"),
    ],
    ids=["seed", "count", "variables", "answer", "constraints"],
)
def test_whatever_changes_the_probes_changes_the_hash(tmp_path: Path, change: Callable[[str], str]) -> None:
    assert change(SUITE) != SUITE
    assert load(tmp_path, change(SUITE)).sha256 != load(tmp_path).sha256


def test_the_version_of_the_generator_is_in_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load(tmp_path).sha256
    monkeypatch.setattr("ml_pipeline.suites.loader.GENERATOR_VERSION", 2)
    assert load(tmp_path).sha256 != before


def test_fixed_suites_keep_the_hash_that_old_scores_carry() -> None:
    capability, content = load_suites(["capability", "content"])
    assert capability.sha256 == "c2d21fa5df180eaeb5eabd079d1bd0e80442d3ffbe8418f1cd4a41696abbf032"
    assert content.sha256 == "034976bea5dc9b710a99934d504411a7ff5790e80dcf78683d2977155f308d5a"


def test_every_kind_of_variable_and_part_of_a_check() -> None:
    made = make_probes(
        template(
            prompt="{who[0]} and {{{items}}}: {half}, {flag}?",
            system="You are {who[1]}.",
            variables={
                "who": {"type": "sample", "of": ["Ada", "Bo", "Cy"], "size": 2},
                "items": {"type": "computed", "value": "[1, 2.5]"},
                "half": {"type": "integer", "minimum": 10, "maximum": 30, "step": 10},
                "flag": {"type": "choice", "of": [True, False]},
            },
            check={"type": "phrase", "accept": ["{who[0]}", "Mr {who[0]}"], "reject": "{who[1:]}"},
            count=9,
        ),
        seed=0,
    )
    for probe in made:
        first, rest = probe.prompt.split(" and ")
        second = probe.system.removeprefix("You are ").removesuffix(".")
        assert first != second
        assert {first, second} < {"Ada", "Bo", "Cy"}
        assert rest.startswith("{1, 2.5}: ")
        assert rest.split(": ")[1].split(", ")[0] in ("10", "20", "30")
        assert probe.check is not None
        assert (probe.check["accept"], probe.check["reject"]) == ([first, f"Mr {first}"], [second])


def test_draws_are_even() -> None:
    made = make_probes(
        template(
            variables={
                "a": {"type": "integer", "minimum": 0, "maximum": 9},
                "b": {"type": "integer", "minimum": 1, "maximum": 10**9},
            },
            count=1000,
        ),
        seed=1,
    )
    counts = [sum(probe.prompt.startswith(f"Add {digit} ") for probe in made) for digit in range(10)]
    # Chi-squared of 9 degrees of freedom: above 27.9 once in a thousand seeds.
    assert sum((count - 100) ** 2 / 100 for count in counts) < 27.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 7}, "only 6 different prompts that keep the constraints were found in 1400 draws, not the 7"),
        ({"constraints": ["a > b"]}, "only 0 different prompts"),
        ({"constraints": ["c > b"]}, "constraints: 'c > b': no variable 'c'; known are a, b"),
        ({"prompt": "Add {a to b."}, "prompt: a lone '{'; write it twice"),
        ({"prompt": "Add {a +} to b."}, "prompt: 'a +' is not an expression"),
        ({"prompt": "Add {} to b."}, "prompt: '' is not an expression"),
        ({"prompt": "Add {a / 0}."}, "prompt: 'a / 0': division by zero"),
        ({"prompt": "Add {open('x')}."}, "prompt: \"open('x')\": unknown function 'open'"),
        ({"check": {"type": "number", "value": "{a + d}"}}, "check.value: 'a + d': no variable 'd'"),
        ({"check": {"type": "number", "value": "a + b"}}, "check.number.value: Input should be a valid number"),
        ({"check": {"type": "yes_no", "answer": "{a > b}"}}, "check.yes_no.answer: Input should be 'yes' or 'no'"),
        ({"check": {"type": "sum"}}, "does not match any of the expected tags"),
        ({"variables": {"a": {"type": "computed", "value": "b"}}}, "variables.a: 'b': no variable 'b'"),
    ],
)
def test_a_template_that_cannot_work_says_why(changes: dict[str, object], message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        make_probes(template(**changes), seed=0)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "type: integer",
            "type: intger",
            "line 13: templates[0].variables.a.type: unknown variable type 'intger'",
        ),
        ("type: integer", "type: intger", "Did you mean 'integer'?"),
        (
            "{type: integer, minimum: 3",
            "{minimum: 3",
            "templates[0].variables.a needs a 'type', one of: integer",
        ),
        (
            "minimum: 3",
            "minimun: 3",
            "unknown field templates[0].variables.a.minimun; did you mean 'minimum'?",
        ),
        ("minimum: 3", "minimun: 3", "line 13: the field templates[0].variables.a.minimum is missing."),
        ("minimum: 3", "minimum: 50", "line 13: templates[0].variables.a: minimum 50 is above maximum 40."),
        ("constraints:", "constraint:", "line 15: unknown field templates[0].constraint; did you mean 'constraints'?"),
        ("a != b", "a ! b", "constraints[0]: 'a ! b' is not an expression"),
        ("    count: 6\n", "", "line 9: the field templates[0].count is missing."),
        ("count: 6", "count: 100000", "templates[0].count: Input should be less than or equal to 1000"),
        ("      a: {", "      A: {", "templates[0].variables.A"),
        ("{a + b}", "{a + c}", "line 9: template 'add': check.value: 'a + c': no variable 'c'; known are a, b."),
        ("category: arithmetic", "category: overall", "the category 'overall' is kept"),
        ("kind: capability", "kind: content\nrubric: content", "template 'add': templates belong to suites of kind"),
        (SUITE[SUITE.index("templates:") :], "", "a suite needs 'probes', 'templates' or 'data'."),
    ],
)
def test_a_wrong_field_is_named_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SUITE
    with pytest.raises(SuiteError) as caught:
        load(tmp_path, SUITE.replace(old, new, 1))
    assert message in str(caught.value)


def test_a_template_may_not_take_the_id_of_a_probe(tmp_path: Path) -> None:
    probe = "probes:\n  - {id: add, category: c, prompt: p, check: {type: number, value: 1}}\n"
    with pytest.raises(SuiteError, match="template 'add': this id is taken by the one on line 9"):
        load(tmp_path, SUITE.replace("templates:\n", f"{probe}templates:\n"))
