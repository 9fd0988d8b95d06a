"""Tables as Parquet and CSV: the rows that are stored, no more and no fewer; and the command that writes exports."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from ml_pipeline.cli import main
from ml_pipeline.stores.tables import TABLES
from ml_pipeline_tests.exports.lab import KEY, filled

IMPORTED = "imported.1b-lek@100"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    settings = {
        "sources": {"lab": {"type": "local", "path": "runs"}},
        "base_models": {"gemma-1b": {}},
        "stores": {"parquet": "parquet", "duckdb": "scores.duckdb"},
    }
    (tmp_path / "pipeline.yaml").write_text(json.dumps(settings))
    monkeypatch.setenv("ML_PIPELINE_CONFIG", str(tmp_path / "pipeline.yaml"))
    return tmp_path


def export(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["export", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_every_row_is_there(project: Path) -> None:
    store, out = filled(project), project / "out"
    export(str(out), "--format", "parquet", "--format", "csv")
    for name, table in TABLES.items():
        stored = store.parquet.read_all(table)
        if not stored.num_rows:
            assert not (out / "parquet" / f"{name}.parquet").exists()
            continue
        assert pq.read_table(out / "parquet" / f"{name}.parquet").to_pylist() == stored.to_pylist()
        cells = pd.read_csv(out / "csv" / f"{name}.csv", dtype=str, keep_default_na=False)
        assert list(cells.columns) == stored.column_names
        assert cells["partition_key"].tolist() == stored["partition_key"].to_pylist()
    texts = pd.read_csv(out / "csv" / "probe_results.csv", keep_default_na=False)["response"]
    assert texts.tolist() == store.parquet.read_all(TABLES["probe_results"])["response"].to_pylist()
    tidy = pq.read_table(out / "parquet" / "score_table.parquet").to_pandas()
    accuracy = tidy[tidy["metric"].eq("accuracy") & tidy["category"].eq("overall")].set_index("partition_key")["value"]
    assert accuracy.to_dict() == {KEY: 0.5, IMPORTED: 0.5}
    assert set(pd.read_csv(out / "csv" / "leaderboard.csv")["partition_key"]) == {KEY, IMPORTED}


def test_a_filter_chooses_checkpoints_and_imported_ones_have_no_answers(project: Path) -> None:
    filled(project)
    out = project / "out"
    assert "inspect: 2 files" in export(str(out), "--format", "inspect", "--format", "lm-eval")
    assert [path.name for path in (out / "lm-eval").iterdir()] == [KEY]
    export(str(out), "--format", "parquet", "--filter", "imported.*")
    for path in (out / "parquet").iterdir():
        assert set(pq.read_table(path)["partition_key"].to_pylist()) == {IMPORTED}, path.name
