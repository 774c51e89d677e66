"""grmp_hf.record: beside every adapter, and in the settings of those that earlier versions have written."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import AutoPeftModel, LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import AutoModel, pipeline

import grmp_hf
from grmp_hf.cli.main import main
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.record import CONFIG_FILE, RECORD, Record, origin_of

GRMP = grmp_hf.GRMPForImageQualityAssessment
EARLIER = {"fingerprint": "base_fingerprint", "preprocessing": "preprocessing", "scale": "rating_scale"}


@pytest.fixture
def earlier(adapter_folder: Path, clip_folder: Path, tmp_path: Path) -> Path:
    """The adapter as the first versions wrote it: all that scoring needs in PEFT's own settings."""
    folder, base = tmp_path / "earlier", tmp_path / "base"
    GRMP.from_pretrained(clip_folder).save_pretrained(base)
    shutil.copytree(adapter_folder, folder)
    record = Record.load(folder)
    head = record.head or {}
    settings = {
        **json.loads((folder / CONFIG_FILE).read_text()),
        **{field: getattr(record, name) for name, field in EARLIER.items()},
        "anchors": head["anchors"],
        "base_model_name_or_path": str(base),
        "base_sizes": {"vision_width": 16, "projection": 8},
        "provenance": {"shots": 20},
    }
    (folder / CONFIG_FILE).write_text(json.dumps(settings))
    (folder / RECORD).unlink()
    return folder


def by_name(base: Any, folder: str) -> Any:
    return GRMP.from_pretrained(folder)


def by_peft(base: Any, folder: str) -> Any:
    return PeftModel.from_pretrained(base, folder)


def by_config(base: Any, folder: str) -> Any:
    return PeftModel.from_pretrained(base, folder, config=PeftConfig.from_pretrained(folder))


def by_transformers(base: Any, folder: str) -> Any:
    base.load_adapter(folder)
    return base


