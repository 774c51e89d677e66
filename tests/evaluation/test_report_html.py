"""grmp_hf.evaluation.report_html: one sound page with the figures of the rows, and nothing from elsewhere."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.report_html import Predictions, write_report

VOID = {"meta", "br", "img", "link", "input", "hr"}
ODD = "<b>&\"'$x$ _{{ 7 * 7 }}"


class Page(HTMLParser):
    """Checks the nesting while it reads; gathers tables by caption, links, text and tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[list[str]]]] = {}
        self.text: list[str] = []
        self.rows: list[list[str]] = []
        self.caption = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.rows, self.caption = [], ""
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "table":
            self.tables.setdefault(self.caption, []).append(self.rows)

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if "caption" in self.open:
            self.caption += data
        elif "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def attributes(self, name: str) -> list[str]:
        return [str(attributes[name]) for _, attributes in self.tags if name in attributes]


def row(method: str, shots: int, draw: int, srcc: float, **others: Any) -> dict[str, Any]:
    return {
        "dataset": "livec", "test_dataset": "livec", "protocol": "clean", "method": method, "shots": shots,
        "draw": draw, "seed": 5, "split_hash": f"{draw:064x}", "data_hash": "ab" * 32, "n_train": shots, "n_test": 60,
        "srcc": srcc, "krcc": srcc - 0.1, "plcc": srcc + 0.01, "plcc_logistic": srcc + 0.02, "rmse": 10 - srcc,
        "recipe": None, "model": "tiny", "revision": "abc123", "preprocessing": {"views": 5},
        "versions": {"torch": "2.9"}, "seconds": 1.5, "peak_memory_mib": 700.0, "predictions": "x.npz",
        "selection": "last epoch", **others,
    }  # fmt: skip


def said(row: Any, n: int = 60) -> Predictions:
    mos = np.linspace(1, 5, n)
    noise = np.random.default_rng([row["shots"], row["draw"], len(row["method"])]).normal(0, 0.5, n)
    return Predictions([f"{ODD}{number}.jpg" for number in range(n)], mos + noise, mos)


def report(tmp_path: Path, rows: Sequence[dict[str, Any]], **settings: Any) -> tuple[str, Page]:
    settings = {"title": "A title", "command": "grmp-iqa benchmark a.yaml", "predictions": said, **settings}
    write_report(tmp_path / "made" / "report.html", rows, **settings)
    text = (tmp_path / "made" / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


CLEAN = [row("zero-shot", 0, 0, 0.4)]
CLEAN += [row("ridge", shots, draw, 0.5 + shots / 1000 + draw / 10) for shots in (20, 50) for draw in range(3)]


def test_figures_equal_the_rows(tmp_path: Path) -> None:
    where = {"dataset": "livec", "test_dataset": "livec", "protocol": "clean", "reference": "zero-shot"}
    comparison = {**where, "method": "ridge", "shots": 50, "difference": 0.25, "low": -0.125, "high": 0.5}
    _, page = report(tmp_path, CLEAN, comparisons=[comparison])
    (table,) = page.tables["SRCC: median [worst, best] of 3 draws"]
    assert table == [
        ["method", "no labels", "20 labels", "50 labels"],
        ["zero-shot", "0.400", "\N{EN DASH}", "\N{EN DASH}"],
        ["ridge", "\N{EN DASH}", "0.620 [0.520, 0.720]", "0.650 [0.550, 0.750]"],
    ]
    (rmse,) = page.tables["RMSE after fit: median [worst, best] of 3 draws"]
    assert rmse[2][2:] == ["9.380 [9.480, 9.280]", "9.350 [9.450, 9.250]"]
    (differences,) = [found for caption, found in page.tables.items() if "less that of zero-shot" in caption]
    assert differences[0][1] == ["ridge", "+0.250 [-0.125, 0.500] (1 of 1)"]
    (every,) = page.tables["Figures of every draw"]
    assert len(every) == 1 + len(CLEAN)
    srcc = every[0].index("SRCC")
    assert [line[srcc] for line in every[1:]] == [f"{found['srcc']:.4f}" for found in CLEAN]
    assert "ridge: SRCC 0.650, 50 labels, draw 1 (the median of 3), 60 pictures" in page.text
    assert "zero-shot: SRCC 0.400, no labels, 60 pictures" in page.text
    assert "grmp-iqa benchmark a.yaml" in page.text


def test_nothing_comes_from_outside_and_no_picture_unless_asked_for(tmp_path: Path) -> None:
    text, page = report(tmp_path, CLEAN)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "img", "base", "form"}
    links = [*page.attributes("href"), *page.attributes("xlink:href")]
    assert links and all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert page.attributes("src") == []
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)


