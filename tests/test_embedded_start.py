"""The prompts inside the package: of the embedded base, small, and what `adapt` begins at."""

from __future__ import annotations

import torch
from peft import PeftModel

import grmp_hf
from grmp_hf.embedded import EMBEDDED_PROMPTS, find_start
from grmp_hf.modeling.bases import check_base
from grmp_hf.record import origin_of
from grmp_hf.training.few_shot import FewShotRecipe, adapt
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.starts import read_start


def test_it_is_where_adapt_begins_with_the_embedded_base() -> None:
    assert find_start("package", "default") == EMBEDDED_PROMPTS
    check_base(read_start(EMBEDDED_PROMPTS), grmp_hf.load("default").model)


def test_it_is_small_and_says_how_it_was_made_without_a_place() -> None:
    assert sum(path.stat().st_size for path in EMBEDDED_PROMPTS.iterdir()) < 2**20
    said = origin_of(EMBEDDED_PROMPTS)
    assert (said["stage"], said["base"]) == ("pre-trained", "grmp_hf/tiny")
    assert not set(said["tasks"]) & set(said["held_out"])
    assert all("/" not in source for source in said["sources"])


def test_it_moves_the_embedding_a_little_and_is_kept_by_adaptation(tmp_path) -> None:
    base = grmp_hf.load("default")
    pixels = torch.randint(0, 256, (6, 1, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = base.outputs(pixels).image_embeds
    prompted = PeftModel.from_pretrained(grmp_hf.load("default").model, str(EMBEDDED_PROMPTS)).eval()
    with torch.inference_mode():
        moved = prompted(pixel_values=base.prepare(pixels)).image_embeds
    likeness = torch.nn.functional.cosine_similarity(plain, moved)
    assert (likeness < 0.99999).all() and (likeness > 0.85).all()
    mean, std = base.processor.image_mean, base.processor.image_std
    recipe = FewShotRecipe(steps=2, features=False, anchor_residuals=True)
    quality = torch.linspace(0, 1, 6)
    model = adapt(
        base.model,
        RatedPictures(pixels.__getitem__, quality, mean, std),
        recipe=recipe,
        start=EMBEDDED_PROMPTS,
        output_dir=tmp_path,
    )
    before, after = prompted.state_dict(), model.state_dict()
    visual = [name for name in before if ".grmp_visual." in name]
    assert visual and all(torch.equal(before[name], after[name]) for name in visual)
