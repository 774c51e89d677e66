"""grmp_hf.evaluation.svg: one element that takes its colours from the page and points at nothing outside."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
from matplotlib.figure import Figure

from grmp_hf.evaluation.plots import learning_curve, scatter
from grmp_hf.evaluation.svg import inline_svg

MANY = np.linspace(0, 1, 600)


def curve() -> Figure:
    return learning_curve({"<a> & $b$": {20: [0.5, 0.6], 50: [0.6]}, "zero-shot": {0: [0.4]}})


def test_text_stays_text_and_names_are_escaped() -> None:
    svg = inline_svg(curve(), "one", 'a "curve" of <SRCC>')
    root = ElementTree.fromstring(svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"<a> & $b$", "zero-shot", "labels", "SRCC", "20", "50"} <= set(texts)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'a "curve" of <SRCC>'


def test_colours_of_ink_and_ground_are_the_pages() -> None:
    svg = inline_svg(scatter([1, 2, 4], [1, 2, 3]), "one", "points")
    for name in ("ink", "faint", "grid"):
        assert f"var(--{name})" in svg
    for colour in ("#222222", "#8a8a8a", "#e6e6e6", "#ffffff"):
        assert colour not in svg


def test_ids_of_two_figures_differ_and_every_reference_is_inside() -> None:
    svgs = [inline_svg(scatter(MANY, MANY), name, "points") for name in ("one", "two")]
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in svgs]
    assert all(ids) and not ids[0] & ids[1]
    for svg, known in zip(svgs, ids, strict=True):
        linked = re.findall(r'href="([^"]+)"', svg)
        assert any(link.startswith("data:image/png;base64,") for link in linked)  # many points are one bitmap
        inside = [link[1:] for link in linked if link.startswith("#")] + re.findall(r"url\(#([^)]+)\)", svg)
        assert inside and set(inside) <= known
        assert all(link.startswith(("#", "data:")) for link in linked)


def test_same_figure_same_bytes() -> None:
    assert inline_svg(curve(), "one", "a") == inline_svg(curve(), "one", "a")
