"""The same picture by every door has the same score."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

import grmp_hf
from grmp_hf import pictures
from grmp_hf.data import ImageError, decode_image, decode_row
from grmp_hf.data.image_errors import ImageWarning
from grmp_hf.errors import GRMPError
from grmp_hf.pictures import read_picture
from grmp_hf.pipelines import TASK
from grmp_hf.scoring import Scorer


@pytest.fixture(scope="module")
def scorer(adapter_folder: Path) -> Scorer:
    return grmp_hf.load(adapter=adapter_folder)


def pixels(path: Path) -> Any:
    return np.asarray(Image.open(path).convert("RGB"))


ONE = {
    "path": lambda path: path,
    "text": str,
    "bytes": Path.read_bytes,
    "PIL": Image.open,
    "uint8 HWC": pixels,
    "uint8 CHW": lambda path: np.moveaxis(pixels(path), 2, 0),
    "float32 HWC": lambda path: (pixels(path) / 255).astype("float32"),
    "float64 CHW": lambda path: np.moveaxis(pixels(path) / 255, 2, 0),
    "float16": lambda path: (pixels(path) / 255).astype("float16"),
    "torch uint8 CHW": lambda path: torch.from_numpy(pixels(path).copy()).permute(2, 0, 1),
    "torch float HWC": lambda path: torch.from_numpy(pixels(path) / 255).float().requires_grad_(),
    "stream": lambda path: io.BytesIO(path.read_bytes()),
    "undecoded bytes": lambda path: {"bytes": path.read_bytes(), "path": None},
    "undecoded path": lambda path: {"bytes": None, "path": str(path)},
}


@pytest.mark.parametrize("kind", ONE)
def test_one_picture_of_any_kind_scores_the_same(kind: str, scorer: Scorer, photos: list[Path]) -> None:
    expected = scorer.score(photos[0]).score
    assert scorer.score(ONE[kind](photos[0])).score == pytest.approx(expected, abs=1e-6)
    found = pipeline(TASK, model=scorer.model)(ONE[kind](photos[0]))
    assert found["score"] == pytest.approx(expected[0], abs=1e-5)


def data_set(paths: list[Path]) -> datasets.Dataset:
    made = datasets.Dataset.from_dict({"image": [str(path) for path in paths], "name": [path.name for path in paths]})
    return made.cast_column("image", datasets.Image())


class Lazy(torch.utils.data.Dataset[Any]):
    """Pictures by their number."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> str:
        return str(self.paths[index])


MANY = {
    "list": list,
    "tuple": tuple,
    "generator": lambda paths: (path for path in paths),
    "map": lambda paths: map(str, paths),
    "arrays": lambda paths: [pixels(path) for path in paths],
    "array of texts": lambda paths: np.array([str(path) for path in paths]),
    "array of paths": lambda paths: np.array(paths),
    "array of objects": lambda paths: np.array([str(path) for path in paths], dtype=object)[:, None],
    "column": lambda paths: data_set(paths)["image"],
    "data set": data_set,
    "undecoded": lambda paths: data_set(paths).cast_column("image", datasets.Image(decode=False))["image"],
    "key data set": lambda paths: KeyDataset(data_set(paths), "image"),
    "torch data set": Lazy,
    "streamed": lambda paths: data_set(paths).to_iterable_dataset(),
}


@pytest.mark.parametrize("kind", MANY)
def test_many_pictures_of_any_kind_score_the_same(kind: str, scorer: Scorer, photos: list[Path]) -> None:
    expected = scorer.score(photos[:5]).score
    assert scorer.score(MANY[kind](photos[:5]), batch_size=2).score == pytest.approx(expected, abs=1e-6)
    found = pipeline(TASK, model=scorer.model)(MANY[kind](photos[:5]))
    assert [row["score"] for row in found] == pytest.approx(expected, abs=1e-5)


def one_array(paths: list[Path]) -> Iterator[Any]:
    buffer = np.empty((40, 50, 3), np.uint8)
    for path in paths:
        buffer[:] = np.asarray(Image.open(path).convert("RGB").resize((50, 40)))
        yield buffer


def one_tensor(paths: list[Path]) -> Iterator[Any]:
    buffer = torch.empty((40, 50, 3), dtype=torch.uint8)
    for array in one_array(paths):
        buffer.copy_(torch.from_numpy(array))
        yield buffer


