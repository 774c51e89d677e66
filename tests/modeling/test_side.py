"""Side networks: the trunk against another build of it, groups, files, and what a base with one keeps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import ResNetConfig, ResNetForImageClassification

import grmp_hf
from grmp_hf import GRMPForImageQualityAssessment, GRMPPromptConfig
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.bases import base_fingerprint, side_of
from grmp_hf.modeling.side import (
    SIDE_SETTINGS,
    SIDE_WEIGHTS,
    EfficientNetLite0,
    EmbeddedSide,
    backbone_side,
    make_side,
    pooled,
    read_side,
)

MakeScorer = Callable[..., GRMPForImageQualityAssessment]
ASSET = Path(grmp_hf.__file__).parent / "assets" / "tiny"
RESNET = ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], out_features=["stage1", "stage2"])
SETTINGS: dict[str, Any] = {
    "name": "backbone",
    "config": json.loads(RESNET.to_json_string(False)),
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
}


def put_side(clip_folder: Path, settings: dict[str, Any], folder: Path) -> Path:
    """A copy of a CLIP's folder with a side network beside the CLIP, made from a seed."""
    shutil.copytree(clip_folder, folder)
    (folder / SIDE_SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    torch.manual_seed(6)
    save_file(make_side(settings).state_dict(), folder / SIDE_WEIGHTS)
    return folder


def with_side(make_scorer: MakeScorer, **config: Any) -> GRMPForImageQualityAssessment:
    """A small base with a small ResNet beside it."""
    torch.manual_seed(3)
    model = make_scorer(view_weights=[1.0], side_size=32, **config)
    model.put_beside(SETTINGS, make_side(SETTINGS))
    return model


@pytest.fixture
def base(make_scorer: MakeScorer) -> GRMPForImageQualityAssessment:
    return with_side(make_scorer)


def views(count: int = 2) -> torch.Tensor:
    """Five views, the last four of them tiles."""
    return torch.rand(count, 5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_the_trunk_has_the_sizes_of_efficientnet_lite0() -> None:
    trunk = EfficientNetLite0()
    assert sum(weight.numel() for weight in trunk.parameters()) == 2_939_120
    with torch.no_grad():
        maps = trunk(torch.rand(1, 3, 64, 96))
    assert [tuple(states.shape[1:]) for states in maps] == [
        *((16, 32, 48), (24, 16, 24), (40, 8, 12), (80, 4, 6), (112, 4, 6), (192, 2, 3), (320, 2, 3))
    ]


@torch.no_grad()
def test_the_trunk_pads_as_tensorflow_does() -> None:
    """The same blocks with padding computed from the size at hand, as the authors' own layers do it."""

    def same(convolution: Any, states: torch.Tensor) -> torch.Tensor:
        kernel, stride = convolution.kernel_size[0], convolution.stride[0]
        needed = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in states.shape[-2:]]
        (top, left), sizes = [side // 2 for side in needed], needed
        padded = F.pad(states, [left, sizes[1] - left, top, sizes[0] - top])
        return F.conv2d(padded, convolution.weight, convolution.bias, stride, groups=convolution.groups)

    torch.manual_seed(0)
    trunk, pixels = EfficientNetLite0().eval(), torch.rand(2, 3, 64, 64)
    states = F.relu6(same(trunk.stem, (pixels * 255 - 127) / 128))
    for blocks, found in zip(trunk.stages, trunk(pixels), strict=True):
        for block in blocks:
            inner = states if block.expand is None else F.relu6(same(block.expand, states))
            after = same(block.project, F.relu6(same(block.depthwise, inner)))
            states = states + after if block.residual else after
        torch.testing.assert_close(found, states)


def test_pooled_are_mean_and_deviation() -> None:
    states = torch.rand(2, 3, 5, 7)
    expected = torch.cat([states.mean((2, 3)), states.flatten(2).std(2, correction=0)], 1)
    torch.testing.assert_close(pooled(states), expected)


def test_the_embedded_side_knows_photographs() -> None:
    found = read_side(ASSET)
    assert found is not None
    settings, side = found
    assert settings == {"name": "efficientnet_lite0"} and isinstance(side, EmbeddedSide)
    assert side.groups == {"deep": 1024, "mid": 352, "statistics": 14}
    assert bool(side.mean.isfinite().all()) and bool((side.spread > 0).all())
    assert not any(weight.requires_grad for weight in side.parameters())
    size = sum((ASSET / name).stat().st_size for name in ("side.safetensors", "model.safetensors"))
    assert size < 16 * 2**20
    with torch.no_grad():
        assert side(torch.rand(1, 3, 64, 64)).shape == (1, 1390)


@torch.no_grad()
def test_a_base_with_a_side_is_the_same_base(base: GRMPForImageQualityAssessment, make_scorer: MakeScorer) -> None:
    plain = make_scorer(view_weights=[1.0], side_size=32)
    assert base_fingerprint(base) == base_fingerprint(plain) and side_of(plain) is None
    torch.testing.assert_close(base(views()).quality, plain(views()).quality, atol=0, rtol=0)
    torch.testing.assert_close(base(views()).quality, plain(views()[:, 0]).quality)
    side = base.get_features(views(), side=True).side
    assert side is not None and torch.equal(side, base.get_side(views()))
    assert side.shape == (2, sum(base.side.groups.values()))  # type: ignore[union-attr]


@torch.no_grad()
def test_it_is_saved_and_loaded_with_the_model(base: GRMPForImageQualityAssessment, tmp_path: Path) -> None:
    base.save_pretrained(tmp_path)
    loaded = GRMPForImageQualityAssessment.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded.get_side(views()), base.get_side(views()))
    assert side_of(loaded)["fingerprint"] == side_of(base)["fingerprint"]  # type: ignore[index]


def test_a_backbone_comes_from_a_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = ResNetForImageClassification(ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1])).eval()
    source.save_pretrained(tmp_path)
    settings, side = backbone_side(str(tmp_path))
    assert list(side.groups) == ["stage1", "stage2", "statistics"] and settings["source"] == str(tmp_path)
    pixels = torch.rand(2, 3, 64, 64)
    values = (pixels - torch.tensor(settings["image_mean"]).view(3, 1, 1)) / torch.tensor(settings["image_std"]).view(
        3, 1, 1
    )
    with torch.no_grad():
        states = source.resnet(values, output_hidden_states=True).hidden_states
        torch.testing.assert_close(side(pixels)[:, :20], torch.cat([pooled(states[1]), pooled(states[2])], 1))
    assert json.loads(json.dumps(settings)) == settings


