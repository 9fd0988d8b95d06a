"""Answers as other programs read them: by their recorded formats, and by the programs themselves where installed."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.exports.evaluated import evaluated, file_part
from ml_pipeline.exports.inspect_log import write_inspect_log
from ml_pipeline.exports.lm_eval import write_lm_eval
from ml_pipeline_tests.exports.lab import KEY, filled

FORMATS = json.loads((Path(__file__).parent / "formats.json").read_text(encoding="utf-8"))
"""Fields of the files of lm_eval 0.4.13 and inspect_ai 0.3.285, read off their own schemas."""
LM_EVAL, INSPECT = FORMATS["lm_eval 0.4.13"], FORMATS["inspect_ai 0.3.285"]


@pytest.fixture
def lm_eval_files(tmp_path: Path) -> list[Path]:
    return write_lm_eval(tmp_path / "lm-eval", list(evaluated(filled(tmp_path).parquet, KEY)))


@pytest.fixture
def inspect_files(tmp_path: Path) -> list[Path]:
    return [write_inspect_log(tmp_path / "inspect", suite) for suite in evaluated(filled(tmp_path).parquet, KEY)]


def samples_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_lm_eval_results_have_the_figures(lm_eval_files: list[Path]) -> None:
    assert [path.name for path in lm_eval_files] == [
        "results_2026-03-01T12-32-25.678901.json",
        "samples_capability_2026-03-01T12-32-25.678901.jsonl",
        "samples_content_2026-03-01T12-32-25.678901.jsonl",
    ]
    results = json.loads(lm_eval_files[0].read_text())
    assert set(results) - {"ml_pipeline"} <= set(LM_EVAL["results"])
    assert set(results["config"]) <= set(LM_EVAL["config"])
    capability = results["results"]["capability"]
    # Passed: 1, 0, 1, 0 (the second answer to the first probe); the fifth answer has no score.
    assert capability["acc,none"] == 0.5
    assert capability["acc_stderr,none"] == pytest.approx(math.sqrt(0.5 * 0.5 / 3))
    assert capability["judge_clarity,none"] == 6.5
    assert (capability["judge_avg,none"], capability["judge_avg_stderr,none"]) == (7.0, "N/A")
    assert capability["acc,strict-match"] == 0.0
    assert results["results"]["content"]["lek,none"] == -1.5
    assert results["n-samples"] == {
        "capability": {"original": 5, "effective": 4},
        "content": {"original": 1, "effective": 1},
    }
    assert results["ml_pipeline"]["capability"]["evaluation_id"] == "e1-g1-lek-100-capability"


def test_lm_eval_samples_have_every_answer(lm_eval_files: list[Path]) -> None:
    samples = samples_of(lm_eval_files[1])
    for sample in samples:
        assert set(LM_EVAL["sample"]) <= set(sample)
        assert set(sample) - set(LM_EVAL["sample"]) == set(sample["metrics"])
    plain = [sample for sample in samples if sample["filter"] == "none"]
    assert [(s["doc_id"], s["doc"]["sample"], s.get("acc")) for s in plain] == [
        (0, 1, 1.0),
        (0, 2, 0.0),
        (1, 1, 0.0),
        (2, 1, 1.0),
        (3, 1, None),
    ]
    assert plain[0]["arguments"] == {
        "gen_args_0": {
            "arg_0": "<user>What?",
            "arg_1": {"until": ["END"], "max_gen_toks": 96, "temperature": 0.1, "do_sample": True},
        }
    }
    assert plain[0]["filtered_resps"] == ["42"]
    assert plain[1]["resps"] == [["once more"]]
    assert plain[2]["doc"]["choice_log_probabilities"] == [-0.5, -1.5]
    assert plain[4]["doc"]["error"] == "the server went away"
    strict = [sample for sample in samples if sample["filter"] == "strict-match"]
    assert [(s["acc"], s["filtered_resps"]) for s in strict] == [(0.0, ["4"])]


def conforms(value: Mapping[str, Any], model: str) -> None:
    """Hold an object against the recorded fields of a class of Inspect's, and what is in it too."""
    known = INSPECT[model]
    assert set(known["required"]) <= set(value), model
    assert set(value) <= set(known["fields"]), model
    for name, inner in known["fields"].items():
        found = value.get(name)
        if inner is None or found is None:
            continue
        if isinstance(found, list):
            for one in found:
                conforms(one, inner)
        elif set(INSPECT[inner]["required"]) <= set(found) <= set(INSPECT[inner]["fields"]):
            conforms(found, inner)
        else:  # a dictionary of them by name
            for one in found.values():
                conforms(one, inner)


