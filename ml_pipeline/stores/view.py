"""What a view is: the question that it answers, its query, and what its columns mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ml_pipeline.stores.table import Table


@dataclass(frozen=True)
class View:
    """A view, what it answers, its query, and the meaning of each column that the query gives, in its order."""

    name: str
    description: str
    query: str
    columns: Mapping[str, str]


def meanings(names: str, *tables: Table, **own: str) -> dict[str, str]:
    """The meaning of each of `names` (with spaces between them): its own one, or that of the first table that has it.

    Raises:
        KeyError: neither says what a name means.
    """
    known = {c.name: c.description for table in reversed(tables) for c in table.columns} | own
    return {name: known[name] for name in names.split()}
