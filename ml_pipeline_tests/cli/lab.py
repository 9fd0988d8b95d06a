"""A project whose database holds scores that were made up, for the commands that show them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from ml_pipeline.cli import main
from ml_pipeline.settings import Settings
from ml_pipeline.settings_file import load_settings
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline_tests.project import REPOSITORY
from ml_pipeline_tests.reports.sample_scores import Checkpoint, tables_of


class Lab:
    """The project in a folder. Commands run in this process, without a terminal unless `width` says how wide one is."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        (root / "runs").mkdir()
        (root / "dagster.yaml").write_text((REPOSITORY / "dagster.yaml").read_text())
        self.configure()
        monkeypatch.setenv("ML_PIPELINE_CONFIG", str(root / "pipeline.yaml"))
        monkeypatch.setenv("DAGSTER_HOME", str(root))
        monkeypatch.chdir(root)

    @property
    def settings(self) -> Settings:
        return load_settings(self.root / "pipeline.yaml", environ={})

    @property
    def store(self) -> DuckDBStore:
        return DuckDBStore(self.settings.duckdb_path)

    def configure(self, **sections: Any) -> None:
        settings = {
            "sources": {"mac": {"type": "local", "path": "runs"}},
            "base_models": {"tiny": {}},
            "families": [{"prefix": "lek", "model": "tiny", "short": "T"}],
        }
        (self.root / "pipeline.yaml").write_text(yaml.safe_dump(settings | sections))

    def put(self, *checkpoints: Checkpoint) -> None:
        """Store checkpoints: those of one partition together."""
        by_key: dict[str, list[Checkpoint]] = {}
        for checkpoint in checkpoints:
            by_key.setdefault(checkpoint.partition_key, []).append(checkpoint)
        for key, together in by_key.items():
            self.store.write_partition(key, tables_of(together))

    def run(self, *arguments: str, width: int | None = None) -> Result:
        """Call the command; `width` columns on a terminal."""
        with pytest.MonkeyPatch.context() as patch:
            if width is not None:
                patch.setenv("COLUMNS", str(width))
                patch.setattr("ml_pipeline.cli.shared._PIPED_WIDTH", width)
            return CliRunner().invoke(main, arguments)

    def shown(self, *arguments: str, width: int = 80) -> str:
        """What a command prints that ends well."""
        done = self.run(*arguments, width=width)
        assert done.exit_code == 0, done.output
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """The one object that `--json` prints."""
        done = self.run(*arguments, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout, parse_constant=_no_constant)


def fits(text: str, width: int = 80) -> bool:
    """Whether every line has at most so many columns, and none moves the cursor."""
    return max(map(len, text.splitlines())) <= width and all(c.isprintable() or c in "\n\u00a0" for c in text)


def eight(*right: str, run: str = "lek/a", iteration: int = 0, **more: Any) -> Checkpoint:
    """A checkpoint on the eight probes a to h, of which it gets these right; iteration 0 is the base."""
    passed = {probe: probe in right for probe in "abcdefgh"}
    categories = {probe: "sums" if probe in "abcd" else "words" for probe in passed}
    run, source = (run, "mac") if iteration else ("tiny", "base")
    return Checkpoint(run, iteration, passed, source=source, categories=categories, **more)


def words(text: str) -> str:
    """The text on one line."""
    return " ".join(text.split())


def _no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")