def one_picture(paths: list[Path]) -> Iterator[Any]:
    canvas = Image.new("RGB", (50, 40))
    for array in one_array(paths):
        canvas.paste(Image.fromarray(array))
        yield canvas


def closed_behind(paths: list[Path]) -> Iterator[Any]:
    for path in paths:
        with Image.open(path) as image:
            yield image


def files_closed_behind(paths: list[Path]) -> Iterator[Any]:
    for path in paths:
        with open(path, "rb") as file:
            yield file


@pytest.mark.parametrize("reused", [one_array, one_tensor, one_picture, closed_behind, files_closed_behind])
def test_what_a_generator_does_with_a_picture_afterwards_changes_nothing(
    reused: Any, scorer: Scorer, photos: list[Path]
) -> None:
    small = [array.copy() for array in one_array(photos[:6])]
    expected = scorer.score(photos[:6] if "closed" in reused.__name__ else small).score
    assert np.ptp(expected) > 0.01
    np.testing.assert_array_equal(scorer.score(reused(photos[:6])).score, expected)


def test_a_column_of_odd_pictures_is_read_as_their_files_are(
    scorer: Scorer, photos: list[Path], tmp_path: Path
) -> None:
    odd = tmp_path / "white_is_zero.tif"
    wide = np.asarray(Image.open(photos[3]).convert("L")).astype(np.uint16) * 257
    tifffile.imwrite(odd, 65535 - wide, photometric="miniswhite")
    damaged, stream = tmp_path / "damaged.jpg", io.BytesIO()
    Image.open(photos[9]).resize((200, 160)).save(stream, "JPEG")
    half = len(stream.getvalue()) // 2
    damaged.write_bytes(stream.getvalue()[:half] + bytes(300) + stream.getvalue()[half + 300 :])
    with pytest.warns(ImageWarning, match=r"damaged\.jpg"):
        expected = scorer.score([odd, damaged]).score
    for given in (data_set([odd, damaged]), data_set([odd, damaged])["image"], closed_behind([odd, damaged])):
        with pytest.warns(ImageWarning, match="a part of its data is lost"):
            np.testing.assert_array_equal(scorer.score(given).score, expected)


def test_bfloat16_is_taken(scorer: Scorer, photos: list[Path]) -> None:
    found = scorer.score((torch.from_numpy(pixels(photos[0]).copy()) / 255).bfloat16()).quality
    assert found == pytest.approx(scorer.score(photos[0]).quality, abs=0.02)


def test_an_open_file_is_one_picture_as_often_as_it_is_given(scorer: Scorer, photos: list[Path]) -> None:
    expected = scorer.score(photos[0]).score
    with open(photos[0], "rb") as file:
        for _ in range(2):
            assert scorer.score(file).score == expected
        with pytest.raises(GRMPError, match="got one"):
            scorer.iter_scores(file)  # type: ignore[arg-type]
    with open(__file__) as text, pytest.raises(ImageError, match="binary mode, got str"):
        scorer.score(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [7, None, np.zeros((4, 4, 3), np.uint8), b"content"])
def test_rows_of_what_is_no_path_are_refused_by_name(wrong: Any, scorer: Scorer, photos: list[Path]) -> None:
    with pytest.raises(ImageError, match=f"Expected paths of files, got {type(wrong).__name__}"):
        list(scorer.iter_scores([photos[0], wrong]))
    with pytest.raises(GRMPError, match="Expected an iterable of files"):
        scorer.iter_scores(7)  # type: ignore[arg-type]


def test_a_batch_of_arrays(scorer: Scorer, photos: list[Path]) -> None:
    batch = np.stack([np.asarray(Image.open(path).convert("RGB").resize((50, 40))) for path in photos[:3]])
    expected = scorer.score(list(batch)).score
    for given in (batch, torch.from_numpy(batch).permute(0, 3, 1, 2), batch / 255):
        assert scorer.score(given).score == pytest.approx(expected, abs=1e-6)
        found = pipeline(TASK, model=scorer.model)(given)
        assert [row["score"] for row in found] == pytest.approx(expected, abs=1e-5)


