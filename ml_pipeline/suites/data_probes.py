"""Making probes out of a data set of the user's: rows checked, doubles left out, and a sample drawn that anybody with
the same rows and seed draws again."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ml_pipeline.suites.data_files import DataError, DataRow, data_files, read_rows
from ml_pipeline.suites.data_kinds import KINDS, Item, RowError, columns_of, item_of
from ml_pipeline.suites.data_schema import MAX_DATA_PROBES, DataFile
from ml_pipeline.suites.schema import CHECK
from ml_pipeline.suites.suite import Probe, SuiteKind

_SHOWN_PROBLEMS = 20
_DOUBLE = "the same as a row before"


@dataclass(frozen=True, slots=True)
class DataProbes:
    """The probes, and how many rows were left out for which reason."""

    probes: tuple[Probe, ...]
    left_out: tuple[tuple[str, int], ...]


def data_probes(data: DataFile, folder: Path, suite: SuiteKind) -> DataProbes:
    """The probes of a data set whose path is relative to `folder`, in the order of their categories and ids.

    Raises DataError naming every bad row (the first 20 of many), with its place, unless they are to be left out.
    """
    if suite not in (allowed := KINDS[data.kind].suites):
        raise DataError(f"data of kind {data.kind!r} belongs to suites of kind {allowed[0]!r}")
    try:
        path = folder / Path(data.file).expanduser()
        files = data_files(path, data.split)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{data.file}: cannot be read: {error}") from error
    items: dict[str, Item] = {}
    problems: list[str] = []
    left_out: Counter[str] = Counter()
    for row in read_rows(files, columns_of(data)):
        try:
            item = _item(row, data, suite)
        except RowError as error:
            left_out[str(error)] += 1
            if len(problems) < _SHOWN_PROBLEMS:
                problems.append(f"{row.place}: {error}")
            continue
        name = _id(item, data)
        left_out[_DOUBLE] += name in items
        items.setdefault(name, item)
    bad = left_out.total() - left_out[_DOUBLE]
    if problems and (data.bad_rows == "refuse" or not items):
        more = f"\n    and {bad - len(problems)} more" if bad > len(problems) else ""
        raise DataError(
            f"{bad} bad {'row' if bad == 1 else 'rows'}; mend them, or write 'bad_rows: leave_out'"
            + "".join(f"\n    {problem}" for problem in problems)
            + more
        )
    if not items:
        raise DataError(f"{path}: holds no row")
    if data.sample is None and len(items) > MAX_DATA_PROBES:
        raise DataError(f"{path}: {len(items):,} rows are more than {MAX_DATA_PROBES:,} probes; add 'sample'")
    if data.sample is not None and data.sample > len(items):
        raise DataError(f"{path}: a sample of {data.sample:,} out of {len(items):,} rows; lower 'sample' or drop it")
    chosen = sampled({name: item.category for name, item in items.items()}, data.sample, data.seed)
    probes = (
        Probe(name, (item := items[name]).category, item.prompt, check=item.check, ground_truth=item.ground_truth)
        for name in chosen
    )
    return DataProbes(tuple(probes), _counts(left_out))


def sampled(categories: Mapping[str, str], size: int | None, seed: int) -> list[str]:
    """`size` of the ids, or all, sorted by category and id; the ids are mapped to their categories.

    Each category has its share, give or take one. A larger sample holds every smaller one of the same seed, and
    neither the order of the rows nor rows of other categories change who is first in a category.
    """
    ranked: dict[str, list[tuple[bytes, str]]] = defaultdict(list)
    for name, category in categories.items():
        ranked[category].append((hashlib.sha256(f"{seed}\0{name}".encode()).digest(), name))
    # Every id gets its place within its category as a share: those of the smallest shares are a stratified sample.
    places = [
        ((rank + 0.5) / len(members), lot, name)
        for members in ranked.values()
        for rank, (lot, name) in enumerate(sorted(members))
    ]
    return sorted((name for _, _, name in sorted(places)[:size]), key=lambda name: (categories[name], name))


def _counts(left_out: Counter[str]) -> tuple[tuple[str, int], ...]:
    shown = (+left_out).most_common(_SHOWN_PROBLEMS)
    rest = left_out.total() - sum(count for _, count in shown)
    return (*shown, ("other reasons", rest)) if rest else tuple(shown)


def _item(row: DataRow, data: DataFile, suite: SuiteKind) -> Item:
    if row.fields is None:
        raise RowError(row.problem)
    item = item_of(row.fields, data, suite)
    if item.check is not None:
        try:
            CHECK.validate_python(item.check)
        except ValidationError as error:
            found = error.errors()[0]
            place = ".".join(str(step) for step in found["loc"][1:])
            raise RowError(f"no valid check: {place}: {found['msg']}") from error
    return item


def _id(item: Item, data: DataFile) -> str:
    """An id out of what is asked and what is right, so that it outlives a new order of the rows or other wording."""
    content = json.dumps([item.question, item.check, item.ground_truth], sort_keys=True)
    return f"{data.kind}/{hashlib.sha256(content.encode()).hexdigest()[:16]}"
