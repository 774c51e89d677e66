from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from grmp_hf.cli.main import main
from grmp_hf.outputs import MANIFEST

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty procedural pictures with ratings from 1 to 5."""
    folder = tmp_path_factory.mktemp("made") / "pictures"
    script = ROOT / "training" / "make_demo_pictures.py"
    subprocess.run([sys.executable, str(script), str(folder), "--count", "30"], check=True)
    return folder


@pytest.fixture
def benchmark(pictures: Path, clip_folder: Path, tmp_path: Path) -> Callable[..., int]:
    """Runs the command on the thirty pictures, with some keys of the configuration replaced."""

    def run(*options: Any, **keys: Any) -> int:
        values = {
            "name": "Procedural <pictures>",
            "model": str(clip_folder),
            "datasets": {"made": {"path": None, "range": [1, 5], "unit": "stars"}},
            "methods": ["zero_shot", "ridge", "svr", "statistics", {"method": "grmp", "recipe": {"steps": 3}}],
            "protocols": ["clean", "paper"],
            "shots": [6, 9],
            "draws": 2,
            **keys,
        }
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        where = ["--data", f"made={pictures}", "--output", tmp_path / "results"]
        return main([str(word) for word in ("benchmark", tmp_path / "small.yaml", *where, *options)])

    return run


def test_one_command_leaves_rows_table_and_report(
    benchmark: Callable[..., int], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark() == 0
    streams = capsys.readouterr()
    output = tmp_path / "results"
    rows = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * (2 + 4 * 2 * 2)
    names = {path.name for path in output.iterdir()}
    expected = {"results.jsonl", "table.md", "report.html", "config.json", "splits", "predictions", "features"}
    assert names == expected | {MANIFEST}
    table = (output / "table.md").read_text()
    assert table.startswith("# Procedural <pictures>\n") and table.split("\n", 2)[2].strip() in streams.out
    for word in ("clean", "paper", "zero_shot", "ridge", "svr", "statistics", "grmp", "6 labels", "9 labels"):
        assert word in table
    assert "36 rows in" in streams.out and "minutes" in streams.out and "36 fits planned" in streams.err
    report = (output / "report.html").read_text()
    assert "Procedural &lt;pictures&gt;" in report and "data:image" not in report
    assert "grmp-iqa benchmark" in report and "--data" in report
    config = (output / "config.json").read_text()
    assert json.loads(config)["shots"] == [6, 9] and str(pictures) not in config


def test_the_same_command_again_runs_nothing(
    benchmark: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grmp_hf import features
    from grmp_hf.benchmark.runner import Runner

    keys = {"protocols": ["clean"], "shots": [6], "methods": ["zero_shot", "ridge", "statistics"]}
    assert benchmark(**keys) == 0
    rows, table = ((tmp_path / "results" / name).read_bytes() for name in ("results.jsonl", "table.md"))
    with monkeypatch.context() as patch:
        for home, name in ((Runner, "_fit"), (features, "decode_row")):
            patch.setattr(home, name, lambda *given, **named: pytest.fail("nothing is left to be done"))
        assert benchmark(**keys) == 0
    assert (tmp_path / "results" / "results.jsonl").read_bytes() == rows
    assert (tmp_path / "results" / "table.md").read_bytes() == table


def test_the_command_line_narrows_the_configuration(
    benchmark: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--methods", "ridge", "statistics", "--shots", 7, "--draws", 3, "--json", "--quiet", "--thumbnails"]
    assert benchmark(*options, "--cache", tmp_path / "cache", protocols=["clean"]) == 0
    streams = capsys.readouterr()
    rows = [json.loads(line) for line in streams.out.splitlines()]
    assert not streams.err
    assert {(row["method"], row["shots"], row["draw"]) for row in rows} == {
        (method, 7, draw) for method in ("ridge", "statistics") for draw in range(3)
    }
    assert (tmp_path / "cache").is_dir() and not (tmp_path / "results" / "features").exists()
    assert "data:image/jpeg" in (tmp_path / "results" / "report.html").read_text()


BAD: list[tuple[list[Any], dict[str, Any], str]] = [
    (["--data", "made"], {}, "--data: expected NAME=PLACE, got 'made'"),
    (["--data", "other=x"], {}, "--data: expected data sets out of made, got other"),
    (["--methods", "forest"], {}, "--methods: expected some of zero_shot"),
    (["--shots", 50], {}, "made: expected between 1 and"),
    ([], {"methods": ["forest"]}, "methods: expected some of zero_shot, ridge"),
    ([], {"shotz": 3}, "got shotz"),
    ([], {"model": "no/where"}, "'no/where' is no folder here"),
    ([], {"split": "official"}, "expected rows marked train and test"),
]


@pytest.mark.parametrize(("options", "keys", "message"), BAD, ids=[message[:40] for *_, message in BAD])
def test_what_cannot_be_run_says_why_and_writes_nothing(
    options: list[Any],
    keys: dict[str, Any],
    message: str,
    benchmark: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert benchmark(*options, **keys) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "results").exists()


def test_a_place_for_the_results_is_needed(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], clip_folder: Path
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump({"datasets": {"made": {"path": str(pictures)}}, "methods": ["ridge"]}))
    assert main(["benchmark", str(config)]) == 2
    assert "expected a folder for the results; add the key output, or --output DIR" in capsys.readouterr().err


def test_an_adapter_is_no_base(
    benchmark: Callable[..., int], adapter_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark(model=str(adapter_folder)) == 2
    assert re.search(r"Expected a base .* Name its base, '.*clip.*' \(the key model\)", capsys.readouterr().err)


def test_a_broken_picture_ends_the_run_with_its_name(
    benchmark: Callable[..., int], pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = shutil.copytree(pictures, tmp_path / "broken")
    path = sorted((broken / "images").iterdir())[3]
    path.write_bytes(path.read_bytes()[:200])
    assert benchmark("--data", f"made={broken}") == 2
    assert f"made, {path.name}: " in capsys.readouterr().err
