"""The recipe of the embedded default, end to end on generated pictures with a stand-in teacher, and its parts."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor

ROOT = Path(__file__).parent.parent
ASSET = ROOT / "grmp_hf" / "assets" / "tiny"
ANCHORS = ["X X X X high quality.", "X X X X low quality."]
SCENES = ["animal", "cityscape", "human", "indoor", "landscape", "night", "plant", "still_life", "others"]


@pytest.fixture(scope="module")
def script() -> Any:
    """The script as a module; ``tiny_clip`` beside it becomes importable for as long as these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "modeling"))
        spec = importlib.util.spec_from_file_location("build_tiny_clip", ROOT / "modeling" / "build_tiny_clip.py")
        assert spec is not None and spec.loader is not None
        module: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        patch.setattr("tiny_clip.sampling.LATENT_WINDOWS", 320)
        yield module


def stand_in_teacher() -> Any:
    """Random filters of stride 4, 8 and 16 in the place of EfficientNet-Lite0."""
    from tiny_clip.teacher import TeacherOutput

    generator = torch.Generator().manual_seed(0)
    filters = [torch.randn((4, 3, stride, stride), generator=generator) / stride for stride in (4, 8, 16)]
    read_out = torch.randn((4, 1280 + 1000), generator=generator)

    def teacher(pixels: torch.Tensor) -> Any:
        stages = [torch.conv2d(pixels / 128 - 1, weight, stride=weight.shape[-1]).relu() for weight in filters]
        values = stages[-1].mean((2, 3)) @ read_out
        return TeacherOutput(stages, values[:, :1280], values[:, 1280:])

    return teacher


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen pictures of smooth colour with stripes of growing contrast."""
    folder = tmp_path_factory.mktemp("photos")
    rows, columns = np.mgrid[:512, :512] / 512
    for index in range(12):
        rng = np.random.default_rng(index)
        shade = rng.uniform(40, 200, 3) + 60 * rows[..., None] * rng.uniform(-1, 1, 3)
        stripes = 4 * index * np.sin(columns * rng.uniform(50, 400))[..., None]
        grain = rng.normal(0, 3, (512, 512, 3))
        Image.fromarray(np.clip(shade + stripes + grain, 0, 255).astype(np.uint8)).save(folder / f"{index:02}.jpg")
    return folder


@pytest.fixture(scope="module")
def built(script: Any, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Work folder and result of a recipe cut down to a few steps with two workers."""
    folder = tmp_path_factory.mktemp("built")
    work, out = folder / "work", folder / "tiny"
    script.build(photos, work, out, settings(script, minutes=0.01), script.default_kinds(0.2), stand_in_teacher)
    return work, out


def settings(script: Any, minutes: float) -> Any:
    from tiny_clip.student import Sizes

    sizes = Sizes(width=48, layers=1, heads=2, text_width=32, text_layers=1, projection=16)
    return script.Settings(minutes=minutes, workers=2, batch=4, log_steps=1, sizes=sizes)


def test_result_is_a_plain_clip_directory(built: tuple[Path, Path]) -> None:
    _, out = built
    model, tokenizer = CLIPModel.from_pretrained(out), CLIPTokenizer.from_pretrained(out)
    processor = GRMPImageProcessor.from_pretrained(out)
    pixels = processor(Image.new("RGB", (300, 260)))["pixel_values"]
    assert pixels.shape == (1, 5, 3, 224, 224)
    with torch.no_grad():
        output = model(
            input_ids=tokenizer(ANCHORS, return_tensors="pt").input_ids, pixel_values=pixels[0].to(model.dtype)
        )
    assert output.logits_per_image.shape == (5, 2) and bool(output.logits_per_image.isfinite().all())