DOORS: dict[str, Callable[[Any, str], Any]] = {
    "load": lambda base, folder: grmp_hf.load(folder).model,
    "peft": by_peft,
    "peft with a config": by_config,
    "peft alone": lambda base, folder: AutoPeftModel.from_pretrained(folder, import_allowlist=["grmp_hf"]),
    "load_adapter": by_transformers,
    "from_pretrained": by_name,
    "AutoModel": lambda base, folder: AutoModel.from_pretrained(folder),
    "pipeline": lambda base, folder: pipeline("image-quality-assessment", model=folder).model,
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@torch.no_grad()
def test_an_adapter_of_earlier_versions_loads_by_every_door(
    door: Callable[[Any, str], Any], earlier: Path, adapter_folder: Path, clip_folder: Path
) -> None:
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = grmp_hf.load(adapter_folder).model(pixels).quality
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Unexpected keyword arguments")
        model = door(GRMP.from_pretrained(clip_folder), str(earlier)).eval()
    assert torch.equal(model(pixels).quality, expected)
    config = model.peft_config["default"]
    record = Record.of(config)
    assert record.provenance == {"shots": 20} and record.scale == Record.load(adapter_folder).scale
    assert not set(config.to_dict()) & {"anchors", "base_sizes", *EARLIER.values()}


def test_it_is_scored_with_saved_anew_and_begun_from(
    earlier: Path, adapter_folder: Path, clip_folder: Path, photos: list[Path], tmp_path: Path
) -> None:
    from grmp_hf.training.starts import read_start

    expected = grmp_hf.load(adapter_folder).score(photos).score
    assert np.array_equal(grmp_hf.load(earlier).score(photos).score, expected)
    assert origin_of(earlier) == {"shots": 20}
    grmp_hf.load(earlier).save(tmp_path / "anew")
    assert Record.load(tmp_path / "anew").scale == Record.load(earlier).scale
    assert np.array_equal(grmp_hf.load(tmp_path / "anew").score(photos).score, expected)
    assert Record.of(read_start(earlier)).fingerprint == Record.load(adapter_folder).fingerprint
    assert main(["bake", "--adapter", str(earlier), str(tmp_path / "baked")]) == 0
    np.testing.assert_allclose(grmp_hf.load(tmp_path / "baked").score(photos).score, expected, atol=1e-4)


@pytest.mark.parametrize("form", ["earlier", "adapter_folder"])
@pytest.mark.parametrize("door", ["peft", "load_adapter"])
def test_either_form_refuses_another_base(
    form: str, door: str, clip_folder: Path, request: pytest.FixtureRequest
) -> None:
    base = GRMP.from_pretrained(clip_folder)
    with torch.no_grad():
        base.clip.visual_projection.weight.mul_(1.5)
    with pytest.raises(GRMPError, match="other base_fingerprint"):
        DOORS[door](base, str(request.getfixturevalue(form)))


def test_a_damaged_record_is_told(adapter_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter_folder, tmp_path / "mine")
    (tmp_path / "mine" / RECORD).write_text("[")
    with pytest.raises(GRMPError, match=r"Expected what an adapter records in .*Copy it again"):
        grmp_hf.load(tmp_path / "mine")


SCALE = {"low": 1, "high": 5, "higher_is_better": True, "unit": ""}
WRONG = [
    ({"base": 5}, "Expected base in .* to be text, got 5"),
    ({"revision": ["main"]}, "Expected revision in .* to be text"),
    ({"fingerprint": {}}, "Expected fingerprint in .* to be text"),
    ({"head": "x"}, "Expected head in .* to be a mapping, got 'x'"),
    ({"head": {}}, r"Expected head\.anchors in .* to be a mapping, got None"),
    ({"head": {"anchors": {}, "name": ["Cosine"]}}, r"Expected head\.name in .* to be text"),
    ({"head": {"anchors": {}, "name": "Cosine", "settings": [8]}}, r"Expected head\.settings in .* to be a mapping"),
    ({"preprocessing": [1]}, r"Expected preprocessing in .* to be a mapping, got \[1\]"),
    ({"scale": [1, 5]}, r"Expected scale in .* to be a mapping, got \[1, 5\]"),
    ({"provenance": "x"}, "Expected provenance in .* to be a mapping"),
    ({"provenance": {"baked_from": 1}}, r"Expected provenance\.baked_from in .* to be a mapping"),
    ({"provenance": {"data": [1]}}, r"Expected provenance\.data in .* to be text"),
    ({"side": 1}, "Expected side in .* to be a mapping"),
    ({"side": {"settings": None}}, r"Expected side\.settings in .* to be a mapping, got None"),
    ({"side": {"settings": {"source": 1}, "fingerprint": ""}}, r"Expected side\.settings\.source in .* to be text"),
    ({"side": {"settings": {}}}, r"Expected side\.fingerprint in .* to be text, got None"),
    ({"scale": {}}, r"Expected scale\.low in .* to be a number, got None"),
    ({"scale": {**SCALE, "low": "1"}}, r"Expected scale\.low in .* to be a number, got '1'"),
    ({"scale": {**SCALE, "higher_is_better": 1}}, r"Expected scale\.higher_is_better in .* to be true or false, got 1"),
    ({"scale": {**SCALE, "more": 1}}, "expected a rating scale"),
    ({"scale": {**SCALE, "low": True}}, "expected a rating scale"),
    ({"preprocessing": {"size": "x"}}, "numbers that can be size, got 'x'"),
    ({"preprocessing": {"size": 32, "veiws": ["center"]}}, "settings of the preprocessing out of size, views"),
    ({"preprocessing": {"size": 32, "views": None}}, "Expected views out of .*, got None"),
    ({"preprocessing": {"size": 32, "views": [["whole"]]}}, "Expected views out of"),
    ({"preprocessing": {"size": 32, "view_weights": [None]}}, "numbers that can be view_weights"),
    ({"preprocessing": {"size": 32, "view_weights": [float("nan")]}}, "numbers that can be view_weights"),
    ({"preprocessing": {"size": 32, "shortest_edge_limit": {}}}, "numbers that can be shortest_edge_limit"),
    ({"preprocessing": {"size": 32, "image_std": [1, 0, 1]}}, "numbers that can be image_std"),
    ({"preprocessing": {"size": 32, "image_mean": 0.5}}, "numbers that can be image_mean"),
]


@pytest.mark.parametrize(("field", "message"), WRONG)
def test_a_record_of_another_form_is_told(
    field: dict[str, Any], message: str, adapter_folder: Path, clip_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(adapter_folder, folder)
    settings = json.loads((folder / CONFIG_FILE).read_text())
    named = {"base_model_name_or_path": None, "revision": None}  # which go before the record
    (folder / CONFIG_FILE).write_text(json.dumps({**settings, **named}))
    (folder / RECORD).write_text(json.dumps({**json.loads((folder / RECORD).read_text()), **field}))
    with pytest.raises(GRMPError, match=message):
        grmp_hf.load(clip_folder, adapter=folder)


@pytest.mark.parametrize(
    "content",
    ["{", "[1]", "5", "[" * 100_000, '{"peft_type": "GRMP", "base_model_name_or_path": 5}', '{"auto_mapping": [1]}'],
)
def test_settings_of_another_form_are_told_by_every_door(content: str, adapter_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(adapter_folder, folder)
    (folder / CONFIG_FILE).write_text(content)
    for read in (grmp_hf.load, GRMP.from_pretrained):
        with pytest.raises(GRMPError, match=r"adapter_config\.json.*Copy it again"):
            read(folder)
    with pytest.raises(GRMPError, match="Copy it again"):
        Record.load(folder)


@pytest.mark.parametrize("door", sorted(DOORS.keys() - {"peft with a config"}))  # where PEFT asks for no file
def test_an_adapter_without_its_record_is_refused(door: str, points_adapter: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copied"
    shutil.copytree(points_adapter, folder)
    (folder / RECORD).unlink()
    base = grmp_hf.load().model
    with pytest.raises(
        (GRMPError, ValueError), match=r"Expected record\.json beside adapter_config\.json in .*got none.* again"
    ):
        DOORS[door](base, str(folder))


def test_the_record_of_peft_s_own_method_is_missed_where_it_was_written(
    clip_folder: Path, photos: list[Path], tmp_path: Path
) -> None:
    scorer = grmp_hf.load(clip_folder)
    config = LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    model = get_peft_model(copy_base(scorer.model), config).eval()  # type: ignore[arg-type]
    model.save_pretrained(str(tmp_path / "plain"), save_embedding_layers=False)
    plain = grmp_hf.load(clip_folder, adapter=tmp_path / "plain")
    plain.save(tmp_path / "saved")
    again = grmp_hf.load(tmp_path / "saved")
    assert np.array_equal(again.score(photos[:2]).quality, plain.score(photos[:2]).quality)
    AutoPeftModel.from_pretrained(str(tmp_path / "saved"), import_allowlist=["grmp_hf"])
    (tmp_path / "saved" / RECORD).unlink()
    with pytest.raises(GRMPError, match=r"Expected record\.json"):
        grmp_hf.load(clip_folder, adapter=tmp_path / "saved")