BAD = [
    (np.zeros((4, 4, 3), np.uint16), "uint8 or of floats from 0 to 1, got uint16"),
    (np.zeros((4, 4, 3), bool), "got bool"),
    (np.full((4, 4, 3), 255.0), "Expected floats from 0 to 1, got 255 to 255"),
    (np.full((4, 4, 3), -0.5), "Expected floats from 0 to 1, got -0.5"),
    (np.full((4, 4, 3), np.nan), "Expected floats from 0 to 1, got NaN among them"),
    (np.zeros((5, 5, 7), np.uint8), r"got uint8 \(5, 5, 7\)"),
    (np.zeros(5, np.uint8), r"got uint8 \(5,\)"),
    (np.zeros((0, 4, 3), np.uint8), r"got uint8 \(0, 4, 3\)"),
    (7, "an iterable of pictures, got int"),
    ([7], "got int"),
    (None, "got NoneType"),
    ({"image": 1}, "got dict"),
    (bytearray(b"x"), "^Expected a picture .* got bytearray"),
    (memoryview(b"x"), "^Expected a picture .* got memoryview"),
    (memoryview(np.zeros((4, 4, 3), np.uint8)), "^Expected a picture .* got memoryview"),
    (np.ma.masked_array(np.zeros((4, 4), np.uint8), np.eye(4)), "masked array without 4 of 16"),
    ("file://localhost/a.png", "is an address that is not fetched"),
    ("S3://bucket/a.png", "is an address that is not fetched"),
    ("data:image/png;base64," + "A" * 9000, "^.{,700}is an address that is not fetched"),
    ("A" * 9000, "^.{,700}cannot be opened"),
    ([], "at least one picture"),
    (np.array([], dtype=object), "at least one picture"),
    (np.array(["no/such.png"]), r'^"no/such.png" does not exist'),
    (np.zeros((4, 4), dtype=object), "^picture 1: .* got int"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_what_is_no_picture_is_refused_by_name(given: Any, message: str, scorer: Scorer) -> None:
    with pytest.raises(GRMPError, match=message):
        scorer.score(given)


def test_an_open_file_at_its_end_is_said_to_be_there(scorer: Scorer) -> None:
    written = io.BytesIO()
    Image.new("RGB", (9, 9)).save(written, "PNG")
    for door in (scorer.score, read_picture, decode_image):
        with pytest.raises(ImageError, match=r"at its end, \d+ bytes in; go back with seek\(0\)"):
            door(written)
    with pytest.raises(ImageError, match="file is empty"):
        scorer.score(io.BytesIO())


@pytest.mark.parametrize("wrong", [None, np.zeros((5, 5, 7), np.uint8), b"content", io.StringIO("text")])
def test_what_is_no_picture_among_many_is_told_by_its_place(wrong: Any, scorer: Scorer, photos: list[Path]) -> None:
    for given in ([*photos[:4], wrong], iter([*photos[:4], wrong])):
        with pytest.raises(ImageError, match=r"^picture 5: "):
            scorer.score(given, batch_size=2)
    with pytest.raises(GRMPError, match=r"^(?!picture)"):
        scorer.score(wrong)


def test_a_row_of_a_data_set_without_a_picture_is_told_by_its_place(scorer: Scorer, photos: list[Path]) -> None:
    made = datasets.Dataset.from_dict({"image": [str(photos[0]), None]}).cast_column("image", datasets.Image())
    for given in (made, made["image"], made.cast_column("image", datasets.Image(mode="L"))):
        with pytest.raises(ImageError, match=r"^picture 2: row 2 of the data set holds no picture; leave it out"):
            scorer.score(given)


def test_a_data_set_has_to_have_one_column_of_pictures(scorer: Scorer, photos: list[Path]) -> None:
    names = data_set(photos).remove_columns("image")
    with pytest.raises(GRMPError, match=r"one column of pictures, got 0 .* Pass the column"):
        scorer.score(names)


FORMATS: dict[str, Any] = {
    "numpy": lambda made: made.with_format("numpy"),
    "torch": lambda made: made.with_format("torch"),
    "pandas": lambda made: made.with_format("pandas"),
    "arrow": lambda made: made.with_format("arrow"),
    "other columns": lambda made: made.with_format(columns=["mos"]),
    "shuffled numpy": lambda made: made.select([4, 3, 2, 1, 0]).with_format("numpy").select([4, 3, 2, 1, 0]),
    "RGB": lambda made: made.cast_column("image", datasets.Image(mode="RGB")),
    "grey": lambda made: made.cast_column("image", datasets.Image(mode="L")),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_formatted_data_set_holds_the_same_pictures_by_both_doors(
    kind: str, scorer: Scorer, photos: list[Path]
) -> None:
    made = FORMATS[kind](data_set(photos[:5]).add_column("mos", [1.0, 2.0, 3.0, 4.0, 5.0]))
    grey = [Image.open(path).convert("L") for path in photos[:5]]
    expected = scorer.score(grey if kind == "grey" else photos[:5]).score
    for given in (made, made["image"]):
        np.testing.assert_array_equal(scorer.score(given).score, expected)
    rows = grmp_hf.read_ratings(made).rows
    assert [row.mos for row in rows] == [1.0, 2.0, 3.0, 4.0, 5.0]
    np.testing.assert_array_equal(scorer.score([decode_row(row) for row in rows]).score, expected)


def test_what_a_data_set_makes_at_every_look_is_refused_by_both_doors(scorer: Scorer, photos: list[Path]) -> None:
    def brighter(batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "image": [image.convert("RGB").point(lambda value: value // 2) for image in batch["image"]]}

    plain = data_set(photos[:2]).add_column("mos", [1.0, 2.0])
    made, deep = plain.with_transform(brighter), plain.cast_column("image", datasets.Image(mode="I"))
    for given, message in (
        (made, r"with_transform, .*with_format\(None\).*map"),
        (deep, r'got "I" .*datasets.Image\(\)'),
    ):
        for door in (scorer.score, grmp_hf.read_ratings, lambda made: scorer.score(made["image"])):
            with pytest.raises(GRMPError, match=message):
                door(given)
    with pytest.raises(GRMPError, match="with_transform"):
        scorer.score(made["name"])
    applied = made.with_format(None).map(brighter, batched=True)
    expected = scorer.score([row["image"] for row in made]).score
    assert scorer.score(applied).score == pytest.approx(expected, abs=1e-6)
    scorer.score(deep.cast_column("image", datasets.Image()))


def test_rows_are_of_many_files_never_of_the_letters_of_one(scorer: Scorer, photos: list[Path]) -> None:
    for given in (str(photos[0]), photos[0], photos[0].read_bytes()):
        with pytest.raises(GRMPError, match="Expected an iterable of files, got one"):
            scorer.iter_scores(given)  # type: ignore[arg-type]


class _Server(BaseHTTPRequestHandler):
    content: bytes

    def do_GET(self) -> None:
        found = self.path == "/a.png"
        if self.path == "/moved.png":
            self.send_response(302)
            self.send_header("Location", Path("a.png").absolute().as_uri())
        else:
            self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(self.content) if found else 0))
        self.end_headers()
        self.wfile.write(self.content if found else b"")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(content: bytes) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Server,), {"content": content}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_an_address_is_fetched(scorer: Scorer, photos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    expected = scorer.score(photos[0]).score
    with serving(photos[0].read_bytes()) as address:
        assert scorer.score(f"{address}/a.png").score == pytest.approx(expected, abs=1e-6)
        found = pipeline(TASK, model=scorer.model)([f"{address}/a.png"])
        assert found[0]["score"] == pytest.approx(expected[0], abs=1e-5)
        (rows,) = scorer.iter_scores([f"{address}/a.png", f"{address}/gone.png"])
        assert [row.status for row in rows] == ["ok", "not_found"]
        with pytest.raises(ImageError, match="could not be fetched"):
            read_picture(f"{address}/moved.png")  # never a file of this machine
        monkeypatch.setattr(pictures, "_MAX_BYTES", 100)
        with pytest.raises(ImageError, match="fetch it and make it smaller"):
            read_picture(f"{address}/a.png")
    with pytest.raises(ImageError, match="could not be fetched"):
        read_picture(f"{address}/a.png")


def test_the_orientation_of_a_picture_in_a_data_set_is_kept(scorer: Scorer, photos: list[Path], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.open(photos[0]).convert("RGB").save(stream, "PNG", exif=exif)
    path = tmp_path / "turned.png"
    path.write_bytes(stream.getvalue())
    expected = scorer.score(path).score
    for given in (stream.getvalue(), Image.open(path), data_set([path])["image"]):
        assert scorer.score(given).score == pytest.approx(expected, abs=1e-6)
