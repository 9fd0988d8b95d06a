"""The report that people open in the morning: one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ml_pipeline.files import write_atomically
from ml_pipeline.reports.failures import current_failures
from ml_pipeline.reports.report_view import sections
from ml_pipeline.reports.runs import RunCurve, run_curves
from ml_pipeline.reports.scores import Scores
from ml_pipeline.reports.wording import NO_SCORES, table_notes
from ml_pipeline.settings import BASE_SOURCE

_FOLDER = Path(__file__).parent
_TEMPLATE, _STYLE = "report.html.j2", "report.css"


def write_report(
    scores: Scores,
    path: Path,
    generated_at: datetime | None = None,
    curves: Sequence[RunCurve] | None = None,
) -> Path:
    """Write the report to `path` and return it. Readers see the old report or the new one, never half of one.

    `curves` are those of the scores, where the caller has them already.

    Raises:
        StoreFullError, StoreError: the file cannot be written.
    """
    # A lone surrogate in an answer cannot be encoded; it becomes '?' rather than cost the whole report.
    write_atomically(path, report_html(scores, generated_at, curves).encode("utf-8", "replace"))
    return path


def report_html(scores: Scores, generated_at: datetime | None = None, curves: Sequence[RunCurve] | None = None) -> str:
    """The report as HTML text: a pure function of the scores, with a time of making only if one is given.

    Answers are hostile text: the template escapes everything but the style sheet and the figures, whose words
    matplotlib escapes, and the page's policy allows no script and no network.
    """
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    identities = scores.identities()
    shown = run_curves(scores) if curves is None else curves
    trained = identities[identities["source"] != BASE_SOURCE]
    return environment.get_template(_TEMPLATE).render(
        style=Markup((_FOLDER / _STYLE).read_text(encoding="utf-8")),
        sections=sections(scores, shown),
        failures=[
            (failure.name, failure.label, failure.words, _time(failure.failed_at))
            for failure in current_failures(scores)
        ],
        no_scores=NO_SCORES,
        notes=table_notes(shown),
        checkpoints=trained["partition_key"].nunique(),
        runs=len(trained[["source", "run"]].drop_duplicates()),
        newest=None if scores.is_empty else _time(identities["scored_at"].max()),
        generated_at=None if generated_at is None else _time(generated_at),
        markup=Markup,
    )


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M %Z").strip()
