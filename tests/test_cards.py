"""A card leaves with every folder, and the Hub can read what it says."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import grmp_hf
from grmp_hf import hub
from grmp_hf.cards import REPOSITORY, card_text, write_card
from grmp_hf.cli.main import main
from grmp_hf.errors import GRMPError
from grmp_hf.record import Record

FIGURES = {
    "n_test": 9,
    "srcc": 0.81234,
    "srcc_interval": [0.7, 0.9],
    "plcc": 0.8,
    "plcc_interval": None,
    "rmse": None,
    "baselines": {"zero_shot": {"srcc": 0.5, "srcc_interval": [0.1, 0.8]}},
}


def adapter(folder: Path, target: Path, **fields: Any) -> Path:
    shutil.copytree(folder, target)
    path = target / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return target


def save_full(adapter_folder: Path, target: Path) -> None:
    hub.save(grmp_hf.load(), target)


def save_adapter(adapter_folder: Path, target: Path) -> None:
    hub.save(grmp_hf.load(adapter=adapter_folder), target)


def save_baked(adapter_folder: Path, target: Path) -> None:
    assert main(["bake", str(target), "--model", str(adapter_folder)]) == 0


def save_baked_again(adapter_folder: Path, target: Path) -> None:
    save_baked(adapter_folder, target.parent / "first")
    hub.save(grmp_hf.load(target.parent / "first"), target)


@pytest.mark.parametrize("save", [save_full, save_adapter, save_baked, save_baked_again])
def test_every_saved_folder_has_a_card_that_the_hub_can_read(save: Any, adapter_folder: Path, tmp_path: Path) -> None:
    save(adapter_folder, tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text()
    data = ModelCard(text).data
    assert (data.license, data.license_name, data.license_link) == ("other", "see-card", "README.md")
    assert data.pipeline_tag == "image-classification"
    assert data.library_name == ("peft" if save is save_adapter else "grmp_hf")
    assert {"image-quality-assessment", "grmp_hf"} <= set(data.tags)
    assert "pip install .  " in text and "import grmp_hf" in text
    assert "pip install grmp_hf" not in text  # no index has it, and anybody could register the name
    option = "adapter" if save is save_adapter else "model"
    assert f'grmp_hf.load({option}="{REPOSITORY}")' in text
    assert str(tmp_path) not in text and "More Information Needed" not in text
    assert ("1 (worst) to 5 (best) stars" in text) == (save is not save_full)


def test_figures_become_results_that_the_hub_can_read(adapter_folder: Path, tmp_path: Path) -> None:
    provenance = {"data": "owner/ratings", "shots": 5}
    folder = adapter(adapter_folder, tmp_path / "mine", base_model_name_or_path="owner/clip")
    dataclasses.replace(Record.load(folder), provenance=provenance).save(folder)
    write_card(folder, FIGURES, picture="scatter.png")
    card = ModelCard.load(folder / "README.md")
    found = {(row.metric_type, row.metric_value, row.dataset_type) for row in card.data.eval_results}
    assert found == {("srcc", 0.8123, "owner/ratings"), ("plcc", 0.8, "owner/ratings")}
    assert (card.data.base_model, card.data.datasets) == ("owner/clip", ["owner/ratings"])
    assert "(scatter.png)" in card.text
    assert "| this adapter | 0.812 [0.700, 0.900] | 0.800 | - |" in card.text


@pytest.mark.parametrize("base", [hub.EMBEDDED, "/models/clip", "base", "C:\\models\\clip"])
def test_a_base_that_is_nowhere_on_the_hub_is_not_linked(base: str, adapter_folder: Path, tmp_path: Path) -> None:
    folder = adapter(adapter_folder, tmp_path / "mine", base_model_name_or_path=base)
    assert "base_model" not in card_text(folder).split("---")[1]


@pytest.mark.parametrize("content", [[1], {"provenance": "x"}, {"rating_scale": [1, 5]}, {"rating_scale": {"low": 1}}])
def test_no_card_of_a_configuration_of_another_form(content: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(GRMPError):
        card_text(tmp_path)


def test_no_card_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(GRMPError, match=r"found neither adapter_config.json nor config.json\. Save it before its card"):
        card_text(tmp_path)
