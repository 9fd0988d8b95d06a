"""`inspect` and `convert`: the commands about one adapter."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import click

from ml_pipeline.cli.shared import reporting, stderr, stdout
from ml_pipeline.errors import SettingsError
from ml_pipeline.files import named_by_user
from ml_pipeline.progress import RichProgress

if TYPE_CHECKING:
    from ml_pipeline.adapters import Adapter

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _Target:
    """A format to convert to. `write` takes the adapter, the base model's file, where to write, and the progress.

    `usage` says what to do with the result, of the fields `out` and `base`.
    """

    write: Callable[[Adapter, Path, Path, Progress], object]
    suffix: str
    needs_base: bool
    usage: str


def _write_gguf(adapter: Adapter, base_gguf: Path, out: Path, progress: Progress) -> None:
    from ml_pipeline.adapters import write_gguf_lora

    write_gguf_lora(adapter, base_gguf, out, progress)


def _write_peft(adapter: Adapter, base_gguf: Path, out: Path, progress: Progress) -> None:
    from ml_pipeline.adapters import write_peft

    write_peft(adapter, out)
    progress(adapter.size_bytes, adapter.size_bytes)


TARGETS: Mapping[str, _Target] = MappingProxyType(
    {
        "gguf": _Target(_write_gguf, ".gguf", True, "llama-cli --model {base} --lora {out}"),
        "peft": _Target(_write_peft, "-peft", False, "PeftModel.from_pretrained(base, '{out}')"),
    }
)
"""What `--to` offers."""

_ADAPTER_HELP = (
    "PATH is a .safetensors file with its configuration beside it, a folder that holds them, or the key of a "
    "checkpoint such as mac.run@800, which is fetched."
)


@click.command(epilog=_ADAPTER_HELP)
@click.argument("path")
@click.option("--base", help="Hold it against this base model only: a name of pipeline.yaml, or a .gguf file.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@reporting
def inspect(path: str, base: str | None, as_json: bool) -> None:
    """Show what is inside an adapter, how much it changes, and which base models it fits.

    Ends with 1 when it holds NaN or infinity, or does not fit the base model of --base.
    """
    from ml_pipeline.adapters.inspect import inspect_adapter
    from ml_pipeline.cli.adapter_paths import adapter_files, base_file
    from ml_pipeline.cli.base_fits import base_fit, base_fits
    from ml_pipeline.cli.inspection_view import inspection_json, inspection_view

    with RichProgress(stderr()) as progress:
        files = adapter_files(path, progress)
        inspection = inspect_adapter(files.weights, files.config)
    fits = base_fits(inspection.adapter) if base is None else [base_fit(inspection.adapter, base, base_file(base))]
    if as_json:
        click.echo(json.dumps(inspection_json(inspection, fits), indent=2, allow_nan=False))
    else:
        stdout().print(inspection_view(inspection, fits), soft_wrap=False)
    if inspection.spoilt or (base is not None and not fits[0].fits):
        sys.exit(1)


@click.command(epilog=_ADAPTER_HELP)
@click.argument("path")
@click.option("--to", "target", type=click.Choice(list(TARGETS)), required=True, help="The format to write.")
@click.option("--base", help="The base model that it is for: a name of pipeline.yaml, or a .gguf file.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="What to write; default: named as PATH, in this folder."
)
@click.option("--force", is_flag=True, help="Replace what is there.")
@reporting
def convert(path: str, target: str, base: str | None, output: Path | None, force: bool) -> None:
    """Write an adapter in another format, after checking that it is sound and fits the base model."""
    from ml_pipeline.adapters import read_adapter
    from ml_pipeline.cli.adapter_paths import adapter_files, base_file

    chosen = TARGETS[target]
    if base is None and chosen.needs_base:
        raise SettingsError(f"--to {target} needs --base: the names of its tensors depend on the base model.")
    base_gguf = Path() if base is None else base_file(base)
    with RichProgress(stderr()) as progress:
        files = adapter_files(path, progress)
        out = output or Path(f"{files.name}{chosen.suffix}")
        _refuse_to_spoil(out, [files.weights, files.config, base_gguf], force=force)
        adapter = read_adapter(files.weights, files.config)
        with named_by_user():
            chosen.write(adapter, base_gguf, out, _in_megabytes(progress))
    console = stdout()
    size = f"{out.stat().st_size / 1e6:.2f} MB, " if out.is_file() else ""
    console.print(
        f"Wrote {out}: {size}rank {adapter.rank}, scale {adapter.scale:g}, {len(adapter.layers)} layers.\n"
        f"Use it: {chosen.usage.format(out=out, base=base_gguf)}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _refuse_to_spoil(out: Path, inputs: list[Path], *, force: bool) -> None:
    if not out.exists():
        return
    for path in inputs:
        if path.exists() and out.samefile(path):
            raise SettingsError(f"{out}: is read for this conversion. Choose another --output.")
    if not force:
        raise SettingsError(f"{out}: is there already. Choose another --output, or replace it with --force.")


def _in_megabytes(progress: RichProgress) -> Progress:
    def step(done: int, total: int) -> None:
        whole = math.ceil(total / 1e6)
        progress.step("converted, MB", whole if done == total else done // 10**6, whole)

    return step
