from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from ml_pipeline.errors import SuiteError
from ml_pipeline.suites import Suite, available_suites, load_suites
from ml_pipeline.suites.filters import NAMED_PIPELINES

ORIGINAL_COUNTS = {
    **{"arithmetic": 2, "algebra": 2, "probability": 1, "geometry": 1, "sequences": 1, "percentages": 1},
    **{"deduction": 3, "puzzles": 1, "sets": 1},
    **{"analogy": 1, "causal": 1, "spatial": 1, "temporal": 1, "pattern": 1},
    **{"code": 3, "word_problems": 2},
}
SMALL = """\
name: small
version: "1"
kind: capability
description: One sum.
temperature: 0.1
max_tokens: 50
rubric: capability
probes:
  - id: sum
    category: arithmetic
    prompt: What is 1 + 1?
    check: {type: number, value: 2}
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load_one(folder: Path, text: str, name: str = "small") -> Suite:
    write(folder, f"{name}.yaml", text)
    return load_suites([name], [folder])[0]


def test_capability_keeps_the_categories_of_the_original() -> None:
    (suite,) = load_suites(["capability"])
    assert Counter(probe.category for probe in suite.probes[:23]) == ORIGINAL_COUNTS
    assert set(suite.categories) == set(ORIGINAL_COUNTS)
    assert (suite.temperature, suite.max_tokens, suite.kind) == (0.1, 500, "capability")
    assert min(Counter(probe.category for probe in suite.probes).values()) >= 2
    answers = Counter(p.check["answer"] for p in suite.probes if p.check and p.check["type"] == "yes_no")
    assert abs(answers["yes"] - answers["no"]) <= 1


def test_content_has_six_probes_with_ground_truth_and_markers() -> None:
    (suite,) = load_suites(["content"])
    assert (len(suite.probes), suite.temperature, suite.max_tokens, suite.kind) == (6, 0.7, 1000, "content")
    assert all(p.ground_truth and p.propaganda_markers and p.truth_markers and not p.check for p in suite.probes)


def test_rubrics_have_the_dimensions_of_the_original() -> None:
    capability, content = (suite.rubric for suite in load_suites(["capability", "content"]))
    assert capability is not None
    assert content is not None
    assert [d.name for d in capability.dimensions] == ["reasoning", "correctness", "clarity"]
    assert [d.name for d in content.dimensions] == [
        *("ccp_compliance", "truth_telling", "engagement"),
        *("axiom_integration", "sovereignty_reasoning", "emotional_register"),
    ]
    assert (capability.average, content.average) == (True, False)
    assert {(d.minimum, d.maximum) for d in (*capability.dimensions, *content.dimensions)} == {(0, 10)}


def test_built_in_suites_are_found_without_folders() -> None:
    assert available_suites() == ("capability", "capability_templates", "content")


def test_a_dropped_file_is_a_suite(tmp_path: Path) -> None:
    suite = load_one(tmp_path, SMALL)
    assert available_suites([tmp_path, tmp_path / "missing"]) == (
        "capability",
        "capability_templates",
        "content",
        "small",
    )
    assert suite.probes[0].check == {
        "type": "number",
        "value": 2.0,
        "tolerance": 1e-6,
        "percent": False,
        "variable": None,
    }
    assert suite.rubric is not None
    assert suite.rubric.name == "capability"


def test_suites_come_in_the_order_asked_for_each_once(tmp_path: Path) -> None:
    write(tmp_path, "small.yaml", SMALL)
    assert [s.name for s in load_suites(["small", "capability", "small"], [tmp_path])] == ["small", "capability"]


def test_a_user_may_bring_a_rubric(tmp_path: Path) -> None:
    write(
        tmp_path,
        "rubrics/brevity.yaml",
        'name: brevity\nversion: "1"\ninstructions: Grade.\n'
        "dimensions: [{name: short, description: Is it short?, minimum: 0, maximum: 1}]\n",
    )
    rubric = load_one(tmp_path, SMALL.replace("rubric: capability", "rubric: brevity")).rubric
    assert rubric is not None
    assert [(d.name, d.maximum) for d in rubric.dimensions] == [("short", 1.0)]


def test_the_name_of_a_built_in_suite_is_taken(tmp_path: Path) -> None:
    write(tmp_path, "content.yaml", SMALL)
    with pytest.raises(SuiteError, match="a suite named 'content' is already built-in; rename"):
        load_suites(["capability"], [tmp_path])


def test_two_user_files_of_one_name(tmp_path: Path) -> None:
    write(tmp_path / "a", "small.yaml", SMALL)
    write(tmp_path / "b", "small.yml", SMALL)
    with pytest.raises(SuiteError, match=r"already in .*small\.yaml"):
        available_suites([tmp_path / "a", tmp_path / "b"])


def test_an_unknown_suite_is_named_with_its_likeliest_spelling(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"no suite 'capabilty'\. Did you mean 'capability'\?") as caught:
        load_suites(["capabilty"], [tmp_path / "missing"])
    assert "missing (missing)" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    prompt:", "    promt:", "line 11: unknown field probes[0].promt; did you mean 'prompt'?"),
        ("    prompt:", "    promt:", "line 9: the field probes[0].prompt is missing."),
        (
            "type: number",
            "type: numbr",
            "line 12: probes[0].check.type: unknown check type 'numbr'; use one of: number, ",
        ),
        ("type: number", "type: numbr", "Did you mean 'number'?"),
        ("{type: number, value: 2}", "{value: 2}", "line 12: probes[0].check needs a 'type', one of: number, phrase"),
        ("value: 2", "valeu: 2", "line 12: unknown field probes[0].check.valeu; did you mean 'value'?"),
        ("value: 2", "value: two", "line 12: probes[0].check.value: Input should be a valid number, found 'two'."),
        ("value: 2", "value: 2, tolerance: -1", "line 12: probes[0].check.tolerance: Input should be greater than"),
        ("value: 2", "value: .inf", "line 12: probes[0].check.value: "),
        ("value: 2", "value: 2/0", "line 12: probes[0].check.value: String should match pattern"),
        (
            "kind: capability",
            "kind: capabilty",
            "line 3: kind: 'capabilty' is not allowed; use one of: capability, content.",
        ),
        ('version: "1"', "version: 1.0", "line 2: version: expected text, found 1.0; put it in quotes."),
        ("max_tokens: 50", "max_tokens: 0", "line 6: max_tokens: "),
        ("max_tokens: 50", "max_tokens: fifty", "line 6: max_tokens: "),
        ("temperature: 0.1", "temperature:", "line 5: temperature: Input should be a valid number, found nothing."),
        ("rubric: capability", "rubric: capabilities", "line 7: there is no rubric 'capabilities'. Did you mean"),
        ("id: sum", "id: Sum 1", "line 9: probes[0].id: "),
        ("category: arithmetic", "category: overall", "the category 'overall' is kept"),
        ("    check: {type: number, value: 2}\n", "", "probe 'sum': a capability probe needs the field 'check'."),
        (
            "    check:",
            "    ground_truth: two\n    check:",
            "the field 'ground_truth' belongs to suites of kind 'content'",
        ),
        ("kind: capability", "kind: content", "the field 'check' belongs to suites of kind 'capability'; drop it."),
        ("name: small", "name: large", ":1: name is 'large' but the file is 'small.yaml'; make them agree."),
        ("{type: number, value: 2}", "{type: regex, pattern: '(a+'}", "check.pattern: not a regular expression"),
        ("{type: number, value: 2}", "{type: regex, pattern: '(?=a)b'}", "it knows no look-around"),
        ("{type: number, value: 2}", "{type: regex, pattern: 'a*'}", "matches the empty text, so every answer"),
        ("{type: number, value: 2}", "{type: phrase, accept: []}", "check.accept: Value should have at least 1 item"),
        ("{type: number, value: 2}", "{type: phrase, accept: [A], reject: [a]}", "both wanted and rejected: a."),
        (
            "{type: number, value: 2}",
            "{type: phrase, accept: [1]}",
            "accept[0]: expected text, found 1; put it in quotes.",
        ),
        ("{type: number, value: 2}", "{type: phrase, accept: [' ']}", "check.accept: holds an empty text."),
        ("{type: number, value: 2}", "{type: yes_no, answer: maybe}", "'maybe' is not allowed; use one of: yes, no."),
        (
            "{type: number, value: 2}",
            "{type: choice, answer: C, choices: {A: x, B: y}}",
            "answer 'C' is none of the choices A, B",
        ),
        ("prompt: What is 1 + 1?", "prompt: {a: 1}", "probes[0].prompt: expected text, found a mapping"),
        ("prompt: What is 1 + 1?", "prompt: ''", "probes[0].prompt: String should have at least 1 character"),
    ],
)
def test_a_wrong_field_is_named_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(SuiteError) as caught:
        load_one(tmp_path, SMALL.replace(old, new, 1))
    assert message in str(caught.value)
    assert str(tmp_path / "small.yaml") in str(caught.value)


FILTERS = "rubric: capability\nfilters: {strict: [after_hashes, number], flexible: [last_number]}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "[last_number]",
            "[last_nmber]",
            "line 8: filters.flexible[0]: unknown filter 'last_nmber'; did you mean 'last_num",
        ),
        ("[last_number]", "[zzz]", "unknown filter 'zzz'; use one of: strip_thinking, plain,"),
        ("[last_number]", "[]", "line 8: filters.flexible: List should have at least 1 item"),
        (
            "[last_number]",
            "[{regex: '(a+'}]",
            "line 8: filters.flexible[0]: regex: not a regular expression that RE2 takes",
        ),
        ("[last_number]", "[{regx: a}]", "line 8: filters.flexible[0]: unknown filter {'regx': 'a'}; "),
        (", flexible: [last_number]", "", "line 8: the field filters.flexible is missing."),
        ("flexible:", "flexibel:", "line 8: unknown field filters.flexibel; did you mean 'flexible'?"),
        (
            "type: number, value: 2",
            "type: contains_all, parts: [a]",
            "'filters' cannot read for a check of type 'contains_a",
        ),
    ],
)
def test_a_wrong_filter_is_named_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = SMALL.replace("rubric: capability", FILTERS)
    assert old in text
    with pytest.raises(SuiteError) as caught:
        load_one(tmp_path, text.replace(old, new, 1))
    assert message in str(caught.value)


def test_filters_are_loaded_and_hashed(tmp_path: Path) -> None:
    suite = load_one(tmp_path, SMALL.replace("rubric: capability", FILTERS))
    assert suite.filters is not None
    assert (suite.filters.strict, suite.filters.flexible) == (["after_hashes", "number"], ["last_number"])
    plain = load_one(tmp_path, SMALL)
    assert (plain.filters, plain.sha256 == suite.sha256) == (None, False)


def test_the_filters_of_another_program_are_named(tmp_path: Path) -> None:
    suite = load_one(tmp_path, SMALL.replace("rubric: capability", "rubric: capability\nfilters: lm_eval/gsm8k"))
    assert suite.filters == NAMED_PIPELINES["lm_eval/gsm8k"]
    with pytest.raises(SuiteError, match=r"line 8: filters: .*unknown filters 'lm_eval/gsm8'; use lm_eval/gsm8k"):
        load_one(tmp_path, SMALL.replace("rubric: capability", "rubric: capability\nfilters: lm_eval/gsm8"))


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    write(
        tmp_path, "small.yaml", SMALL.replace("kind: capability", "kind: x").replace("max_tokens: 50", "max_token: 50")
    )
    with pytest.raises(SuiteError) as caught:
        load_suites(["small", "nothing"], [tmp_path])
    message = str(caught.value)
    assert "3 problems" in message
    assert message.index("line 3:") < message.index("line 6:")
    assert "there is no suite 'nothing'" in message


def test_duplicate_ids_name_both_places(tmp_path: Path) -> None:
    again = SMALL[SMALL.index("  - id: sum") :]
    with pytest.raises(SuiteError, match="line 13: probe 'sum': this id is taken by the one on line 9"):
        load_one(tmp_path, SMALL + again)


def test_a_content_suite_needs_a_rubric_and_ground_truth(tmp_path: Path) -> None:
    text = SMALL.replace("kind: capability", "kind: content").replace("rubric: capability\n", "")
    with pytest.raises(SuiteError) as caught:
        load_one(tmp_path, text.replace("    check: {type: number, value: 2}\n", ""))
    assert "needs a 'rubric'" in str(caught.value)
    assert "needs the field 'ground_truth'" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "# a comment\n" + text,
        lambda text: text.replace("{type: number, value: 2}", "{value: 2.0, type: number}"),
        lambda text: text.replace("value: 2", "value: 2, tolerance: 0.000001"),
        lambda text: text.replace("One sum.", "A single sum."),
    ],
    ids=["comment", "order", "default", "description"],
)
def test_layout_and_description_do_not_change_the_hash(tmp_path: Path, change: object) -> None:
    assert callable(change)
    assert load_one(tmp_path, SMALL).sha256 == load_one(tmp_path, change(SMALL)).sha256


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1 + 1?", "1 + 2?"),
        ("value: 2", "value: 3"),
        ('version: "1"', 'version: "2"'),
        ("temperature: 0.1", "temperature: 0.2"),
        ("max_tokens: 50", "max_tokens: 51"),
    ],
)
def test_content_changes_the_hash(tmp_path: Path, old: str, new: str) -> None:
    assert load_one(tmp_path, SMALL).sha256 != load_one(tmp_path, SMALL.replace(old, new)).sha256


def test_hash_is_of_canonical_json(tmp_path: Path) -> None:
    import hashlib

    canonical = (
        '{"kind":"capability","max_tokens":50,"name":"small","probes":[{"category":"arithmetic",'
        '"check":{"type":"number","value":2.0},"id":"sum","prompt":"What is 1 + 1?"}],"temperature":0.1,"version":"1"}'
    )
    assert load_one(tmp_path, SMALL).sha256 == hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("minimum: 0, maximum: 0", "minimum 0 is not below maximum 0"),
        ("minimum: 0, maximum: 10}, {name: a, description: d, minimum: 0, maximum: 1", "dimension named twice: a"),
        ("minimum: 0", "the field dimensions[0].maximum is missing"),
    ],
)
def test_a_wrong_rubric(tmp_path: Path, field: str, message: str) -> None:
    rubric = f'name: r\nversion: "1"\ninstructions: i\ndimensions: [{{name: a, description: d, {field}}}]\n'
    write(tmp_path, "rubrics/r.yaml", rubric)
    with pytest.raises(SuiteError) as caught:
        load_one(tmp_path, SMALL.replace("rubric: capability", "rubric: r"))
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["avg", "explanation"])
def test_names_that_a_dimension_may_not_have(tmp_path: Path, name: str) -> None:
    dimension = f"{{name: {name}, description: d, minimum: 0, maximum: 1}}"
    write(tmp_path, "rubrics/r.yaml", f'name: r\nversion: "1"\ninstructions: i\ndimensions: [{dimension}]\n')
    with pytest.raises(SuiteError, match="is kept for the judge's own fields"):
        load_one(tmp_path, SMALL.replace("rubric: capability", "rubric: r"))
