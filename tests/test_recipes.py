from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.configuration_grmp import GRMPConfig
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.training.few_shot import FewShotRecipe, adapt

RECIPES = sorted((Path(__file__).parent.parent / "training" / "recipes").rglob("*.yaml"))


def test_there_are_recipes_for_the_default_and_the_authors() -> None:
    assert {"adapt_default.yaml", "adapt_authors.yaml"} <= {path.name for path in RECIPES}
    default = next(path for path in RECIPES if path.name == "adapt_default.yaml")
    assert FewShotRecipe.from_yaml(default) == FewShotRecipe()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_each_recipe_runs_two_steps_and_moves_what_it_names(path: Path, tiny_clip_config, tmp_path: Path) -> None:
    recipe = dataclasses.replace(FewShotRecipe.from_yaml(path), steps=2, save_steps=1, blocks=1)
    torch.manual_seed(0)
    base = GRMPForImageQualityAssessment(GRMPConfig(clip_config=tiny_clip_config)).eval()
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    pixels = torch.randint(0, 256, (6, 1, 3, 32, 32), dtype=torch.uint8)
    model = adapt(
        base,
        pixels,
        torch.linspace(0.1, 0.9, 6),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        recipe=recipe,
        output_dir=tmp_path / "run",
    )
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert any("grmp_text" in name for name in trained)
    assert any("modules_to_save" in name for name in trained) == (recipe.train == "authors")
    assert any("grmp_visual" in name for name in trained) == (recipe.train == "prompts" and recipe.visual_prompts > 0)
    restored = model.unload().state_dict()
    assert all(torch.equal(restored[name], weight) for name, weight in before.items()), "the base must stay as it was"
    assert not (tmp_path / "run" / "fit").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 3", "got stepz"),
        ("- 3", r"got \[3\]"),
        ("train: everything", "train out of prompts, authors, got 'everything'"),
        ("steps: 0", "steps=0"),
        ("a: [", "Expected a recipe in YAML"),
    ],
)
def test_a_wrong_recipe_says_what_it_may_hold(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(GRMPError, match=message):
        FewShotRecipe.from_yaml(path)
    with pytest.raises(GRMPError, match="Expected a recipe in YAML"):
        FewShotRecipe.from_yaml(tmp_path / "none.yaml")
