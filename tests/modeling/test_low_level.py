from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.image_processing_grmp import normalize
from grmp_hf.modeling.low_level import RESNET18, LowLevelConfig, LowLevelEncoder, load_encoder

TINY = {"model_type": "resnet", "embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "layer_type": "basic"}


def make(seed: int = 0, **options: Any) -> LowLevelEncoder:
    torch.manual_seed(seed)
    encoder = LowLevelEncoder(LowLevelConfig(**{"backbone": TINY, "hidden": 5, "width": 3, **options}))
    with torch.no_grad():
        for name, value in encoder.named_buffers():
            if name.endswith("running_mean"):
                value.normal_(std=0.1)
    return encoder.eval()


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_networks_are_those_of_the_paper_and_a_small_one() -> None:
    with torch.device("meta"):
        large, small = LowLevelEncoder(LowLevelConfig(RESNET18)), LowLevelEncoder(LowLevelConfig())
    trunk, head = (sum(weight.numel() for weight in part.parameters()) for part in (large.backbone, large.projection))
    assert trunk == 11_176_512, "ResNet-18 without its classifier"
    assert head == 512 * 512 + 512 + 512 * 128 + 128
    assert sum(weight.numel() for weight in small.parameters()) < 700_000


def test_any_leading_axes_are_pictures() -> None:
    encoder, values = make(), torch.randn(2, 3, 3, 20, 24)
    with torch.no_grad():
        found, flat = encoder(values), encoder(values.flatten(0, 1))
    assert found.projected.shape == (2, 3, 3) and found.pooled.shape == (2, 3, 6)
    torch.testing.assert_close(found.projected.flatten(0, 1), flat.projected)


def test_pictures_of_any_size_are_described() -> None:
    encoder = make()
    for size in ((1, 1), (7, 40), (90, 64)):
        rgb = picture(*size)
        with torch.no_grad():
            pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None]
            expected = encoder(normalize(pixels, encoder.config.image_mean, encoder.config.image_std))
        np.testing.assert_allclose(encoder.describe(rgb), expected.projected[0], atol=1e-6)
        np.testing.assert_allclose(make(describes="pooled").describe(rgb), expected.pooled[0], atol=1e-6)
    small, whole = make(longest_edge=32).describe(picture(90, 64)), encoder.describe(picture(90, 64))
    assert np.abs(small - whole).max() > 1e-4
    patches = np.stack([picture(24, 24, seed) for seed in range(70)])
    found = encoder.describe_patches(patches)
    assert found.shape == (70, 3) and found.dtype == np.float64
    np.testing.assert_allclose(found[65], encoder.describe(patches[65]), atol=1e-6)


def test_it_is_saved_and_loaded_bit_for_bit(tmp_path: Path) -> None:
    encoder = make(describes="pooled", longest_edge=40)
    encoder.save_pretrained(tmp_path)
    loaded, rgb = load_encoder(tmp_path), picture(50, 60)
    np.testing.assert_array_equal(loaded.describe(rgb), encoder.describe(rgb))
    assert loaded.fingerprint == encoder.fingerprint and not loaded.training
    others = [make(seed=1), make(), make(describes="pooled"), make(describes="pooled", longest_edge=41)]
    assert len({encoder.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GRMPError, match=r"Expected a low-level encoder in .*, got: no config\.json there"):
        load_encoder(tmp_path)
    make().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "width": 4}))
    with pytest.raises(GRMPError, match=r"mismatched keys: projection\.2\.bias"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(GRMPError, match="Expected a low-level encoder in"):
        load_encoder(tmp_path)
    for wrong, message in (
        ({"width": 0}, "hidden and width of at least 1"),
        ({"backbone": {"depths": [1]}}, "a backbone with its model_type"),
        ({"describes": "both"}, "describes out of projected, pooled, got 'both'"),
    ):
        with pytest.raises(GRMPError, match=message):
            LowLevelConfig(**wrong)
    with pytest.raises(GRMPError, match="a convolutional model that transformers knows"):
        make(backbone={"model_type": "nonsense"})
    with pytest.raises(GRMPError, match="an encoder in evaluation mode"):
        make().train().describe(picture(9, 9))
