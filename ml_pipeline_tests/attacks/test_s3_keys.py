"""Keys of a real S3-compatible server, which may be called anything: they lead nowhere and deceive nobody."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from ml_pipeline.checkpoints.discovery import discover
from ml_pipeline.checkpoints.fsspec_source import FsspecFolder
from ml_pipeline_tests.attacks.hostile_names import WORDS, deceit_in
from ml_pipeline_tests.checkpoints.files import write_checkpoint
from ml_pipeline_tests.checkpoints.sources import cache_in
from ml_pipeline_tests.s3_server import running_s3

pytestmark = pytest.mark.slow


def test_objects_of_any_name_lead_nowhere_and_deceive_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = write_checkpoint(tmp_path / "made", "0000100_adapters.safetensors")
    content, config = weights.read_bytes(), weights.with_name("adapter_config.json").read_bytes()
    with running_s3(tmp_path, monkeypatch) as options:
        client = import_module("boto3").client("s3", endpoint_url=options["endpoint_url"])
        client.create_bucket(Bucket="training")

        def put(folder: str) -> None:
            for name, body in ((weights.name, content), ("adapter_config.json", config)):
                client.put_object(Bucket="training", Key=f"runs/{folder}/{name}", Body=body)

        put("adapters-good")
        refused = 0
        for folder in (
            *(f"adapters-{words[:200]}" for words in WORDS.values()),
            "adapters-../../../outside",
            "adapters-a/../../outside",
            "../adapters-up",
            "adapters-empty//inner",
            "adapters-./.",
            "/adapters-absolute",
            "adapters-\ud7ff" + "\u00e9" * 400,
        ):
            try:
                put(folder)
            except Exception:  # no server takes all of them
                refused += 1
        assert refused < 8
        source = FsspecFolder("store", "s3://training/runs", options, timeout_s=30)
        found = discover(source, (), now_ns=10**19, settle_s=0)
        assert "store.good@100" in {checkpoint.key for checkpoint in found.checkpoints}
        cache = cache_in(tmp_path / "cache" / "inner")
        for checkpoint in found.checkpoints:
            assert re.fullmatch(r"[A-Za-z0-9._=+@-]{1,200}", checkpoint.key)
            assert ".." not in checkpoint.file.split("/")
            files = cache.fetch(source, checkpoint)
            assert files.weights.resolve().is_relative_to(tmp_path / "cache" / "inner")
            assert files.weights.read_bytes() == content
        for problem in found.problems:
            assert deceit_in(problem) == []
            assert len(problem.splitlines()) == 1
            assert len(problem) < 3000
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["inner"]
