from __future__ import annotations

import argparse
import dataclasses
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from PIL import Image

from grmp_hf.cli import publishing
from grmp_hf.cli.main import build_parser, main
from grmp_hf.data import BENCHMARKS, read_benchmark


@pytest.fixture
def biq(tmp_path: Path) -> Path:
    """BIQ2021 with five pictures, as its authors lay it out, in a folder whose name nobody else should see."""
    folder = tmp_path / "secret place" / "BIQ2021"
    (folder / "Images").mkdir(parents=True)
    train = [("ss03 (3)", 0.25), ("ss01 (1)", 0.5), ("ss02 (2)", 0.125)]
    test = [("ss03 (7)", 0.75), ("ss01 (2)", 1.0)]
    for part, rows in (("Train", train), ("Test", test)):
        lines = ["Image Name,MOS", *(f"{name}.jpg,{mos}" for name, mos in rows)]
        (folder / f"{part} (Images and MOS).csv").write_text("\n".join(lines))
    for shade, (name, _) in enumerate(train + test):
        Image.new("RGB", (9, 7), (50 * shade, 20, 20)).save(folder / "Images" / f"{name}.jpg")
    return folder


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five pictures are all there are."""
    monkeypatch.setitem(BENCHMARKS, "biq2021", dataclasses.replace(BENCHMARKS["biq2021"], rows=5))


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    text = capsys.readouterr().out
    for spec in BENCHMARKS.values():
        assert f"{spec.id:<10} {spec.rows:>6} pictures  {spec.title}" in text and spec.home in text
    assert "--option scores=0-100 or 1-5" in text and "--option practice=false or true" in text
    assert main(["data", "list", "--json"]) == 0
    listed = {spec["id"]: spec for spec in json.loads(capsys.readouterr().out)}
    assert listed["live"]["references"] == 29 and list(listed) == list(BENCHMARKS)


def test_check_of_a_whole_set(biq: Path, whole: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "biq2021", str(biq), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["rows"] == 5 and about["parts"] == {"train": 3, "test": 2}
    assert about["scores"] == {"lowest": 0.125, "highest": 1.0, "mean": 0.525}
    assert about["scale"] == "0 (worst) to 1 (best)" and about["references"] is None
    assert (about["first row"], about["last row"]) == (
        {"name": "ss03 (3).jpg", "mos": 0.25},
        {"name": "ss01 (2).jpg", "mos": 1.0},
    )
    assert about["hash"] == read_benchmark("biq2021", biq).content_hash
    assert main(["data", "check", "biq2021", str(biq)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "scores      lowest 0.125, highest 1, mean 0.525" in lines and "parts       train 3, test 2" in lines


def test_check_of_a_part_and_of_a_wrong_folder(biq: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "biq2021", str(biq)]) == 2
    told = capsys.readouterr()
    assert "rows        5" in told.out
    assert "expected the 12000 rows of BIQ2021, found 5; get the rest from https://github.com/nisar" in told.err
    assert main(["data", "check", "kadid10k", str(biq)]) == 2
    assert 'expected "dmos.csv" of KADID-10k' in capsys.readouterr().err
    (biq / "Images" / "ss03 (3).jpg").unlink()
    assert main(["data", "check", "biq2021", str(biq)]) == 2
    assert '1 are missing: "ss03 (3).jpg"' in capsys.readouterr().err


def test_options(biq: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "biq2021", str(biq), "--option", "scores=1-5"]) == 2
    assert 'biq2021: expected options out of (none), got "scores"' in capsys.readouterr().err
    assert main(["data", "check", "biq2021", str(biq), "--option", "scores"]) == 2
    assert '--option: expected NAME=VALUE, got "scores"' in capsys.readouterr().err
    assert main(["data", "check", "tid2013", str(biq), "--option", "artificial=false"]) == 2
    assert 'expected "mos_with_names.txt"' in capsys.readouterr().err  # the option itself is right


def test_use(biq: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == 2
    assert "the following arguments are required: ACTION" in capsys.readouterr().err
    assert main(["data", "check", "biq2021", str(biq), "--jso"]) == 2
    assert "unknown option '--jso'; did you mean '--json'?" in capsys.readouterr().err


def test_built_files_load_with_datasets_alone(biq: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "parquet"
    assert main(["data", "build", "biq2021", str(biq), "--output", str(output), "--json"]) == 0
    files = [Path(name).name for name in json.loads(capsys.readouterr().out)["files"]]
    assert files == ["train-00000-of-00001.parquet", "test-00000-of-00001.parquet", "README.md"]
    table = read_benchmark("biq2021", biq)
    shutil.rmtree(biq)  # the pictures are inside
    loaded = datasets.load_dataset(str(output), cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == {"train": 3, "test": 2}
    rows = [*loaded["train"], *loaded["test"]]
    for row, expected in zip(rows, table.rows, strict=True):
        image = row.pop("image")
        assert image.size == (9, 7)
        assert row == {column: getattr(expected, column) for column in row}
    stored = pq.read_table(output / "data" / files[0]).column("image").to_pylist()
    assert [entry["path"] for entry in stored] == ["ss03 (3).jpg", "ss01 (1).jpg", "ss02 (2).jpg"]


def test_nothing_local_gets_out(biq: Path, tmp_path: Path) -> None:
    output = tmp_path / "parquet"
    assert main(["data", "build", "biq2021", str(biq), "-o", str(output)]) == 0
    for path in output.rglob("*"):
        assert path.is_dir() or b"secret place" not in path.read_bytes()
    for path in (output / "data").iterdir():
        assert "secret place" not in str(pq.read_table(path).to_pylist())


def test_the_card_says_what_one_has_to_know(biq: Path, tmp_path: Path) -> None:
    assert main(["data", "build", "biq2021", str(biq), "-o", str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    spec, table = BENCHMARKS["biq2021"], read_benchmark("biq2021", biq)
    for fact in (spec.home, spec.terms, spec.citation, table.content_hash, "5 rated pictures (train 3, test 2)"):
        assert fact in card
    for column in datasets.load_dataset(str(tmp_path / "out"), split="test", cache_dir=str(tmp_path / "c")).features:
        assert column in card


def test_large_sets_are_written_in_shards(biq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    largest = max(path.stat().st_size for path in (biq / "Images").iterdir())
    monkeypatch.setattr(publishing, "_SHARD_BYTES", 2 * largest)
    assert main(["data", "build", "biq2021", str(biq), "-o", str(tmp_path / "out")]) == 0
    names = sorted(path.name for path in (tmp_path / "out" / "data").iterdir())
    assert names == [
        "test-00000-of-00001.parquet",
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    assert main(["data", "build", "biq2021", str(biq), "-o", str(tmp_path / "out")]) == 2
    monkeypatch.setattr(publishing, "_SHARD_BYTES", 10**9)
    assert main(["data", "build", "biq2021", str(biq), "-o", str(tmp_path / "out"), "--overwrite"]) == 0
    assert len(list((tmp_path / "out" / "data").iterdir())) == 2  # no shard of the first time is left


class FakeApi:
    """Notes what the Hub's client is told."""

    told: list[tuple[str, dict[str, Any]]]
    private = True

    def create_repo(self, repo_id: str, **given: Any) -> Any:
        self.told.append(("create", {"repo": repo_id, **given}))
        return type("Url", (), {"repo_id": repo_id})

    def dataset_info(self, repo_id: str) -> Any:
        return type("Info", (), {"private": self.private})

    def upload_folder(self, **given: Any) -> Any:
        given["files"] = sorted(path.name for path in Path(given["folder_path"]).rglob("*") if path.is_file())
        given["card"] = (given["folder_path"] / "README.md").read_text()
        self.told.append(("upload", given))
        return type("Commit", (), {"commit_url": "https://example.org/commit/1"})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    fake = type("Api", (FakeApi,), {"told": []})
    monkeypatch.setattr("huggingface_hub.HfApi", fake)
    return fake


