"""A matplotlib figure as SVG text for a page, or as PNG bytes for Dagster."""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING

from ml_pipeline.reports.plots import INK, PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 150
_ID = re.compile(r'(\bid="|href="#|url\(#)')
_TAG = re.compile(r"<[^>]+>")
_LONG_DECIMAL = re.compile(r"(\.\d\d)\d+")


def to_svg(figure: Figure, name: str, description: str) -> str:
    """Render as an `<svg>` element to set into HTML: no fixed size, text as text, ink in the page's own colour.

    A page may set `--series-1` and so on, the colours of the lines, to suit a dark background.

    `name` prefixes every id, so that several figures of one page do not collide; `description` is what a screen
    reader says. Equal figures give equal text: no date, and ids hashed with a fixed salt.
    """
    from matplotlib import rc_context

    target = io.StringIO()
    # SVG text is written from these settings alone; the page's style sheet replaces the font.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.sans-serif": ["DejaVu Sans"]}):
        figure.savefig(target, format="svg", facecolor="none", metadata={"Date": None, "Creator": None})
    drawn = target.getvalue()
    size = re.search(r'viewBox="[^"]+"', drawn)
    assert size is not None, "matplotlib always writes a viewBox"
    body = drawn[drawn.index(">", drawn.index("<svg")) + 1 :].strip()
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body, flags=re.DOTALL)
    body = _ID.sub(lambda match: f"{match[1]}{name}-", body).replace(INK, "currentColor")
    for index, colour in enumerate(PALETTE, 1):
        body = body.replace(colour, f"var(--series-{index}, {colour})")
    body = _TAG.sub(lambda tag: _LONG_DECIMAL.sub(r"\1", tag[0]), body)
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} {size[0]} role="img" aria-label="{escape(description)}">{body}'


def to_png(figure: Figure, dpi: int = PNG_DPI) -> bytes:
    """Render as PNG on a white background, which every viewer of Dagster's metadata shows the same."""
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return target.getvalue()
