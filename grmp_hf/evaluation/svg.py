"""A figure as an SVG element that stands inside an HTML page."""

from __future__ import annotations

import io
from html import escape

import matplotlib
from matplotlib.figure import Figure

from .plots import FAINT, GRID, INK, PAPER

__all__ = ["PAGE_SIZE", "inline_svg"]

PAGE_SIZE = (4.6, 3.9)
"""Inches: two figures side by side on a screen, one still readable on a phone."""


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """The figure as one `<svg>` element without a link to anything outside.

    Text stays text. Ink, frame, grid and ground become the page's CSS variables `--ink`, `--faint`, `--grid` and
    `--paper`, so that the page can be read on a light and on a dark ground. The same figure gives the same bytes.

    Args:
        figure: as `grmp_hf.evaluation.plots` draws it.
        name: letters, digits and dashes, another one for each figure of a page: what its ids begin with.
        description: said instead of the picture by what reads a page aloud.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "grmp_hf"}):
        figure.savefig(buffer, format="svg", transparent=True, dpi=110, metadata={"Date": None})
    text = buffer.getvalue()
    svg = text[text.index("<svg") :].strip()
    for colour, variable in ((INK, "--ink"), (FAINT, "--faint"), (GRID, "--grid"), (PAPER, "--paper")):
        svg = svg.replace(f": {colour}", f": var({variable})")
    svg = svg.replace(' id="', f' id="{name}-').replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