@pytest.mark.parametrize("options", [[], ["--public"]])
def test_push_shows_the_terms_and_is_private_unless_told(
    options: list[str], biq: Path, api: type[FakeApi], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "push", "biq2021", str(biq), "me/biq", "--yes", "--json", *options]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == {"url": "https://example.org/commit/1"}
    assert BENCHMARKS["biq2021"].terms in told.err and "not the whole data set" in told.err
    (_, created), (_, uploaded) = api.told
    assert created == {"repo": "me/biq", "repo_type": "dataset", "private": not options, "exist_ok": True}
    assert uploaded["repo_type"] == "dataset"
    assert uploaded["files"] == ["README.md", "test-00000-of-00001.parquet", "train-00000-of-00001.parquet"]
    assert 'load_dataset("me/biq"' in uploaded["card"]
    assert not Path(uploaded["folder_path"]).exists()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 2), ("", 2)])
def test_push_asks_first(
    answer: str,
    code: int,
    biq: Path,
    api: type[FakeApi],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    assert main(["data", "push", "biq2021", str(biq), "me/biq"]) == code
    asked = capsys.readouterr().err
    assert asked.index("terms:") < asked.index("Do these terms allow you to upload 5 pictures")
    assert "to me/biq, private? [y/N]" in asked
    assert bool(api.told) == (code == 0)
    assert code == 0 or "nothing was uploaded: expected y, got another answer; add --yes" in asked


def test_a_public_repository_is_not_used_for_a_private_set(
    biq: Path, api: type[FakeApi], capsys: pytest.CaptureFixture[str]
) -> None:
    api.private = False
    assert main(["data", "push", "biq2021", str(biq), "me/biq", "--yes"]) == 2
    assert "Expected 'me/biq' to be private, but it is public" in capsys.readouterr().err
    assert [what for what, _ in api.told] == ["create"]


def test_no_way_to_the_hub(
    biq: Path, api: type[FakeApi], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*args: object, **given: object) -> None:
        raise OSError("no route\nmore")

    monkeypatch.setattr(api, "create_repo", refuse)
    assert main(["data", "push", "biq2021", str(biq), "me/biq", "--yes"]) == 2
    assert "Could not push to 'me/biq' (no route). Check the network" in capsys.readouterr().err


def test_every_option_is_documented() -> None:
    def actions(parser: argparse.ArgumentParser) -> Any:
        return next(a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))

    text = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")
    text = text.partition("### `grmp-iqa data ")[2].partition("### `grmp-iqa convert")[0] + "`--json` `--overwrite`"
    parsers = actions(actions(build_parser())["data"])
    assert not [name for name in parsers if f"`{name}" not in text]
    options = {o for parser in parsers.values() for action in parser._actions for o in action.option_strings}
    assert not [option for option in sorted(options - {"-h", "--help"}) if f"`{option}" not in text]
