from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from grmp_hf.errors import GRMPError
from grmp_hf.modeling import image_processing_grmp
from grmp_hf.modeling.functional import join_tiles
from grmp_hf.modeling.image_processing_grmp import (
    TILES,
    VIEWS,
    GRMPImageProcessor,
    authors_training_view,
    denormalize,
    normalize,
)

SETS = [*([view] for view in VIEWS if view != TILES), ["center", TILES], list(VIEWS)]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.mark.parametrize("size", [(64, 48), (33, 90), (32, 32), (20, 25)])
def test_whole_view_is_clips_own_preprocessing(size: tuple[int, int]) -> None:
    clip = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    expected = torch.from_numpy(np.asarray(clip(picture(*size))["pixel_values"][0]))
    got = GRMPImageProcessor(32)(picture(*size))["pixel_values"][0]
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("view", "box"),
    [
        ("center", (8, 16)),
        ("top_left", (0, 0)),
        ("top_right", (0, 32)),
        ("bottom_left", (16, 0)),
        ("bottom_right", (16, 32)),
    ],
)
def test_native_views_are_pixels_of_the_picture(view: str, box: tuple[int, int]) -> None:
    source = picture(64, 48)
    (got,) = GRMPImageProcessor(32, [view]).pixels(source)
    top, left = box
    assert np.array_equal(got.permute(1, 2, 0).numpy(), np.asarray(source)[top : top + 32, left : left + 32])


def test_large_pictures_are_shrunk_once_and_small_ones_enlarged() -> None:
    processor = GRMPImageProcessor(32, ["center"], shortest_edge_limit=40)
    shrunk = picture(160, 80).resize((80, 40), Image.Resampling.BICUBIC)
    assert torch.equal(processor.pixels(picture(160, 80)), processor.pixels(shrunk))
    assert processor.pixels(picture(10, 7)).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("views", SETS, ids=lambda views: "+".join(views))
def test_shapes_and_repeatability(views: list[str]) -> None:
    processor, batch = GRMPImageProcessor(32, views), [picture(50, 40), picture(33, 70), picture(9, 200)]
    pixels = processor(batch)["pixel_values"]
    assert pixels.dtype == torch.float32
    assert pixels.shape == ((3, 3, 32, 32) if len(views) == 1 else (3, processor.count, 3, 32, 32))
    alone = torch.cat([processor(one)["pixel_values"] for one in batch])
    assert torch.equal(pixels, alone)
    assert torch.equal(processor([np.asarray(one) for one in batch])["pixel_values"], pixels)


def test_the_references_test_view() -> None:
    source = picture(70, 50)
    pixels = torch.from_numpy(np.array(source)).permute(2, 0, 1)[None].float()
    stored = F.interpolate(pixels, (52, 52), mode="bicubic", align_corners=False).round().clamp(0, 255)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = normalize(stored[..., 10:42, 10:42], mean, std)
    assert torch.equal(GRMPImageProcessor.authors(32)(source)["pixel_values"], expected)


def test_the_references_training_view_is_a_function_of_the_seed() -> None:
    stored = torch.randint(0, 256, (2, 3, 52, 52), dtype=torch.uint8)
    views = [authors_training_view(stored, seed, 32) for seed in range(6)]
    assert all(torch.equal(view, authors_training_view(stored, seed, 32)) for seed, view in enumerate(views))
    assert not torch.equal(views[0], views[1]) and views[0].shape == (2, 3, 32, 32)


def test_settings_are_saved(tmp_path: Path, make_scorer: Callable[..., Any]) -> None:
    processor = GRMPImageProcessor(32, ["center", "whole"], [0.7, 0.3], shortest_edge_limit=64)
    processor.save_pretrained(tmp_path)
    make_scorer().config.save_pretrained(tmp_path)
    for again in (GRMPImageProcessor.from_pretrained(tmp_path), AutoImageProcessor.from_pretrained(tmp_path)):
        assert type(again) is GRMPImageProcessor and again.settings() == processor.settings()


def test_a_plain_clips_settings_become_one_whole_view(tmp_path: Path) -> None:
    clip = CLIPImageProcessorPil(crop_size={"height": 48, "width": 48}, image_mean=[0.1, 0.2, 0.3])
    clip.save_pretrained(tmp_path)
    settings = GRMPImageProcessor.from_pretrained(tmp_path).settings()
    assert (settings["size"], settings["views"], settings["image_mean"]) == (48, ["whole"], [0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": ["middle"]}, "Expected views out of whole"),
        ({"views": []}, "Expected views out of whole"),
        ({"views": "whole"}, "Expected views out of whole"),
        ({"view_weights": [-1.0]}, "numbers that can be view_weights, got [-1.0]"),
        ({"image_std": [0.2, 0.2]}, "numbers that can be image_std, got [0.2, 0.2]"),
        ({"image_mean": ["0", 0, 0]}, "numbers that can be image_mean"),
        ({"side_size": "64"}, "numbers that can be side_size, got '64'"),
        ({"veiws": ["center"], "sizes": 224}, "side_size, got 'veiws', 'sizes'. Correct it"),
        ({"views": ["whole"], "view_weights": [0.5, 0.5]}, "one weight for each of the 1 views, got 2"),
        ({"shortest_edge_limit": 16}, "shortest_edge_limit of at least the size 32, got 16"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GRMPError, match=re.escape(message)):
        GRMPImageProcessor(32, **options)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("L", (40, 40)), "got mode L"),
        (Image.new("RGBA", (40, 40)), "got mode RGBA"),
        (np.zeros((40, 40, 3)), "got ndarray float64 (40, 40, 3)"),
        (np.zeros((3, 40, 40), np.uint8), "got ndarray uint8 (3, 40, 40)"),
        ("photo.jpg", "got str"),
    ],
)
def test_only_rgb_pictures(image: Any, message: str) -> None:
    with pytest.raises(GRMPError, match=re.escape(message)):
        GRMPImageProcessor(32)(image)


