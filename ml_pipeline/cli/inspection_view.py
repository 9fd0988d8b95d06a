"""How an inspected adapter is shown: a page of 80 columns for people, and JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from ml_pipeline.adapters.adapter import AdapterFormat
from ml_pipeline.adapters.inspect import Inspection, TensorFacts, Update, root_sum_square
from ml_pipeline.cli.base_fits import BaseFit

_WRITERS: dict[AdapterFormat, str] = {"mlx": "mlx-lm", "peft": "PEFT", "transformers": "transformers"}
_LARGEST = 10
_NAMED = 5


def inspection_view(inspection: Inspection, fits: Sequence[BaseFit]) -> RenderableType:
    """The page for a terminal."""
    parts: list[RenderableType] = [_summary(inspection)]
    if inspection.updates:
        total = root_sum_square([update.norm for update in inspection.updates])
        heading = f"Update of the weights, |scale * B A|: {_norm(total)} in all"
        parts += [Text(f"\n{heading}", style="bold"), _largest(inspection.updates)]
        parts += [Text(), _sums("module", inspection.updates, lambda update: update.module)]
        parts += [Text(), _sums("layer", inspection.updates, lambda update: _layer(update.layer))]
    if fits:
        parts += [Text("\nBase models", style="bold"), *_fit_lines(fits)]
    return Group(*parts)


def inspection_json(inspection: Inspection, fits: Sequence[BaseFit]) -> dict[str, Any]:
    """Everything known, for `json.dumps`; what is not finite is null, and counted."""
    adapter = asdict(inspection.adapter)
    return {
        **{key: str(value) if key.endswith("path") else value for key, value in adapter.items()},
        "update_norm": root_sum_square([u.norm for u in inspection.updates]) if inspection.updates else None,
        "tensors": [asdict(tensor) for tensor in inspection.tensors],
        "updates": [asdict(update) for update in inspection.updates],
        "base_models": [asdict(fit) for fit in fits],
    }


def _summary(inspection: Inspection) -> Table:
    adapter = inspection.adapter
    table = Table(
        Column(style="dim", no_wrap=True), Column(overflow="fold"), box=None, show_header=False, pad_edge=False
    )
    ranks = sorted({update.rank for update in inspection.updates})
    dtypes = Counter(tensor.dtype for tensor in inspection.tensors)
    counts = ", ".join(f"{count} {dtype}" for dtype, count in sorted(dtypes.items()))
    rows = {
        "file": str(adapter.path),
        "kind": f"{adapter.kind}, as {_WRITERS[adapter.format]} writes it",
        "rank": ", ".join(map(str, ranks)) or "none: whole weights",
        "scale": f"{adapter.scale:g}" + (f", another in {len(own)} modules" if (own := adapter.own_scales) else ""),
        "layers": _ranges(adapter.layers) or "none",
        "modules": ", ".join(adapter.modules),
        "tensors": f"{counts}; {adapter.size_bytes / 1e6:.2f} MB",
        "sha256": adapter.sha256,
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))
    table.add_row("values", _values(inspection))
    return table


def _values(inspection: Inspection) -> Text:
    spoilt, zeros = inspection.spoilt, inspection.zeros
    found = Text("all finite" if not spoilt else "")
    if spoilt:
        nans, infinite = sum(t.nan_count for t in spoilt), sum(t.infinite_count for t in spoilt)
        found.append(f"{nans} NaN and {infinite} infinite in {_named(spoilt)}", style="red")
    if zeros:
        found.append(f"; all zeros: {_named(zeros)}", style="yellow")
    return found


def _named(tensors: Sequence[TensorFacts]) -> str:
    names = ", ".join(tensor.name for tensor in tensors[:_NAMED])
    more = f", ... ({len(tensors)} tensors)" if len(tensors) > _NAMED else ""
    return f"{names}{more}"


def _largest(updates: Sequence[Update]) -> Table:
    chosen = sorted(updates, key=lambda update: -(update.norm if update.norm is not None else float("inf")))[:_LARGEST]
    title = f"the largest {len(chosen)} of {len(updates)}" if len(chosen) < len(updates) else "module"
    table = _table(Column("layer", justify="right"), Column(title, overflow="fold"), _right("rank"), _right("norm"))
    for update in chosen:
        table.add_row(_layer(update.layer), Text(update.module), str(update.rank), _norm(update.norm))
    return table


def _sums(title: str, updates: Sequence[Update], group: Callable[[Update], str]) -> Table:
    groups: dict[str, list[float | None]] = {}
    for update in updates:
        groups.setdefault(group(update), []).append(update.norm)
    sums = {name: root_sum_square(norms) for name, norms in groups.items()}
    chosen = sorted(sums, key=lambda name: -(norm if (norm := sums[name]) is not None else float("inf")))[:_LARGEST]
    heading = f"by {title}" if len(chosen) == len(sums) else f"by {title}, the largest {len(chosen)} of {len(sums)}"
    table = _table(Column(heading, overflow="fold"), _right("updates"), _right("norm"))
    for name in chosen:
        table.add_row(Text(name), str(len(groups[name])), _norm(sums[name]))
    return table


def _fit_lines(fits: Sequence[BaseFit]) -> Iterator[Text]:
    unknown: dict[str, list[str]] = {}
    for fit in fits:
        if fit.fits is None:
            unknown.setdefault(fit.reason, []).append(fit.name)
        elif fit.fits:
            yield Text(f"  {fit.name}: fits", style="green")
        else:
            yield Text(f"  {fit.name}: does not fit\n    " + fit.reason.replace("\n", "\n    "), style="yellow")
    for reason, names in unknown.items():
        yield Text(f"  {', '.join(names)}: not looked at: {reason}", style="dim")


def _table(*columns: Column) -> Table:
    return Table(*columns, box=None, pad_edge=False, header_style="bold")


def _right(heading: str) -> Column:
    return Column(heading, justify="right", no_wrap=True)


def _norm(norm: float | None) -> str:
    return "not finite" if norm is None else f"{norm:.4g}"


def _layer(layer: int | None) -> str:
    return "-" if layer is None else str(layer)


def _ranges(numbers: Sequence[int]) -> str:
    """`0-3, 7` for 0, 1, 2, 3, 7, which are sorted."""
    starts = [n for i, n in enumerate(numbers) if i == 0 or numbers[i - 1] != n - 1]
    ends = [n for i, n in enumerate(numbers) if i == len(numbers) - 1 or numbers[i + 1] != n + 1]
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))
