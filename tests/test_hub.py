from __future__ import annotations

import dataclasses
import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from peft import PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import CLIPConfig, CLIPModel, pipeline

import grmp_hf
from grmp_hf import adapter_files, hub
from grmp_hf.cli.main import main
from grmp_hf.combining import combine
from grmp_hf.data import RatingScale, Split
from grmp_hf.embedded import EMBEDDED_PROMPTS
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.baking import bake
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.peft_prompts import GRMPPromptConfig
from grmp_hf.pipelines import TASK
from grmp_hf.record import RECORD, Record
from grmp_hf.scoring import Scorer


def edited(folder: Path, target: Path, **fields: Any) -> Path:
    """Copy of an adapter with other fields in its config."""
    shutil.copytree(folder, target)
    path = target / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return target


def case_lost_side(folder: Path, tmp: Path) -> dict[str, Any]:
    path = shutil.copytree(folder, tmp / "lost") / RECORD
    side = {"fingerprint": "0" * 16, "settings": {"source": str(tmp / "lost-side")}}
    path.write_text(json.dumps({**json.loads(path.read_text()), "side": side}))
    return {"adapter": path.parent}


def small_clip(folder: Path, seed: int = 3, **vision: Any) -> Path:
    tower = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    torch.manual_seed(seed)
    vision = {**tower, "image_size": 32, "patch_size": 8, **vision}
    CLIPModel(CLIPConfig(text_config=tower, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    return folder


def test_the_embedded_default() -> None:
    scorer = grmp_hf.load()
    assert scorer.scale is None
    assert scorer.identity["model"] == hub.EMBEDDED
    assert scorer.identity["revision"] == f"weights-{scorer.identity['base_fingerprint']}"
    assert not scorer.model.training
    assert {weight.dtype for weight in scorer.model.parameters()} == {torch.float32}
    assert scorer.identity["versions"]["grmp_hf"] == grmp_hf.__version__
    json.dumps(scorer.identity)


def test_a_plain_clip_folder_is_a_zero_shot_scorer(clip_folder: Path, photos: list[Path]) -> None:
    scorer = grmp_hf.load(clip_folder)
    quality, score, *_ = scorer.score(photos)
    assert np.array_equal(quality, score)
    assert scorer.identity["model"] == clip_folder.name  # no path of a machine
    assert scorer.processor.views == ["whole", "center", "bottom_right"]


def test_a_saved_base_scores_the_same(clip_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    scorer = grmp_hf.load(clip_folder)
    hub.save(scorer, tmp_path / "model")
    again = grmp_hf.load(tmp_path / "model")
    assert np.array_equal(scorer.score(photos).quality, again.score(photos).quality)
    assert again.identity["base_fingerprint"] == scorer.identity["base_fingerprint"]


def test_a_saved_adapter_scores_the_same(adapter_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    scorer = grmp_hf.load(adapter=adapter_folder)
    hub.save(scorer, tmp_path / "mine")
    again = grmp_hf.load(adapter=tmp_path / "mine")
    assert np.array_equal(scorer.score(photos).score, again.score(photos).score)
    assert again.identity["adapter_sha256"] == scorer.identity["adapter_sha256"]
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "1 (worst) to 5 (best) stars" in card
    assert "No figures were recorded with this folder" in card
    assert "More Information Needed" not in card


def test_an_adapter_in_the_place_of_the_model(clip_folder: Path, adapter_folder: Path, photos: list[Path]) -> None:
    ways = [{"adapter": adapter_folder}, {"model": adapter_folder}, {"model": clip_folder, "adapter": adapter_folder}]
    first, *others = [grmp_hf.load(**way).score(photos).score for way in ways]  # type: ignore[arg-type]
    assert all(np.array_equal(first, other) for other in others)


def test_the_adapters_preprocessing_wins(adapter_folder: Path) -> None:
    scorer = grmp_hf.load(adapter=adapter_folder)
    assert scorer.processor.views == ["center"]
    assert scorer.identity["preprocessing"]["shortest_edge_limit"] == 48


def test_a_base_beside_the_adapter_is_found(clip_folder: Path, adapter_folder: Path, tmp_path: Path) -> None:
    folder = edited(adapter_folder, tmp_path / "both", base_model_name_or_path="base")
    shutil.copytree(clip_folder, folder / "base")
    assert grmp_hf.load(folder).identity["adapter"] == "both"


def test_weights_without_preprocessing_get_that_of_clip(tmp_path: Path) -> None:
    scorer = grmp_hf.load(small_clip(tmp_path / "bare"))
    assert scorer.processor.settings()["views"] == ["whole"]
    assert scorer.processor.size == 32


def case_other_weights(adapter: Path, tmp: Path) -> dict[str, Any]:
    return {"model": small_clip(tmp / "other"), "adapter": adapter}


def case_other_size(adapter: Path, tmp: Path) -> dict[str, Any]:
    return {"model": small_clip(tmp / "wide", hidden_size=24), "adapter": adapter}


def case_cut_weights(adapter: Path, tmp: Path) -> dict[str, Any]:
    folder = edited(adapter, tmp / "cut")
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    return {"adapter": folder}


def case_missing_tensor(adapter: Path, tmp: Path) -> dict[str, Any]:
    from safetensors.torch import load_file, save_file

    folder = edited(adapter, tmp / "less")
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, folder / "adapter_model.safetensors")
    return {"adapter": folder}


def case_missing_block(adapter: Path, tmp: Path) -> dict[str, Any]:
    return {"adapter": edited(adapter, tmp / "block", modules_to_save=["post_layernorm"])}


def case_no_weights(adapter: Path, tmp: Path) -> dict[str, Any]:
    folder = edited(adapter, tmp / "bin")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    return {"adapter": folder}


def case_text(adapter: Path, tmp: Path) -> dict[str, Any]:
    folder = edited(adapter, tmp / "text")
    (folder / "adapter_config.json").write_text("{")
    return {"adapter": folder}


def case_empty_folder(adapter: Path, tmp: Path) -> dict[str, Any]:
    (tmp / "empty").mkdir()
    return {"model": tmp / "empty"}


def case_not_a_clip(adapter: Path, tmp: Path) -> dict[str, Any]:
    (tmp / "bert").mkdir()
    (tmp / "bert" / "config.json").write_text('{"model_type": "bert"}')
    return {"model": tmp / "bert"}


def case_incomplete(adapter: Path, tmp: Path) -> dict[str, Any]:
    from safetensors.torch import load_file, save_file

    folder = small_clip(tmp / "incomplete")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("visual_projection.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return {"model": folder}


def case_size(adapter: Path, tmp: Path) -> dict[str, Any]:
    folder = edited(adapter, tmp / "size")
    replace(Record.load(folder), preprocessing={"size": 64}).save(folder)
    return {"adapter": folder}


def case_baked(adapter: Path, tmp: Path, **fields: Any) -> dict[str, Any]:
    """A baked scorer with other fields in its configuration."""
    scorer = grmp_hf.load(adapter)
    replace(scorer, model=bake(scorer.model)).save(tmp / "baked")
    path = tmp / "baked" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return {"model": tmp / "baked"}


def case_preprocessing(adapter: Path, tmp: Path, content: Any) -> dict[str, Any]:
    """A base whose preprocessing is of another form."""
    folder = small_clip(tmp / "seeing")
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return {"model": folder}


BAD = [
    (case_other_weights, r"Adapter 'stars': Expected the base .* other base_fingerprint"),
    (case_other_size, r"Adapter 'stars': Expected the base .* other base_fingerprint"),
    (case_cut_weights, r"Adapter 'cut' does not fit the base, or is damaged"),
    (case_missing_tensor, r"Adapter 'less': Expected the \d+ tensors .* missing: \['"),
    (case_missing_block, r"Adapter 'block' is damaged: .* lacks the tensor .*post_layernorm\.(weight|bias)"),
    (case_no_weights, r"Expected adapter_model.safetensors beside adapter_config.json .* found none"),
    (case_text, r"Expected settings in adapter_config.json of adapter 'text', got"),
    (lambda a, t: {"adapter": edited(a, t / "ia3", peft_type="IA3")}, r"method out of GRMP, .*, got 'IA3' in 'ia3'"),
    (lambda a, t: {"adapter": t}, r"Expected an adapter \(adapter_config.json, .* found none"),
    (lambda a, t: {"adapter": edited(a, t / "gone", base_model_name_or_path="x/gone")}, r"'x/gone' is no folder here"),
    (case_empty_folder, r"Expected a complete CLIP or GRMP model in the folder"),
    (case_not_a_clip, r"Expected a CLIP or a GRMP model at .*, got model_type 'bert'"),
    (case_incomplete, r"missing keys: .*visual_projection"),
    *(
        (partial(case_baked, **fields), message)
        for fields, message in (
            ({"rating_scale": [1, 5]}, r"Expected scale in 'config\.json' to be a mapping, got \[1, 5\]"),
            ({"preprocessing": [1]}, r"Expected preprocessing in 'config\.json' to be a mapping"),
            ({"provenance": "x"}, r"Expected provenance in 'config\.json' to be a mapping"),
            ({"preprocessing": {"size": "x"}}, "numbers that can be size, got 'x'"),
            ({"head": 5}, "Expected a complete CLIP or GRMP model in the folder"),
            ({"image_mean": 5}, "Expected a complete CLIP or GRMP model in the folder"),
        )
    ),
    (partial(case_preprocessing, content=[1]), "Expected a complete CLIP or GRMP model in the folder"),
    (partial(case_preprocessing, content={"size": "x"}), "numbers that can be size, got 'x'"),
    (
        lambda a, t: {"adapter": edited(a, t / "odd", modules_to_save=5)},
        r"Adapter 'odd' does not fit the base, or is damaged|Expected settings in adapter_config.json",
    ),
    (case_size, r"Expected preprocessing to the model's 32 pixels, got 64"),
    (lambda a, t: {"model": "owner/never-published"}, r"'owner/never-published' is no folder here .*Without a network"),
    (lambda a, t: {"model": "no/such/folder"}, r"model: 'no/such/folder' is no folder here and no Hub id"),
    (lambda a, t: {"adapter": str(a) + "z"}, r"adapter: '.*starsz' is no folder here .* Did you mean '.*stars'"),
    (lambda a, t: {"adapter": a / "README.md"}, r"adapter: expected a folder .*, got the file"),
    (
        lambda a, t: {"adapter": edited(a, t / "lost", base_model_name_or_path=str(t / "lost-base"))},
        r"the base of adapter 'lost': '.*lost-base' is no folder here .* Name the base beside the adapter",
    ),
    (
        case_lost_side,
        r"the side network of adapter 'lost': '.*lost-side' is no folder here .* beside the adapter \(--side",
    ),
    (lambda a, t: {"device": "gpu"}, r"Expected a device of this machine, such as cpu, got 'gpu'"),
    (lambda a, t: {"dtype": "float128"}, r"Expected a dtype out of fp32, bf16, fp16, got 'float128'"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=lambda value: getattr(value, "__name__", str(value))[:40])
def test_what_cannot_be_loaded_says_why(make: Any, message: str, adapter_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(GRMPError, match=message):
        grmp_hf.load(**make(adapter_folder, tmp_path))


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_an_adapter_finds_its_base_in_half_precision_and_refuses_another(
    dtype: str, clip_folder: Path, adapter_folder: Path, tmp_path: Path, photos: list[Path]
) -> None:
    scorer = grmp_hf.load(adapter=adapter_folder, dtype=dtype)
    full = grmp_hf.load(adapter=adapter_folder)
    assert next(scorer.model.parameters()).dtype == {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    assert scorer.identity["base_fingerprint"] == full.identity["base_fingerprint"]
    np.testing.assert_allclose(scorer.score(photos).quality, full.score(photos).quality, atol=0.02)
    other = GRMPForImageQualityAssessment.from_pretrained(clip_folder)
    with torch.no_grad():
        other.clip.visual_projection.weight.mul_(1.5)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(GRMPError, match="other base_fingerprint"):
        grmp_hf.load(tmp_path / "other", adapter=adapter_folder, dtype=dtype)


@pytest.mark.parametrize("option", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("value", ["float16", torch.float16, "auto"])
def test_the_type_of_the_weights_goes_by_both_names(option: str, value: Any, clip_folder: Path) -> None:
    model = GRMPForImageQualityAssessment.from_pretrained(clip_folder, **{option: value})
    assert model.dtype == (torch.float32 if value == "auto" else torch.float16)


def test_a_dtype_has_its_names_of_torch_and_its_older_keyword(clip_folder: Path) -> None:
    for given in ({"torch_dtype": torch.bfloat16}, {"torch_dtype": "bfloat16"}, {"dtype": "bf16"}):
        scorer = grmp_hf.load(clip_folder, **given)  # type: ignore[arg-type]
        assert scorer.identity["dtype"] == "bfloat16"
        model = grmp_hf.GRMPForImageQualityAssessment.from_pretrained(clip_folder, torch_dtype=torch.bfloat16)
        assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert grmp_hf.load(clip_folder).identity["dtype"] == "float32"


def test_what_a_scorer_holds_is_saved_with_its_adapter(clip_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    base = grmp_hf.load(clip_folder)
    torch.manual_seed(1)
    model = get_peft_model(base.model, GRMPPromptConfig(text_prompts=2, visual_prompts=3)).eval()
    stars = RatingScale(1, 5, higher_is_better=False, unit="stars")
    processor = grmp_hf.GRMPImageProcessor(32, ("center",), None, shortest_edge_limit=48)
    scorer = dataclasses.replace(base, model=model, scale=stars, processor=processor)
    expected = scorer.score(photos).score
    hub.save(scorer, tmp_path / "mine")
    again = grmp_hf.load(adapter=tmp_path / "mine")
    assert (again.scale, again.processor.settings()) == (stars, processor.settings())
    assert np.array_equal(again.score(photos).score, expected)
    hub.save(dataclasses.replace(scorer, model=bake(model)), tmp_path / "baked")
    baked = grmp_hf.load(tmp_path / "baked")
    assert baked.scale == stars
    assert baked.score(photos).score == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["default", "mine"])
def test_what_a_scorer_holds_comes_back(name: str, clip_folder: Path, photos: list[Path], tmp_path: Path) -> None:
    base = grmp_hf.load(clip_folder)
    torch.manual_seed(1)
    config = grmp_hf.GRMPPromptConfig(text_prompts=2, visual_prompts=3)
    model = get_peft_model(copy_base(base.model), config, adapter_name=name).eval()
    scale = RatingScale(1.0, 7.0, False, "points")
    scorer = replace(base, model=model, scale=scale, processor=GRMPImageProcessor(32, ["center"], [1.0]))
    hub.save(scorer, tmp_path / "saved")
    loaded = grmp_hf.load(tmp_path / "saved")
    assert loaded.scale == scale and loaded.processor.settings() == scorer.processor.settings()
    assert np.array_equal(loaded.score(photos).score, scorer.score(photos).score)
    assert base.scale is None and base.identity["adapter"] is None and loaded.identity["adapter"] == "saved"
    assert loaded.origin["revision"] == base.identity["revision"]
    if os.name == "posix":
        mask = os.umask(0)
        os.umask(mask)
        modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "saved").iterdir()}
        assert modes == {0o666 & ~mask}


@pytest.mark.parametrize("where", ["adapter_config.json", "record.json", "config.json"])
def test_a_split_of_another_run_is_not_what_has_taught(where: str, tmp_path: Path) -> None:
    split, other = Split(("a", "b"), ("c",), "drawn", 0), Split(("a", "c"), ("b",), "drawn", 1)
    (tmp_path / where).write_text(json.dumps({"provenance": {"split_hash": split.hash}}))
    split.save(tmp_path / "split.json")
    assert Split.load_own(tmp_path) == split
    other.save(tmp_path / "split.json")
    assert Split.load_own(tmp_path) is None


def test_the_split_of_a_baked_scorer_is_fetched_from_the_hub(
    adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, split = tmp_path / "baked", Split(("a", "b"), ("c",), "drawn", 0)
    hub.save(replace(grmp_hf.load(adapter_folder), taught=split), tmp_path / "mine")
    assert main(["bake", "--adapter", str(tmp_path / "mine"), str(place)]) == 0
    assert grmp_hf.load(place).taught == split
    asked: list[tuple[str, str, bool]] = []

    def download(name: str, file: str, *, revision: str, local_files_only: bool) -> str:
        asked.append((name, revision, local_files_only))
        if name == "owner/without":
            raise LocalEntryNotFoundError("not there")
        return str(place / file)

    monkeypatch.setattr(adapter_files, "hf_hub_download", download)
    monkeypatch.setattr(adapter_files, "cached_only", lambda *_, offline: offline)
    assert adapter_files.folder_of_split("owner/mine", "abc", False) == place
    assert not (adapter_files.folder_of_split("owner/without", "abc", True) / "split.json").exists()
    assert asked == [("owner/mine", "abc", False), ("owner/without", "abc", True)]


def second_active(scorer: Scorer, folder: Path) -> None:
    scorer.model.load_adapter(str(folder), "second")  # type: ignore[operator]
    scorer.model.set_adapter("second")  # type: ignore[operator]


def in_its_place(scorer: Scorer, folder: Path) -> None:
    model: Any = scorer.model
    model.load_adapter(str(folder), "second")
    model.set_adapter("second")
    model.delete_adapter("default")
    model.load_adapter(str(folder), "default")
    model.set_adapter("default")


def put_into_the_base(scorer: Scorer, folder: Path) -> None:
    PeftModel.from_pretrained(scorer.model, str(folder))


def put_there_by_transformers(scorer: Scorer, folder: Path) -> None:
    scorer.model.load_adapter(str(folder))  # type: ignore[operator]


@pytest.mark.parametrize("change", [second_active, in_its_place, put_into_the_base, put_there_by_transformers])
def test_another_adapter_never_answers_in_the_name_of_a_scorer(
    change: Any, points_adapter: Path, stars_adapter: Path, photos: list[Path], tmp_path: Path
) -> None:
    adapted = change in (second_active, in_its_place)
    scorer = grmp_hf.load(adapter=points_adapter) if adapted else grmp_hf.load()
    expected = scorer.score(photos[0]).score
    change(scorer, stars_adapter)
    for use in (scorer, scorer.without_tiles()):
        with pytest.raises(GRMPError, match=r"one in which the adapter '\w+' acts.* grmp_hf.load\(adapter="):
            use.score(photos[0])
        with pytest.raises(GRMPError, match="Expected the model as this scorer was made with it"):
            use.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    if change is second_active:
        scorer.model.set_adapter("default")  # type: ignore[operator]
        assert scorer.score(photos[0]).score == expected


def test_a_disabled_adapter_does_not_let_the_base_answer_in_the_name_of_a_scorer(
    points_adapter: Path, photos: list[Path], tmp_path: Path
) -> None:
    scorer = grmp_hf.load(adapter=points_adapter)
    expected, model = scorer.score(photos[0]).score, cast(PeftModel, scorer.model)
    scores = pipeline(TASK, model=model)
    layer: Any = next(module for module in model.modules() if isinstance(module, BaseTunerLayer))
    for use in (scorer, scorer.without_tiles()):
        with model.disable_adapter(), pytest.raises(GRMPError, match=r"'default' is disabled.* grmp_hf.load\(base\)"):
            use.score(photos[0])
        with model.disable_adapter(), pytest.raises(GRMPError, match="'default' is disabled"):
            list(use.iter_scores(photos[:1]))
    with model.disable_adapter():
        bare = scores(str(photos[0]))
        assert bare["score"] == bare["quality"] == pytest.approx(grmp_hf.load().score(photos[0]).quality[0], abs=1e-5)
        with pytest.raises(GRMPError, match="Expected the model as this scorer was made with it"):
            scorer.save(tmp_path / "saved")
    assert scores(str(photos[0]))["score"] == pytest.approx(expected[0], rel=1e-5)
    layer.enable_adapters(False)
    with pytest.raises(GRMPError, match="'default' is disabled"):
        scorer.score(photos[0])
    layer.enable_adapters(True)
    assert scorer.score(photos[0]).score == expected


def test_the_model_of_a_scorer_takes_its_preprocessing_along(photos: list[Path], tmp_path: Path) -> None:
    scorer, again, third = grmp_hf.load(), tmp_path / "again", tmp_path / "third"
    expected = scorer.score(photos[:3]).quality
    scorer.model.save_pretrained(again)  # type: ignore[operator]
    GRMPForImageQualityAssessment.from_pretrained(again).save_pretrained(third)
    for folder in (again, third):
        assert grmp_hf.load(folder).processor.settings() == scorer.processor.settings()
    assert np.array_equal(grmp_hf.load(third).score(photos[:3]).quality, expected)


@pytest.mark.parametrize("content", [None, "{"])
def test_preprocessing_that_is_lost_is_refused_where_it_is_needed(
    content: str | None, points_adapter: Path, photos: list[Path], tmp_path: Path
) -> None:
    expected = grmp_hf.load(adapter=points_adapter).score(photos[0]).score
    grmp_hf.load().save(tmp_path / "base")
    (tmp_path / "base" / "preprocessor_config.json").unlink()
    if content is not None:
        (tmp_path / "base" / "preprocessor_config.json").write_text(content)
    with pytest.raises(GRMPError, match=r"Expected preprocessor_config.json beside the model at .*scorer\.save"):
        grmp_hf.load(tmp_path / "base")
    with pytest.raises(GRMPError, match=r"Expected preprocessor_config.json beside the model"):
        pipeline(TASK, model=GRMPForImageQualityAssessment.from_pretrained(tmp_path / "base"))
    assert grmp_hf.load(tmp_path / "base", adapter=points_adapter).score(photos[0]).score == expected  # brings its own


def test_a_pointer_in_the_place_of_weights_is_named(adapter_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(adapter_folder, tmp_path / "mine")
    (tmp_path / "mine" / "adapter_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha")
    with pytest.raises(GRMPError, match="the pointer of a file in Git LFS; fetch the file itself with git lfs pull"):
        grmp_hf.load(tmp_path / "mine")


def test_a_folder_called_default_is_not_the_embedded_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = grmp_hf.load()
    monkeypatch.chdir(tmp_path)
    for name in ("default", "grmp_hf/tiny"):
        shutil.copytree(EMBEDDED_PROMPTS, name)
        Split(("a.jpg",), (), "made here", 0).save(Path(name, "split.json"))
    for given in (None, "default", "grmp_hf/tiny"):
        found = grmp_hf.load(given)
        assert found.identity == expected.identity and found.taught is None


def test_a_scorer_is_not_saved_over_one_of_another_kind(
    clip_folder: Path, adapter_folder: Path, tmp_path: Path, photos: list[Path]
) -> None:
    base, adapted = grmp_hf.load(clip_folder), grmp_hf.load(adapter=adapter_folder)
    adapted.save(tmp_path / "adapter")
    with pytest.raises(
        GRMPError, match=r"adapter: holds adapter_config\.json of another scorer, which would be loaded"
    ):
        base.save(tmp_path / "adapter")
    replace(adapted, taught=Split(("a.jpg",), (), "made here", 0)).save(tmp_path / "adapter")
    with pytest.raises(GRMPError, match=r"holds split\.json of another scorer"):
        adapted.save(tmp_path / "adapter")
    parts = {"one": adapter_folder, "two": Path(shutil.copytree(adapter_folder, tmp_path / "two"))}
    combine(base, parts, pictures=dict.fromkeys(parts, photos[:4])).save(tmp_path / "both")
    with pytest.raises(GRMPError, match=r"holds experts\.json of another scorer"):
        adapted.save(tmp_path / "both")