def test_an_adapter_says_which_side_it_needs(base: GRMPForImageQualityAssessment, make_scorer: MakeScorer) -> None:
    groups = {"embeds": 12, **base.side.groups}  # type: ignore[union-attr]
    adapted = get_peft_model(base, GRMPPromptConfig(text_prompts=2, visual_prompts=0, features=groups))
    assert adapted.peft_config["default"].record.side == side_of(base)
    with pytest.raises(GRMPError, match="Expected features of the base"):
        get_peft_model(make_scorer(), GRMPPromptConfig(text_prompts=2, visual_prompts=0, features=groups))
    with pytest.raises(GRMPError, match=r"views of a side network, the last ones of a picture"):
        adapted(views()[:, :1])


def test_a_side_that_is_asked_for_has_to_be_there(make_scorer: MakeScorer) -> None:
    with pytest.raises(GRMPError, match="Expected a base with a side network"):
        make_scorer(view_weights=[1.0], side_size=32).get_features(views(), side=True)
    with pytest.raises(GRMPError, match="Expected a base with a side network"):
        make_scorer(view_weights=[1.0], side_size=32).get_side(views())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "vgg"}, "efficientnet_lite0 or backbone, got 'vgg'"),
        ({"name": "backbone"}, "Expected settings of the side network 'backbone'"),
    ],
)
def test_settings_that_describe_none_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(GRMPError, match=message):
        make_side(settings)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    assert read_side(tmp_path) is None
    shutil.copy(ASSET / "side_config.json", tmp_path)
    with pytest.raises(GRMPError, match="Copy the folder again"):
        read_side(tmp_path)
    (tmp_path / "side.safetensors").write_bytes((ASSET / "side.safetensors").read_bytes()[:1000])
    with pytest.raises(GRMPError, match="Copy the folder again"):
        read_side(tmp_path)
