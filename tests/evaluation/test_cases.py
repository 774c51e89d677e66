"""grmp_hf.evaluation.cases: the right draw, the right pictures, and no picture unless asked for."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.cases import Predictions, show_methods
from grmp_hf.evaluation.logistic import fit_logistic
from grmp_hf.evaluation.results import ResultGroup, group_results

MOS = np.linspace(1, 5, 40)
SCORES = MOS + np.random.default_rng(0).normal(0, 0.1, 40)
SCORES[7] += 3
NAMES = [f"{number}.jpg" for number in range(40)]


def group(*cells: tuple[str, int, list[float]]) -> ResultGroup:
    where = {"dataset": "livec", "test_dataset": "bid", "protocol": "clean"}
    rows = [
        {**where, "method": method, "shots": shots, "draw": draw, "srcc": srcc}
        for method, shots, values in cells
        for draw, srcc in enumerate(values)
    ]
    return group_results(rows)[0]


def said(row: Any) -> Predictions:
    return Predictions(NAMES, SCORES, MOS)


def test_each_method_is_shown_in_its_median_draw_the_best_first() -> None:
    asked = []

    def predictions(row: Any) -> Predictions:
        asked.append((row["method"], row["shots"], row["draw"]))
        return said(row)

    cells = group(
        ("zero-shot", 0, [0.3]), ("ridge", 20, [0.1]), ("ridge", 50, [0.4, 0.6, 0.5]), ("ridge", 200, [0.9]),
        ("svr", 10, [0.2]), ("svr", 20, [0.7, 0.8]),
    )  # fmt: skip
    shown = show_methods(cells, "x", predictions)
    assert asked == [("svr", 20, 0), ("ridge", 50, 2), ("zero-shot", 0, 0)]
    assert [(method.row["method"], method.draws, method.pictures) for method in shown] == [
        ("svr", 2, 40),
        ("ridge", 3, 40),
        ("zero-shot", 1, 40),
    ]
    assert 'id="x-1-scatter-' in shown[0].scatter and 'id="x-3-residuals-' in shown[2].residuals


def test_worst_cases_are_the_largest_residuals_of_the_fit() -> None:
    (shown,) = show_methods(group(("ridge", 50, [0.5])), "x", said)
    fitted = fit_logistic(SCORES, MOS)(SCORES)
    order = np.argsort(-np.abs(MOS - fitted))[:10]
    assert [case.name for case in shown.worst] == [NAMES[at] for at in order]
    assert shown.worst[0].name == "7.jpg"
    assert (shown.worst[0].prediction, shown.worst[0].rating) == (fitted[7], MOS[7])
    assert all(case.thumbnail is None for case in shown.worst)


def test_thumbnails_are_small_and_carry_no_metadata() -> None:
    asked = []

    def thumbnails(dataset: str, name: str) -> bytes | None:
        asked.append((dataset, name))
        if name != "7.jpg":
            return None
        picture, buffer = Image.new("RGBA", (400, 300), (200, 30, 30, 255)), io.BytesIO()
        exif = Image.Exif()
        exif[0x010E] = "a private description"
        picture.save(buffer, "PNG", exif=exif)
        return buffer.getvalue()

    (shown,) = show_methods(group(("ridge", 50, [0.5])), "x", said, thumbnails)
    assert asked == [("bid", case.name) for case in shown.worst]
    assert [case.thumbnail is None for case in shown.worst] == [False] + [True] * 9
    head, content = str(shown.worst[0].thumbnail).split(",")
    assert head == "data:image/jpeg;base64"
    content = base64.b64decode(content)
    assert b"private" not in content
    with Image.open(io.BytesIO(content)) as small:
        assert (small.format, small.size, dict(small.getexif())) == ("JPEG", (160, 120), {})


def test_what_does_not_fit_together_is_named() -> None:
    cells = group(("ridge", 20, [0.5]))
    with pytest.raises(GRMPError, match="Predictions of ridge on bid, 20 labels, draw 0: Expected one name a picture"):
        show_methods(cells, "x", lambda row: Predictions(NAMES[1:], SCORES, MOS))
    with pytest.raises(GRMPError, match="Predictions of ridge on bid, 20 labels, draw 0: Expected one rating a score"):
        show_methods(cells, "x", lambda row: Predictions(NAMES, SCORES, MOS[1:]))
    with pytest.raises(GRMPError, match=r"Thumbnail of '7\.jpg' of bid: expected a JPEG or PNG picture"):
        show_methods(cells, "x", said, lambda dataset, name: b"GIF89a")
