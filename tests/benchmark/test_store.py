from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from grmp_hf.benchmark.store import Predicted, ResultStore
from grmp_hf.errors import GRMPError

SAID = Predicted(np.array(["a b.jpg", "ü.png"]), np.array([0.1, 0.2]), np.array([1.0, 2.0]))


def test_rows_and_predictions_survive(tmp_path: Path) -> None:
    row = ResultStore(tmp_path / "new").add("0" * 64, {"method": "ridge", "srcc": 0.5}, SAID)
    again = ResultStore(tmp_path / "new")
    assert again.find("0" * 64) == row and row["srcc"] == 0.5
    names, scores, mos = again.predictions(row)
    assert names.tolist() == SAID.names.tolist()
    np.testing.assert_array_equal([scores, mos], [SAID.scores, SAID.mos])
    assert again.find("1" * 64) is None


def test_a_line_that_was_cut_off_is_removed(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    for number in range(3):
        store.add(str(number) * 64, {"srcc": number / 10}, SAID)
    whole = store.path.read_bytes()
    for cut in (1, 20, len(whole.splitlines()[-1])):
        store.path.write_bytes(whole[:-cut])
        again = ResultStore(tmp_path)
        assert again.find("1" * 64) and not again.find("2" * 64)
        again.add("2" * 64, {"srcc": 0.2}, SAID)
        assert store.path.read_bytes() == whole


def test_a_row_without_its_predictions_is_not_finished(tmp_path: Path) -> None:
    store = ResultStore(tmp_path)
    row = store.add("0" * 64, {}, SAID)
    (tmp_path / row["predictions"]).unlink()
    assert ResultStore(tmp_path).find("0" * 64) is None


@pytest.mark.parametrize("line", ["{", "3", json.dumps({"method": "ridge"})])
def test_a_line_that_is_no_result_is_named(line: str, tmp_path: Path) -> None:
    ResultStore(tmp_path).path.write_text(f"{line}\n")
    with pytest.raises(GRMPError, match=r"results\.jsonl, line 1: expected a result"):
        ResultStore(tmp_path)


def test_a_folder_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GRMPError, match="file: cannot be used"):
        ResultStore(tmp_path / "file")


def test_what_a_killed_run_has_left_unfinished_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ResultStore(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # nothing is cleared away by a process that is killed
        patch.setattr(np, "savez", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            store.add("0" * 64, {}, SAID)
    assert len(list((tmp_path / "predictions").iterdir())) == 1
    ResultStore(tmp_path)
    assert not list((tmp_path / "predictions").iterdir())
