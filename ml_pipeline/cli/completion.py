"""What the shell completes out of the database: checkpoints, runs and suites. Quick, and silent when it cannot."""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

_LONGEST_WAIT_S = 0.3
_BASH = r"""
%(complete_func)s() {
    local line="${COMP_LINE:0:$COMP_POINT}" words cut type value
    read -ra words <<< "$line"
    local last=$((${#words[@]} - 1))
    [[ $line == *[[:space:]] ]] && last=$((last + 1))
    cut="${words[$last]%%"$2"}"
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${value#"$cut"}") ;;
        esac
    done < <(COMP_WORDS="$line" COMP_CWORD=$last %(complete_var)s=bash_complete "$1")
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
_MOST = 200
_SCORED = "(FROM evaluations SELECT partition_key, source, run, label, suite UNION FROM checkpoint_scores SELECT "
_SCORED += "partition_key, source, run, label, suite)"


@add_completion_class
class KeyedBashComplete(BashComplete):
    """Completion for bash that knows words with '@' in them, where bash itself begins a new word."""

    source_template = _BASH


def complete_checkpoint(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Keys of scored checkpoints that begin so; if none does, those that have this part."""
    return _fitting(context, f"SELECT DISTINCT partition_key, label FROM {_SCORED} ORDER BY 1", incomplete)


def complete_run(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Scored runs."""
    sql = f"SELECT DISTINCT run, source FROM {_SCORED} WHERE source <> 'base' ORDER BY 1"
    return _fitting(context, sql, incomplete)


def complete_suite(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Suites that something was scored on."""
    return _fitting(context, f"SELECT DISTINCT suite, 'suite' FROM {_SCORED} ORDER BY 1", incomplete)


def _fitting(context: click.Context, sql: str, incomplete: str) -> list[CompletionItem]:
    rows = _rows(context, sql)
    begin = [row for row in rows if row[0].startswith(incomplete)]
    fitting = begin or [row for row in rows if incomplete.lower() in row[0].lower()]
    return [CompletionItem(value, help=told) for value, told in fitting[:_MOST]]


def _rows(context: click.Context, sql: str) -> Iterable[tuple[str, str]]:
    try:
        from ml_pipeline.printable import printable
        from ml_pipeline.settings_file import load_settings
        from ml_pipeline.stores.duckdb_files import connection  # far quicker to import than DuckDBStore

        settings = load_settings(context.find_root().params.get("config_path"))
        with connection(settings.duckdb_path, _LONGEST_WAIT_S, read_only=True) as connected:
            rows = connected.execute(sql).fetchall()
        return [(value, printable(told, 60)) for value, told in rows if value.isprintable()]
    except Exception:  # A shell that waits for Tab must not be answered with a traceback.
        return []
