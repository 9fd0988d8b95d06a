"""Writes the present schema down beside those before it, once a migration has been added.

python -m ml_pipeline_tests.stores.write_schema
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.migrations import HISTORY, MIGRATIONS
from ml_pipeline.stores.views import VIEWS

SCHEMAS = Path(__file__).parent / "schemas"


def main() -> None:
    """Make an empty database and write the statements that make the same one."""
    with tempfile.TemporaryDirectory() as folder:
        store = DuckDBStore(Path(folder) / "empty.duckdb")
        store.migrate()
        tables = store.query("SELECT sql FROM duckdb_tables() WHERE NOT internal ORDER BY table_name")["sql"]
        done = [
            f"({m.version}, '{m.name.replace(chr(39), 2 * chr(39))}', '2026-01-01 00:00:00+00')" for m in MIGRATIONS
        ]
    statements = [
        *tables.to_pylist(),
        *(f"CREATE VIEW {view.name} AS {' '.join(view.query.split())};" for view in VIEWS),
        f"INSERT INTO {HISTORY} VALUES {', '.join(done)};",
    ]
    path = SCHEMAS / f"{MIGRATIONS[-1].version}.sql"
    path.write_text("".join(f"{statement}\n" for statement in statements), encoding="utf-8")
    print(path)


if __name__ == "__main__":
    main()