def test_workers_end_with_the_same_weights(built: tuple[Path, Path]) -> None:
    first, second = (torch.load(built[0] / f"checkpoint_{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["progress"] == second["progress"] and first["progress"]["step"] > 0
    for name, tensor in first["model"].items():
        assert torch.equal(tensor, second["model"][name]), name


def test_second_run_uses_what_is_there(
    script: Any, photos: Path, built: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    work, out = built

    def no_teacher() -> Any:
        raise AssertionError("the features are there already")

    before = json.loads((work / "checks.json").read_text())
    script.build(photos, work, out, settings(script, minutes=0.02), script.default_kinds(0.2), no_teacher)
    after = json.loads((work / "checks.json").read_text())
    assert after["training"]["step"] > before["training"]["step"]
    assert "views: already there" in capsys.readouterr().out


def test_fast_forward_pass_equals_the_library(script: Any, built: tuple[Path, Path]) -> None:
    from tiny_clip.student import IMAGE_MEAN, IMAGE_STD, encode_patches, encode_texts, placeholder_token

    model = CLIPModel.from_pretrained(built[1], dtype=torch.float32).eval()
    tokenizer = CLIPTokenizer.from_pretrained(built[1])
    picture = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    patches = picture.reshape(1, 3, 14, 16, 14, 16).permute(0, 2, 4, 1, 3, 5).reshape(1, 196, 768)
    mean, std = (torch.tensor(row)[:, None, None] for row in (IMAGE_MEAN, IMAGE_STD))
    with torch.no_grad():
        expected = model.vision_model(pixel_values=(picture / 255 - mean) / std).pooler_output
        with torch.autocast("cpu", torch.bfloat16):
            pooled, _ = encode_patches(model, patches, torch.arange(196)[None])
        assert torch.allclose(pooled.float(), expected, atol=0.05)  # bfloat16 has 8 bits
        tokens = tokenizer([*ANCHORS, "a photo"], padding=True, return_tensors="pt")
        expected = torch.nn.functional.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
        embedded = encode_texts(model, tokens.input_ids, placeholder_token(tokenizer))
    assert torch.allclose(embedded, expected, atol=1e-5)


def test_noise_moves_only_texts_with_placeholders(script: Any, built: tuple[Path, Path]) -> None:
    from tiny_clip.student import encode_texts, placeholder_token

    model, tokenizer = CLIPModel.from_pretrained(built[1], dtype=torch.float32), CLIPTokenizer.from_pretrained(built[1])
    ids = tokenizer([ANCHORS[0], "high quality."], padding=True, return_tensors="pt").input_ids
    with torch.no_grad():
        plain = encode_texts(model, ids, placeholder_token(tokenizer))
        noise = torch.randn((4, 32), generator=torch.Generator().manual_seed(0))  # equal channels are lost in LayerNorm
        noisy = encode_texts(model, ids, placeholder_token(tokenizer), noise)
    assert not torch.allclose(plain[0], noisy[0]) and torch.equal(plain[1], noisy[1])


def test_dct_filters_are_orthonormal(script: Any) -> None:
    from tiny_clip.student import dct_filters

    filters = dct_filters(184).reshape(184, -1)
    np.testing.assert_allclose(filters @ filters.T, np.eye(184), atol=1e-5)


def test_every_distortion_keeps_the_shape_and_grows(script: Any, photos: Path) -> None:
    from tiny_clip.distortions import DISTORTION_FUNCTIONS
    from tiny_clip.views import load_photo

    photo = load_photo(photos / "11.jpg")[:128, :128]
    for name, function in DISTORTION_FUNCTIONS.items():
        changes = []
        for level in (0.1, 0.9):
            changed = function(photo, level, np.random.default_rng(3))
            assert changed.shape == photo.shape and changed.dtype == np.uint8, name
            changes.append(np.abs(changed.astype(float) - photo).mean())
        assert changes[0] < changes[1], name


def test_cell_statistics_have_the_promised_count(script: Any) -> None:
    from tiny_clip.statistics import STATISTICS, cell_statistics

    values = cell_statistics(torch.rand(2, 3, 64, 96))
    assert values.shape == (2, STATISTICS, 4, 6) and bool(values.isfinite().all())


def test_only_permitted_photographs_are_found(script: Any, tmp_path: Path) -> None:
    (tmp_path / "unlabelled").mkdir()
    (tmp_path / "unlabelled" / "free.jpg").touch()
    rows = ["image,mos,split,subset", "a.jpg,.5,train,ss03", "b.jpg,.5,test,ss03", "c.jpg,.5,train,ss01"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    assert [path.name for path in script.find_photos(tmp_path)] == ["free.jpg", "a.jpg"]


def test_scene_table_is_complete(script: Any) -> None:
    from tiny_clip.captions import SCENES as IN_RECIPE
    from tiny_clip.captions import imagenet_classes

    assert list(IN_RECIPE) == SCENES
    assert {scene for _, scene in imagenet_classes()} == set(range(9))


def test_recipe_makes_the_embedded_tokenizer(script: Any) -> None:
    from tiny_clip.captions import all_captions
    from tiny_clip.tokenizer import build_tokenizer

    assert build_tokenizer(all_captions()).get_vocab() == CLIPTokenizer.from_pretrained(ASSET).get_vocab()


def test_embedded_tokenizer() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(ASSET)
    assert tokenizer.eos_token_id == len(tokenizer) - 1 == max(tokenizer.get_vocab().values())
    assert tokenizer.tokenize(ANCHORS[0]) == ["x</w>"] * 4 + ["high</w>", "quality</w>", ".</w>"]
    for text in [*ANCHORS, *(f"a photo of a {scene}" for scene in SCENES)]:
        assert len(tokenizer(text).input_ids) <= 12
    assert "_</w>" in tokenizer.tokenize("a photo of a still_life")
    anything = "Größe 42, 日本 \N{GRINNING FACE}"
    assert tokenizer.eos_token_id not in tokenizer(anything, add_special_tokens=False).input_ids


def test_embedded_model_fits_its_tokenizer_and_ten_megabytes() -> None:
    model, tokenizer = CLIPModel.from_pretrained(ASSET), CLIPTokenizer.from_pretrained(ASSET)
    text = model.config.text_config
    assert text.vocab_size == len(tokenizer) and text.max_position_embeddings == 16
    ids = (text.bos_token_id, text.eos_token_id, text.pad_token_id)
    assert ids == (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) and text.eos_token_id != 2
    assert model.dtype == torch.float16
    sizes = {path.name: path.stat().st_size for path in ASSET.iterdir()}
    assert max(sizes.values()) <= 10_000_000 and sum(sizes.values()) <= 16_000_000
