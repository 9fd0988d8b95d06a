"""`ml-pipeline inspect` and `convert` as a user calls them, on real checkpoints and a real base model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import gguf
import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file, save_file

from ml_pipeline.adapters import read_adapter, write_gguf_lora
from ml_pipeline.base_models import gguf_path
from ml_pipeline.cli import main
from ml_pipeline.settings_file import load_settings
from ml_pipeline_tests.project import Project, make_project, sample_iterations

RUN, BASE = "reasoning", "smollm2-135m"
FIRST = sample_iterations(RUN)[0]
KEY = f"mac.smollm2-135m-{RUN}@{FIRST}"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = make_project(tmp_path / "project")
    made.configure(discovery={"settle_s": 0})
    monkeypatch.chdir(made.root)
    monkeypatch.delenv("ML_PIPELINE_CONFIG", raising=False)
    return made


def call(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def base_gguf(project: Project) -> Path:
    return gguf_path(load_settings(project.root / "pipeline.yaml", environ={}), BASE)


def test_inspect_shows_the_same_for_a_file_and_a_checkpoint(project: Project) -> None:
    weights = project.add(RUN, FIRST)
    by_file, by_key = call("inspect", weights, "--json"), call("inspect", KEY, "--json")
    assert (by_file.exit_code, by_key.exit_code) == (0, 0), by_key.output
    first, second = json.loads(by_file.stdout), json.loads(by_key.stdout)
    assert first.pop("path") == str(weights)
    assert "/fetched/" in second.pop("path")
    assert first.pop("config_path") != second.pop("config_path")
    assert first == second
    tensors = load_file(weights)
    squares = [
        np.square(first["scale"] * tensors[f"{name}.lora_a"].astype(float) @ tensors[f"{name}.lora_b"]).sum()
        for name in {name.rpartition(".")[0] for name in tensors}
    ]
    assert first["update_norm"] == pytest.approx(float(np.sqrt(sum(squares))), rel=1e-6)
    assert len(first["tensors"]) == len(tensors)
    fits = {fit["name"]: fit["fits"] for fit in first["base_models"]}
    assert fits.pop(BASE) is True
    assert set(fits.values()) == {None}


def test_inspect_page(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml_pipeline.cli.shared._PIPED_WIDTH", 80)
    weights = project.add(RUN, FIRST)
    page = call("inspect", weights.parent)
    assert page.exit_code == 0, page.output
    assert max(map(len, page.stdout.splitlines())) <= 80
    for line in (r"kind +lora", r"values +all finite", r"by module +updates +norm", rf"{BASE}: fits", "not looked at"):
        assert re.search(line, page.stdout), line
    assert re.search(r"Update of the weights, .*: [0-9.]+ in all", page.stdout)


def test_inspect_names_nan_and_an_untrained_b_and_ends_with_1(project: Project) -> None:
    weights = project.add(RUN, FIRST)
    tensors = load_file(weights)
    untrained, spoilt = sorted(name for name in tensors if name.endswith("lora_b"))[:2]
    tensors[untrained][:] = 0
    tensors[spoilt][0, :3] = np.nan
    save_file(tensors, weights)
    result = call("inspect", weights)
    assert result.exit_code == 1
    assert f"3 NaN and 0 infinite in {spoilt}" in result.stdout
    assert f"all zeros: {untrained}" in result.stdout
    assert "not finite in all" in result.stdout
    assert json.loads(call("inspect", weights, "--json").stdout)["update_norm"] is None
    refused = call("convert", weights, "--to", "gguf", "--base", BASE)
    assert (refused.exit_code, list(project.root.glob("*.gguf"))) == (1, [])
    assert "3 of" in refused.stderr


def test_inspect_against_one_base(project: Project, tmp_path: Path) -> None:
    weights = project.add(RUN, FIRST)
    good = call("inspect", weights, "--base", base_gguf(project))
    assert good.exit_code == 0
    assert f"{base_gguf(project).name}: fits" in good.stdout.replace("\n", "")
    other = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(other, "llama")
    writer.add_block_count(2)
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((4, 2), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    bad = call("inspect", weights, "--base", other)
    assert bad.exit_code == 1
    assert "does not fit" in bad.stdout
    assert "the adapter's last layer is 29, the base's is 1" in bad.stdout


def test_files_are_inspected_without_a_project(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = project.add(RUN, FIRST)
    monkeypatch.chdir(tmp_path)
    result = call("inspect", weights)
    assert result.exit_code == 0, result.output
    assert "Base models" not in result.stdout


def test_convert_writes_what_the_library_writes(project: Project, tmp_path: Path) -> None:
    weights = project.add(RUN, FIRST)
    expected = tmp_path / "expected.gguf"
    write_gguf_lora(read_adapter(weights, weights.with_name("adapter_config.json")), base_gguf(project), expected)
    done = call("convert", weights, "--to", "gguf", "--base", BASE)
    assert done.exit_code == 0, done.output
    out = Path(f"{weights.stem}.gguf")
    assert f"Wrote {out}" in done.stdout
    assert f"--model {base_gguf(project)} --lora {out}" in done.stdout
    assert "converted, MB" in done.stderr
    assert out.read_bytes() == expected.read_bytes()
    by_key = call("convert", KEY, "--to", "gguf", "--base", base_gguf(project), "--output", "sub/b.gguf")
    assert by_key.exit_code == 0, by_key.output
    assert Path("sub/b.gguf").read_bytes() == expected.read_bytes()


def test_peft_and_back_is_the_same_adapter(project: Project) -> None:
    weights = project.add(RUN, FIRST)
    done = call("convert", weights, "--to", "peft", "--output", "peft")
    assert done.exit_code == 0, done.output
    assert "PeftModel.from_pretrained(base, 'peft')" in done.stdout
    first, second = (json.loads(call("inspect", place, "--json").stdout) for place in (weights, "peft"))
    assert (first["format"], second["format"]) == ("mlx", "peft")
    for name in ("kind", "rank", "scale", "layers", "modules"):
        assert first[name] == second[name]
    assert second["update_norm"] == pytest.approx(first["update_norm"], rel=1e-9)
    for place, out in ((weights, "direct.gguf"), ("peft", "around.gguf")):
        assert call("convert", place, "--to", "gguf", "--base", BASE, "--output", out).exit_code == 0
    assert Path("direct.gguf").read_bytes() == Path("around.gguf").read_bytes()


def test_convert_replaces_only_when_told(project: Project) -> None:
    weights = project.add(RUN, FIRST)
    out = Path("a.gguf")
    out.write_text("mine")
    arguments: list[str | Path] = ["convert", weights, "--to", "gguf", "--base", BASE, "--output"]
    refused = call(*arguments, out)
    assert (refused.exit_code, out.read_text()) == (2, "mine")
    assert "--force" in refused.stderr
    before = weights.read_bytes()
    for force in ([], ["--force"]):
        assert call(*arguments, weights, *force).exit_code == 2
    assert weights.read_bytes() == before
    assert call(*arguments, out, "--force").exit_code == 0
    assert out.read_bytes().startswith(b"GGUF")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "nowhere"], "no such file or folder, and no checkpoint's key"),
        (["inspect", "mac.gone@5"], "not found in its source"),
        (["inspect", "runs"], "holds no *.safetensors file"),
        (["inspect", "runs/adapters-smollm2-135m-reasoning"], "holds 2 of them"),
        (["inspect", KEY, "--base", "smollm"], "base_models.smollm: no such base model"),
        (["inspect", "base.smollm2-135m@0"], "which has no adapter"),
        (["convert", KEY, "--to", "gguf"], "--to gguf needs --base"),
        (["convert", KEY, "--to", "gguf", "--base", "none.gguf"], "there is no such base model"),
    ],
)
def test_wrong_use_says_what_is_wrong(project: Project, arguments: list[str], message: str) -> None:
    project.add(RUN, FIRST)
    project.add(RUN, sample_iterations(RUN)[1])
    result = call(*arguments)
    assert result.exit_code in (1, 2)
    assert message in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.output