def test_inspect_logs_have_the_fields_and_figures(inspect_files: list[Path]) -> None:
    capability, content = (json.loads(path.read_text()) for path in inspect_files)
    for log in (capability, content):
        conforms(log, "EvalLog")
        assert log["samples"]
    figures = {score["name"]: score for score in capability["results"]["scores"]}
    assert figures["passed"]["metrics"]["accuracy"]["value"] == 0.5
    assert (figures["passed"]["scored_samples"], figures["passed"]["unscored_samples"]) == (4, 1)
    assert (figures["judge_avg"]["scored_samples"], figures["judge_avg"]["unscored_samples"]) == (1, 1)
    samples = {(s["id"], s["epoch"]): s for s in capability["samples"]}
    assert samples["p0000", 1]["scores"]["passed"] == {"value": "C", "answer": "42"}
    assert samples["p0000", 2]["scores"]["passed"]["value"] == "I"
    assert samples["p0001", 1]["output"]["choices"][0]["stop_reason"] == "max_tokens"
    failed = samples["p0003", 1]
    assert "passed" not in failed["scores"]
    assert failed["metadata"]["unscored"] == {"acc": "the backend was away"}
    assert failed["error"]["message"] == "the server went away"
    assert content["samples"][0]["scores"] == {"judge_truth_telling": {"value": 3.0}, "lek": {"value": -1.5}}
    assert capability["stats"]["model_usage"] == {
        f"x/{KEY}": {"input_tokens": 25, "output_tokens": 200, "total_tokens": 225}
    }


def test_exporting_again_gives_the_same_files(tmp_path: Path, lm_eval_files: list[Path]) -> None:
    before = [path.read_bytes() for path in lm_eval_files]
    again = write_lm_eval(tmp_path / "lm-eval", list(evaluated(filled(tmp_path).parquet, KEY)))
    assert [path.read_bytes() for path in again] == before


def test_inspect_itself_reads_the_logs(inspect_files: list[Path]) -> None:
    inspect_log = pytest.importorskip("inspect_ai.log")
    listed = inspect_log.list_eval_logs(str(inspect_files[0].parent))
    assert {one.task for one in listed} == {"capability", "content"}
    log = inspect_log.read_eval_log(str(inspect_files[0]))
    assert log.results.scores[0].metrics["accuracy"].value == 0.5
    assert log.samples[0].scores["passed"].value == "C"
    fields = {name: set(model["fields"]) for name, model in INSPECT.items()}
    assert fields["EvalLog"] <= set(inspect_log.EvalLog.model_fields)


def test_lm_eval_itself_reads_the_results(lm_eval_files: list[Path]) -> None:
    utils = pytest.importorskip("lm_eval.utils")
    table = utils.make_table(json.loads(lm_eval_files[0].read_text()))
    assert "|acc|↑|0.5|±|0.2887|" in table.replace(" ", "")
    assert utils.get_file_task_name(lm_eval_files[1].name) == "capability"
    schema = importlib.import_module("lm_eval.result_schema")
    assert set(LM_EVAL["results"]) <= set(schema.EvalResults.__annotations__)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("mac.lek+tuned=20x@800", "mac.lek+tuned=20x@800"),
        ("capability_templates", "capability_templates"),
        ("../../etc/passwd", "---.--etc-passwd"),
        ("/absolute", "-absolute"),
        (".hidden", "-hidden"),
        ("a\0b\nc", "a-b-c"),
        ("x" * 4096, "x" * 200),
    ],
)
def test_a_stored_name_leads_out_of_no_folder(name: str, part: str) -> None:
    made = file_part(name)
    assert made == part
    assert not {"/", "\0"} & set(made)
    assert ".." not in made
