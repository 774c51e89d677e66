"""Reading ratings: every layout gives the same rows, every fault of a table says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from grmp_hf.data import ImageError, RatedTable, RatingScale, Row, decode_row, iter_images, read_ratings
from grmp_hf.errors import GRMPError

NAMES = [f"{letter}.png" for letter in "abcdef"]
RATINGS = [1.0, 2.0, 3.5, 4.0, 5.0, 2.0]


def write_pictures(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for grey, name in enumerate(NAMES):
        Image.new("L", (4, 4), grey * 40).save(folder / name)


def table(separator: str = ",", header: tuple[str, ...] = ("image", "mos"), extra: tuple[str, ...] = ()) -> str:
    rows = [(name, f"{mos:g}", *extra) for name, mos in zip(NAMES, RATINGS, strict=True)]
    return "\n".join(separator.join(row) for row in (header, *rows)) + "\n"


def jsonl(**names: str) -> str:
    pairs = zip(NAMES, RATINGS, strict=True)
    return "\n".join(json.dumps({names.get("image", "file_name"): name, "mos": mos}) for name, mos in pairs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pictures(tmp_path)
    return tmp_path


def embedded(**columns: Any) -> datasets.Dataset:
    pictures = [None for _ in NAMES]
    features = {"image": datasets.Image(), "mos": datasets.Value("float64")}
    features |= {name: datasets.Value("string") for name in columns}
    return datasets.Dataset.from_dict(
        {"image": pictures, "mos": RATINGS, **columns}, features=datasets.Features(features)
    )


def embedded_pictures(folder: Path) -> datasets.Dataset:
    data = {"image": [str(folder / name) for name in NAMES], "mos": RATINGS, "file_name": NAMES}
    return datasets.Dataset.from_dict(data).cast_column("image", datasets.Image())


LAYOUTS: dict[str, tuple[str, str]] = {
    "comma": ("labels.csv", table()),
    "semicolon": ("labels.csv", table(";")),
    "tab": ("ratings.tsv", table("\t")),
    "byte order mark, Windows lines": ("labels.csv", "\ufeff" + table().replace("\n", "\r\n")),
    "other names": ("labels.csv", table(header=("Image Name", "Mean-Opinion-Score"))),
    "quotes": ("labels.csv", table().replace("a.png", '"a.png"').replace("image", '"image"')),
    "blank lines and empty columns": (
        "labels.csv",
        table(header=("image", "mos", ""), extra=("",)).replace("\n", "\n\n"),
    ),
    "JSON lines": ("metadata.jsonl", jsonl()),
    "case of the names": ("labels.csv", table().replace("a.png", "A.PNG")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pictures", [".", "images", "Images"])
@pytest.mark.parametrize("whole_folder", [False, True])
def test_every_layout_gives_the_same_rows(layout: str, pictures: str, whole_folder: bool, tmp_path: Path) -> None:
    file, text = LAYOUTS[layout]
    write_pictures(tmp_path / pictures)
    (tmp_path / file).write_text(text, encoding="utf-8", newline="")
    read = read_ratings(tmp_path if whole_folder else tmp_path / file)
    assert [row.name.lower() for row in read.rows] == NAMES
    assert [row.mos for row in read.rows] == RATINGS
    assert read.quality.tolist() == [(mos - 1) / 4 for mos in RATINGS]
    assert [row.image for row in read.rows] == [tmp_path / pictures / name for name in NAMES]
    assert read.name == read.rows[0].dataset == (tmp_path.name if whole_folder else file)
    assert any("taken as 1 (worst) to 5 (best)" in note for note in read.notes)


def test_pictures_elsewhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("labels") / "labels.csv"
    path.write_text(table())
    assert read_ratings(path, images=folder).rows[0].image == folder / "a.png"


def test_optional_columns_are_carried(folder: Path) -> None:
    lines = ["image,mos,SD,ref_img,dist_type,level,subset,set,colour"]
    for number, (name, mos) in enumerate(zip(NAMES, RATINGS, strict=True)):
        lines.append(f"{name},{mos},{'' if number else '0.5'},r.png,blur,3,indoor,{'Training' if number else 'test'},x")
    (folder / "labels.csv").write_text("\n".join(lines))
    read = read_ratings(folder)
    assert read.rows[0] == Row(
        *(folder / "a.png", "a.png", 1.0, 0.0, 0.5, "r.png", "blur", "3", "indoor", "test", folder.name)
    )
    assert (read.rows[1].mos_std, read.rows[1].split) == (None, "train")
    assert read.has("reference")
    assert any('scene from "subset", split from "set"' in note for note in read.notes)


def test_a_deviation_that_the_scale_does_not_allow_is_refused(folder: Path) -> None:
    write = (folder / "labels.csv").write_text
    write(table(header=("image", "mos", "mos_std"), extra=("2.83",)))  # 4 / sqrt(2), rounded
    assert [row.mos_std for row in read_ratings(folder).rows] == 6 * [2.83]
    write(table(header=("image", "mos", "mos_std"), extra=("12.5",)))
    with pytest.raises(
        GRMPError, match=r'"mos_std": expected deviations of at most 2\.8.* got 6 others: 12\.5 in line 2'
    ):
        read_ratings(folder)
    assert read_ratings(folder, scale=(0, 100)).rows[0].mos_std == 12.5


def test_codes_of_missing_ratings_are_asked_about_in_columns_of_raters(folder: Path) -> None:
    lines = [f"{name},{number % 5 + 1},{99 if number else 2}" for number, name in enumerate(NAMES)]
    (folder / "labels.csv").write_text("\n".join(["image,r1,r2", *lines]))
    with pytest.raises(GRMPError, match="expected to know what 99 means: 5 of 12 ratings are 99"):
        read_ratings(folder, rating_columns=["r*"])
    assert read_ratings(folder, rating_columns=["r*"], scale=(0, 100)).rows


def test_votes_are_whole_and_their_thousands_may_have_points(folder: Path) -> None:
    write = (folder / "labels.csv").write_text
    lines = [f"{name};{mos:.1f};2.554" for name, mos in zip(NAMES, RATINGS, strict=True)]
    write("\n".join(["image;mos;votes", *lines]))
    with pytest.raises(GRMPError, match=r'"votes": expected whole numbers of votes, got 6 others: 2\.554 in line 2'):
        read_ratings(folder)
    lines = [f"{name};{f'{mos:.1f}'.replace('.', ',')};2.554" for name, mos in zip(NAMES, RATINGS, strict=True)]
    write("\n".join(["image;mos;votes", *lines]))
    read = read_ratings(folder)
    assert {row.votes for row in read.rows} == {2554.0}
    assert any('points are those of thousands, "2.554" first' in note for note in read.notes)


def test_ratings_whose_points_may_be_of_thousands_are_refused(folder: Path) -> None:
    lines = [f"{name};{number + 1}.250;0,5" for number, name in enumerate(NAMES)]
    (folder / "labels.csv").write_text("\n".join(["image;mos;mos_std", *lines]))
    with pytest.raises(
        GRMPError, match=r'"mos": expected to know what its points mean.* of column "mos_std"; write one'
    ):
        read_ratings(folder)
    (folder / "labels.csv").write_text("\n".join(["image;mos;mos_std", *lines]).replace(",", "."))
    assert read_ratings(folder).rows[0].mos == 1.25


def test_votes_are_numbers_of_at_least_one(folder: Path) -> None:
    (folder / "labels.csv").write_text(table(header=("image", "mos", "Num Votes"), extra=("3",)) + "\n")
    assert [row.votes for row in read_ratings(folder).rows] == 6 * [3.0]
    (folder / "labels.csv").write_text(table(header=("image", "mos", "votes"), extra=("0",)))
    with pytest.raises(GRMPError, match='column "votes": expected numbers of votes, got 6 below 1: 0 in line 2'):
        read_ratings(folder)


def test_other_columns_that_may_be_ratings_are_told(folder: Path) -> None:
    (folder / "labels.csv").write_text(table(header=("image", "mos", "Score"), extra=("7",)))
    assert 'ratings from column "mos", not "Score"; --rating-column changes this' in read_ratings(folder).notes[0]


def test_split_column_of_other_words_is_left_out_with_a_note(folder: Path) -> None:
    (folder / "labels.csv").write_text(table(header=("image", "mos", "set"), extra=("A",)))
    read = read_ratings(folder)
    assert not read.has("split")
    assert any('column "set" is not used: it holds no train, validation or test' in note for note in read.notes)


def test_scale_can_be_given(folder: Path) -> None:
    (folder / "labels.csv").write_text(table())
    down = read_ratings(folder, scale=(0, 10), higher_is_better=False, unit="points")
    assert down.scale == RatingScale(0, 10, higher_is_better=False, unit="points")
    assert down.rows[0].quality == pytest.approx(0.9)
    assert read_ratings(folder, scale=RatingScale(1, 9)).rows[-2].quality == 0.5


@pytest.mark.parametrize("up", [True, False])
def test_dmos_with_a_direction(folder: Path, up: bool) -> None:
    (folder / "labels.csv").write_text(table(header=("image", "dmos")))
    assert read_ratings(folder, higher_is_better=up).rows[0].quality == (0.0 if up else 1.0)


def test_same_rating_twice_is_merged_with_a_note(folder: Path) -> None:
    (folder / "labels.csv").write_text(table() + "A.png,1\n")
    read = read_ratings(folder)
    assert len(read) == len(NAMES)
    assert any("1 rows repeat a picture with the same rating and are merged" in note for note in read.notes)


def test_hash_depends_on_names_and_ratings_only(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (folder / "labels.csv").write_text(table())
    first = read_ratings(folder).content_hash
    lines = table(";", header=("file", "score")).splitlines()
    other = tmp_path_factory.mktemp("other")
    (other / "x.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
    assert read_ratings(other / "x.csv", images=folder, scale=(0, 10)).content_hash == first
    assert first == "3c767a334a2475c07050f66a4ad425df5967c5cd7c4760f258d98bf24f8ca648"
    (folder / "labels.csv").write_text(table().replace("3.5", "3.6"))
    assert read_ratings(folder).content_hash != first


def test_two_tables_in_a_folder_are_told(folder: Path) -> None:
    (folder / "labels.csv").write_text(table())
    (folder / "metadata.jsonl").write_text(jsonl())
    assert "metadata.jsonl is used, not labels.csv" in read_ratings(folder).notes[0]


def test_data_set_rows_are_lazy_and_decoded_on_demand(folder: Path) -> None:
    read = read_ratings(embedded_pictures(folder))
    assert [row.name for row in read.rows] == NAMES
    assert [image.getpixel((0, 0)) for _, image in iter_images(read.rows)] == [(g * 40,) * 3 for g in range(6)]


def test_parts_of_a_data_set_become_splits(folder: Path) -> None:
    data = embedded_pictures(folder)
    read = read_ratings(datasets.DatasetDict(train=data.select(range(4)), test=data.select([4, 5])))
    assert [row.split for row in read.rows] == ["train"] * 4 + ["test"] * 2


@pytest.mark.parametrize("column", ["split", "Set", "partition"])
def test_a_column_of_other_words_does_not_hide_the_parts(folder: Path, column: str) -> None:
    data = embedded_pictures(folder)
    train, test = data.select(range(4)), data.select([4, 5])

    def read(first: str, second: str) -> RatedTable:
        parts = {"train": train.add_column(column, [first] * 4), "test": test.add_column(column, [second] * 2)}
        return read_ratings(datasets.DatasetDict(parts))

    for words in (("fold1", "fold2"), ("training", "testing")):
        assert [row.split for row in read(*words).rows] == ["train"] * 4 + ["test"] * 2
    with pytest.raises(GRMPError, match=rf'the part "train" to be of that part, got test in their column "{column}"'):
        read("test", "test")


def test_hub_name_loads_through_datasets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(name: str, config: str | None, revision: str | None) -> datasets.Dataset:
        asked.append((name, config, revision))
        return embedded_pictures(folder)

    monkeypatch.setattr(datasets, "load_dataset", load)
    read = read_ratings("owner/ratings", config="all", revision="v1")
    assert asked == [("owner/ratings", "all", "v1")]
    assert read.name == "owner/ratings"


def test_broken_pictures_are_yielded_not_raised(folder: Path) -> None:
    (folder / "labels.csv").write_text(table())
    read = read_ratings(folder)
    (folder / "b.png").write_bytes(b"")
    results = [result for _, result in iter_images(read.rows)]
    assert isinstance(results[1], ImageError)
    assert results[1].code == "empty"
    assert sum(isinstance(result, Image.Image) for result in results) == 5


def test_broken_picture_inside_a_data_set_names_its_row() -> None:
    read = read_ratings(embedded(file_name=NAMES))
    with pytest.raises(ImageError, match=r"c\.png: row 3 of the data set holds no picture; leave it out"):
        decode_row(read.rows[2])


def offline(*args: object, **options: object) -> None:
    raise ConnectionError("offline\n mode")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda folder: folder, r"expected one of metadata\.csv, .* in this folder, found none; name the table itself"),
        (lambda folder: folder / "x.csv", r"x\.csv: no such file or folder .*Check the spelling"),
        (lambda folder: "nowhere", r"nowhere: no such file or folder .*Check the spelling"),
        (lambda folder: folder / "a.png", r'expected a table ending in \.csv .*, got "\.png"; rename or convert it'),
        (lambda folder: "owner/name", r"could not be loaded .* \(offline mode\); check the spelling and the network"),
        (lambda folder: 7, "expected a path, a Hub name, a Dataset or a DatasetDict, got a int"),
        (lambda folder: embedded().select([]), "got a data set without rows; check its name and parts"),
        (
            lambda folder: datasets.DatasetDict(train=embedded(), test=embedded().remove_columns("mos")),
            'same columns in every part, got "mos" in some only; in Python, pass the one part that is rated',
        ),
    ],
)
def test_bad_sources_say_what_to_do(
    make: Callable[[Path], Any], match: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(GRMPError, match=match):
        read_ratings(make(folder))


def test_real_photographs(biq2021_folder: Path) -> None:
    read = read_ratings(biq2021_folder)
    assert len(read) == 1800
    assert (read.scale.low, read.scale.high) == (0, 1)
    assert sum(row.split == "test" for row in read.rows) == 800
    assert {row.scene for row in read.rows} == {"ss01", "ss02", "ss03"}
    images = [image for _, image in iter_images(read.rows[::200])]
    assert all(isinstance(image, Image.Image) and image.mode == "RGB" for image in images)