def test_who_cannot_see_the_figures_is_told_what_they_are(tmp_path: Path) -> None:
    _, page = report(tmp_path, CLEAN)
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawings) == 1 + 2 * 2  # a curve; scatter and residuals of each method
    assert all(found["role"] == "img" and found["aria-label"] for found in drawings)
    assert "SRCC of 2 methods on livec over 0, 20, 50 labels; the table has the same figures" in page.attributes(
        "aria-label"
    )
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in page.tags if tag == "th")
    assert "" not in page.tables
    assert ("html", {"lang": "en"}) in page.tags


def test_every_string_is_escaped(tmp_path: Path) -> None:
    rows = [
        row(ODD, 20, draw, 0.5 + draw / 10, dataset=ODD, model=ODD, selection=ODD, recipe={ODD: ODD}) for draw in (0, 1)
    ]
    text, page = report(tmp_path, rows, title=ODD, command=ODD)
    assert "<b>" not in text and "49" not in [word for found in page.text for word in found.split()]
    assert page.text.count(ODD) >= 6  # title twice, command, method in tables, summary and legend
    assert f"{ODD} → livec" in page.text
    assert any(cell.startswith(ODD) for cell in page.tables["The 10 largest residuals"][0][1])


def test_thumbnails_are_there_when_asked_for(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200)).save(buffer, "JPEG")
    _, page = report(tmp_path, CLEAN[:1], thumbnails=lambda dataset, name: buffer.getvalue())
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 10
    assert all(str(found["src"]).startswith("data:image/jpeg;base64,") for found in images)
    assert all(str(found["alt"]).startswith(ODD) for found in images)
    assert page.tables["The 10 largest residuals"][0][0] == ["picture", "name", "prediction", "rating", "residual"]


def test_protocols_stand_side_by_side_on_one_scale(tmp_path: Path) -> None:
    rows = [*CLEAN, *(row("ridge", 20, draw, 0.9, protocol="paper") for draw in range(3))]
    rows += [row("ridge", 20, 0, 0.3, test_dataset="bid")]
    text, page = report(tmp_path, rows)
    heads = [text.strip() for tag, text in re.findall(r"<(h[23])[^>]*>([^<]*)</h[23]>", text)]
    assert heads == [
        "livec", "Protocol clean", "Protocol paper", "Predictions, protocol clean", "Predictions, protocol paper",
        "livec → bid", "Protocol clean", "Predictions, protocol clean", "How it was run", "Every row",
    ]  # fmt: skip
    assert "Adapted on livec, tested on bid." in page.text
    assert any("upper bounds" in found for found in page.text)
    curves = re.findall(r'<svg[^>]*aria-label="SRCC of.*?</svg>', text, flags=re.DOTALL)
    ticks = [re.findall(r">(\d\.\d)</text>", curve) for curve in curves]
    assert ticks[0] == ticks[1] != ticks[2]


@pytest.mark.parametrize(
    "rows",
    [[row("ridge", 20, 0, 0.5)], [row("zero-shot", 0, 0, 0.5)], [row("ridge", 20, 0, 0.5, **dict.fromkeys(
        ("krcc", "plcc", "plcc_logistic", "rmse", "seconds", "peak_memory_mib", "revision")))]],
    ids=["one draw", "no labels", "metrics missing"],
)  # fmt: skip
def test_little_is_enough(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    _, page = report(tmp_path, rows)
    (table,) = page.tables["SRCC: one draw"]
    assert table[1][1:] == ["0.500"]


def test_a_usual_run_stays_small(tmp_path: Path) -> None:
    rows = [
        row(f"method {m}", shots, draw, 0.5) for m in range(9) for shots in (20, 50, 100, 200) for draw in range(10)
    ]
    text, _ = report(tmp_path, rows, predictions=lambda row: said(row, 3000))
    assert len(text.encode()) < 3_000_000


def test_the_same_rows_give_the_same_file(tmp_path: Path) -> None:
    assert report(tmp_path, CLEAN[:3])[0] == report(tmp_path, CLEAN[:3])[0]


def test_no_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GRMPError, match="Expected the rows of a benchmark, got none"):
        report(tmp_path, [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("pictures", "few"), [(19, True), (20, False)])
def test_a_fit_of_few_pictures_is_called_so(tmp_path: Path, pictures: int, few: bool) -> None:
    text, _ = report(tmp_path, [row("ours", 50, 0, 0.6)], predictions=lambda row: said(row, pictures))
    assert ("so few pictures" in text) is few
