from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from grmp_hf import hub
from grmp_hf.errors import GRMPError
from grmp_hf.pushing import push
from grmp_hf.record import ADAPTER_FILES, Record


class FakeApi:
    """Takes the place of the Hub's client and keeps what it was told."""

    calls: list[tuple[str, dict[str, Any]]] = []
    is_private = True

    def __init__(self, token: str | None = None) -> None:
        type(self).calls = []

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self.calls.append(("create", {"repo_id": repo_id, **options}))
        return type("Url", (), {"repo_id": repo_id if "/" in repo_id else f"me/{repo_id}"})

    def model_info(self, repo_id: str) -> Any:
        return type("Info", (), {"private": self.is_private})

    def create_commit(self, repo_id: str, operations: list[Any], **options: Any) -> Any:
        sent = {entry.path_in_repo: entry.path_or_fileobj for entry in operations}
        self.calls.append(("commit", {"repo_id": repo_id, "sent": sent, **options}))
        return type("Commit", (), {"commit_url": "https://example.org/commit/1"})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    fake = type("Api", (FakeApi,), {})
    monkeypatch.setattr("huggingface_hub.HfApi", fake)
    return fake


@pytest.fixture
def mine(adapter_folder: Path, tmp_path: Path) -> Path:
    """An adapter of the embedded base, with all that a run leaves beside it."""
    folder = edited(adapter_folder, tmp_path / "mine", base_model_name_or_path=hub.EMBEDDED)
    for name in ("scores.csv", "split.json", "metrics.json", "scatter.png"):
        (folder / name).touch()
    for hidden in (".grmp-iqa", "checkpoint-5"):
        (folder / hidden).mkdir()
        (folder / hidden / "adapter_model.safetensors").touch()
    (folder / "README.md").write_text('grmp_hf.load(adapter="OWNER/NAME")')
    return folder


def edited(folder: Path, target: Path, **fields: Any) -> Path:
    """Copy of an adapter with other fields in its config."""
    shutil.copytree(folder, target)
    path = target / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return target


def test_a_push_is_private_and_leaves_tables_and_checkpoints_at_home(mine: Path, api: type[FakeApi]) -> None:
    assert push(mine, "owner/mine") == "https://example.org/commit/1"
    (_, created), (_, told) = api.calls
    assert created == {"repo_id": "owner/mine", "private": True, "exist_ok": True}
    wanted = {*ADAPTER_FILES, "metrics.json", "scatter.png"}
    assert set(told["sent"]) == wanted
    assert told["sent"]["README.md"] == b'grmp_hf.load(adapter="owner/mine")'


@pytest.mark.parametrize("text", [None, "", "# Model\\n[More Information Needed]"])
def test_a_folder_without_a_card_of_its_own_gets_one(text: str | None, mine: Path, api: type[FakeApi]) -> None:
    (mine / "README.md").unlink()
    if text is not None:
        (mine / "README.md").write_text(text)
    (mine / "metrics.json").write_text('{"n_test": 9, "srcc": 0.5, "srcc_interval": [0.1, 0.8]}')
    push(mine, "owner/mine")
    card = api.calls[1][1]["sent"]["README.md"].decode()
    assert 'grmp_hf.load(adapter="owner/mine")' in card and "OWNER/NAME" not in card
    assert "| this adapter | 0.500 [0.100, 0.800] |" in card and "(scatter.png)" in card
    assert (mine / "README.md").exists() == (text is not None)


def test_a_bare_name_gets_the_owner_that_the_hub_gives_it(mine: Path, api: type[FakeApi]) -> None:
    push(mine, "mine")
    assert api.calls[1][1]["repo_id"] == "me/mine"
    assert api.calls[1][1]["sent"]["README.md"] == b'grmp_hf.load(adapter="me/mine")'


@pytest.mark.parametrize(
    "base", ["/models/clip", "../clip", "C:\\models\\clip", "clip", "~/clip", "", None, "runs/a/b"]
)
def test_an_adapter_of_a_base_on_this_machine_is_refused(
    base: str | None, adapter_folder: Path, tmp_path: Path, api: type[FakeApi]
) -> None:
    folder = edited(adapter_folder, tmp_path / "mine", base_model_name_or_path=base)
    with pytest.raises(GRMPError, match="an adapter of a base that others can load"):
        push(folder, "owner/mine")
    assert not api.calls


def test_a_base_inside_the_folder_goes_with_it(mine: Path, tmp_path: Path, api: type[FakeApi]) -> None:
    folder = edited(mine, tmp_path / "both", base_model_name_or_path="base")
    (folder / "base").mkdir()
    (folder / "base" / "model.safetensors").touch()
    push(folder, "owner/mine")
    assert "base/model.safetensors" in api.calls[1][1]["sent"]


@pytest.mark.parametrize("name", ["a//b", "a/b/c", "./mine", "my adapter", "", "-a/b", "a/b.", "owner/mine/"])
def test_a_name_that_no_repository_can_have_is_refused(name: str, mine: Path, api: type[FakeApi]) -> None:
    with pytest.raises(GRMPError, match="Expected the name of a repository"):
        push(mine, name)
    assert not api.calls


def test_what_is_public_is_not_used_for_a_private_push(
    mine: Path, api: type[FakeApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "is_private", False)
    with pytest.raises(GRMPError, match="Expected 'owner/mine' to be private, but it is public"):
        push(mine, "owner/mine")


def test_nothing_to_push(tmp_path: Path) -> None:
    with pytest.raises(GRMPError, match=r"adapter_config.json or config.json in the folder .* found neither"):
        push(tmp_path, "owner/mine")


def test_a_push_while_offline_is_one_clear_error(mine: Path) -> None:
    with pytest.raises(GRMPError, match=r"Could not push to 'owner/mine' \(.*Check the network"):
        push(mine, "owner/mine")


def test_a_record_is_pushed_with_the_base_that_the_settings_name(mine: Path, api: type[FakeApi]) -> None:
    scale = {"low": 1.0, "high": 5.0, "higher_is_better": True, "unit": ""}
    Record("/somewhere/on/this/machine", scale=scale).save(mine)
    push(mine, "owner/mine")
    sent = json.loads(api.calls[-1][1]["sent"]["record.json"])
    assert sent["base"] == hub.EMBEDDED and sent["scale"] == scale
