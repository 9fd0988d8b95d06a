import ast
from pathlib import Path

import pytest

import ml_pipeline.scoring
from ml_pipeline.backends.interface import Completion, FinishReason
from ml_pipeline.scoring.results import ProbeResult, score_probe
from ml_pipeline.suites import Probe

PROBE = Probe("sum", "arithmetic", "What is 17 + 25?", check={"type": "number", "value": 42})


def completion(text: str, finish_reason: FinishReason = "stop", error: str | None = None) -> Completion:
    return Completion("sum", "prompt", text, 1, 1, finish_reason, 0.1, error)


@pytest.mark.parametrize(
    ("answer", "passed", "extracted", "reason"),
    [
        (completion("42"), True, "42", None),
        (completion("41"), False, "41", None),
        (completion("It is 42. And then", "length"), True, "42", None),
        (completion(""), False, None, None),
        (completion("42", "error", "time-out"), None, None, "the answer ended with an error: time-out"),
        (completion("42", "stop", "time-out"), None, None, "the answer ended with an error: time-out"),
        (completion("42", "error"), None, None, "the answer ended with an error: not told which"),
        (completion("42", "cancelled"), None, None, "the answer was cancelled"),
    ],
)
def test_unscored_is_not_wrong(
    answer: Completion, passed: bool | None, extracted: str | None, reason: str | None
) -> None:
    assert score_probe(PROBE, answer) == ProbeResult("sum", "arithmetic", passed, "42", extracted, reason)


def test_a_probe_without_a_check() -> None:
    with pytest.raises(ValueError, match="probe 'p' has no check"):
        score_probe(Probe("p", "c", "?"), completion("42"))


def test_scoring_imports_records_only() -> None:
    """Scoring is pure: nothing of Dagster, of stores or of backends but their records."""
    allowed = (
        "ml_pipeline.scoring",
        "ml_pipeline.suites",
        "ml_pipeline.errors",
        "ml_pipeline.yaml_file",  # suites are written in it
        "ml_pipeline.backends.interface",
        "ml_pipeline.backends.thinking_marks",  # one list for backends and scoring
    )
    imported = set()
    for path in Path(ml_pipeline.scoring.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
            elif isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names)
    ours = {name for name in imported if name.startswith("ml_pipeline")}
    assert {name for name in ours if not name.startswith(allowed)} == set()
    assert not {name for name in imported if name.split(".")[0] in ("dagster", "httpx", "duckdb", "llama_cpp")}