@pytest.mark.parametrize("view", [view for view in VIEWS if view != TILES])
def test_views_are_cut_from_the_uncropped_picture(view: str) -> None:
    for source in (picture(64, 48), picture(200, 90), picture(20, 25)):
        processor = GRMPImageProcessor(32, [view], shortest_edge_limit=40)
        uncropped = processor.uncropped(source)
        assert min(uncropped.size) >= 32
        (got,) = processor.pixels(source)
        windows = np.lib.stride_tricks.sliding_window_view(np.asarray(uncropped), (32, 32, 3))
        assert (windows == got.permute(1, 2, 0).numpy()).all(axis=(-1, -2, -3)).any()


@pytest.mark.parametrize("size", [(1, 65_000), (65_000, 1), (4000, 1), (3, 30_000)])
@pytest.mark.parametrize("views", SETS, ids=lambda views: "+".join(views))
def test_memory_does_not_depend_on_the_shape(size: tuple[int, int], views: list[str]) -> None:
    processor = GRMPImageProcessor(224, views)
    resized: list[int] = []
    original = Image.Image.resize

    def watched(self: Image.Image, to: tuple[int, int], *arguments: Any, **given: Any) -> Image.Image:
        resized.append(to[0] * to[1])
        return original(self, to, *arguments, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", watched)
        assert processor.pixels(picture(*size)).shape == (processor.count, 3, 224, 224)
        assert min(processor.uncropped(picture(*size)).size) >= 224
    assert max(resized, default=0) <= 2**24


@pytest.mark.parametrize("size", [(300, 40), (31, 33), (64, 2000)])
def test_a_crop_without_the_rest_shows_the_same(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    smooth = picture(9, 9).resize(size, Image.Resampling.BICUBIC)
    processor = GRMPImageProcessor(96, list(VIEWS))
    expected = processor.pixels(smooth)
    monkeypatch.setattr(image_processing_grmp, "_LARGE", 0)
    difference = (processor.pixels(smooth).int() - expected.int()).abs()
    assert difference.max() <= 2  # of 255: Pillow holds the place of a crop in single precision


def whole(tiles: torch.Tensor) -> np.ndarray:
    return join_tiles(tiles[None], 64)[0].permute(1, 2, 0).numpy()


def test_tiles_hold_the_whole_picture_mirrored_at_its_edges() -> None:
    processor, source = GRMPImageProcessor(32, ["center", TILES], side_size=64), picture(50, 20)
    assert processor.count == 5 and processor.has_tiles
    seen, pixels = whole(processor.pixels(source)[1:]), np.asarray(source)
    assert seen.shape == (64, 64, 3) and np.array_equal(seen[:20, :50], pixels)
    assert np.array_equal(seen[20:40, :50], pixels[::-1]) and np.array_equal(seen[:20, 50:], pixels[:, :-15:-1])
    small = source.resize((64, 26), Image.Resampling.BICUBIC)
    larger = whole(processor.pixels(small.resize((128, 51), Image.Resampling.NEAREST))[1:])
    assert larger.shape == (64, 64, 3)


@pytest.mark.parametrize("views", [[TILES], [TILES, "center"], ["center", TILES, TILES]])
def test_tiles_come_last_and_once(views: list[str]) -> None:
    with pytest.raises(GRMPError, match="Expected tiles once, after at least one other view"):
        GRMPImageProcessor(32, views)


def test_tiles_are_as_many_as_the_square_needs() -> None:
    processor = GRMPImageProcessor(224, ["center", TILES])
    assert processor.side_size == 384 and processor.count == 4 and processor.settings()["side_size"] == 384
    assert "side_size" not in GRMPImageProcessor(224).settings()
    with pytest.raises(GRMPError, match="a side_size that is a multiple of 32, got 100"):
        GRMPImageProcessor(224, side_size=100)


def test_weights_are_those_of_the_other_views() -> None:
    assert GRMPImageProcessor(32, ["center", "whole", TILES], [0.75, 0.25]).view_weights == [0.75, 0.25]
    with pytest.raises(GRMPError, match="one weight for each of the 1 views, got 2"):
        GRMPImageProcessor(32, ["center", TILES], [0.5, 0.5])


def test_pixels_come_back_from_their_values_exactly() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).expand(3, 2, 256)
    values = normalize(pixels, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    assert torch.equal(denormalize(values, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)), pixels / 255)
