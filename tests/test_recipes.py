from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grmp_hf.cli.main import main
from grmp_hf.data.photographs import Photographs
from grmp_hf.diffusion.fitting import DiffusionRecipe
from grmp_hf.modeling.configuration_grmp import GRMPConfig
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.recipe_files import find_recipe, recipe_names
from grmp_hf.tasks import from_photographs
from grmp_hf.training.distilling import StudentRecipe
from grmp_hf.training.few_shot import adapt
from grmp_hf.training.high_level import HighLevelRecipe, learn_high_level
from grmp_hf.training.local_features import LoDaRecipe
from grmp_hf.training.low_level import LowLevelRecipe, learn_low_level
from grmp_hf.training.pictures import RatedPictures
from grmp_hf.training.pretraining import pretrain
from grmp_hf.training.recipes import FewShotRecipe, PretrainRecipe, Recipe
from grmp_hf.training.stream_recipe import StreamRecipe
from grmp_hf.training.two_stream import TwoStreamRecipe

RECIPES = sorted((Path(__file__).parent.parent / "grmp_hf" / "recipes").rglob("*.yaml"))
ADAPT = [path for path in RECIPES if path.name.startswith("adapt_")]
PRETRAIN = [path for path in RECIPES if path.name.startswith("pretrain_")]
HIGH_LEVEL = [path for path in RECIPES if path.name.startswith("high_level_")]
LOW_LEVEL = [path for path in RECIPES if path.name.startswith("low_level_")]
LODA = [path for path in RECIPES if path.name.startswith("loda_")]
STREAM = [path for path in RECIPES if path.name.startswith("stream_")]


@pytest.fixture
def base(tiny_clip_config: Any) -> GRMPForImageQualityAssessment:
    torch.manual_seed(0)
    return GRMPForImageQualityAssessment(GRMPConfig(clip_config=tiny_clip_config)).eval()


def test_there_are_recipes_for_the_default_and_the_authors() -> None:
    kinds = {"default", "authors", "fidelity", "visual"}, {"default", "authors", "paper"}, {"default", "distillation"}
    for stage, paths, names in zip(("adapt", "pretrain", "stream"), (ADAPT, PRETRAIN, STREAM), kinds, strict=True):
        assert {f"{stage}_{name}.yaml" for name in names} == {path.name for path in paths}
    assert {path.name for path in LODA} == {"loda_default.yaml", "loda_paper.yaml"}
    for stage, paths in (("high_level", HIGH_LEVEL), ("low_level", LOW_LEVEL)):
        assert {path.name for path in paths} == {f"{stage}_default.yaml", f"{stage}_paper.yaml"}
    own = {"lpf_default.yaml", "student_default.yaml", "diffusion_default.yaml"}
    kinds_of_several = (*ADAPT, *PRETRAIN, *STREAM, *LODA, *HIGH_LEVEL, *LOW_LEVEL)
    assert {path.name for path in RECIPES} - {path.name for path in kinds_of_several} == own
    default = {path.name: path for path in RECIPES}
    assert FewShotRecipe.from_yaml(default["adapt_default.yaml"]) == FewShotRecipe()
    assert PretrainRecipe.from_yaml(default["pretrain_default.yaml"]) == PretrainRecipe()
    assert StreamRecipe.from_yaml(default["stream_default.yaml"]) == StreamRecipe()
    assert LoDaRecipe.from_yaml(default["loda_default.yaml"]) == LoDaRecipe()
    assert HighLevelRecipe.from_yaml(default["high_level_default.yaml"]) == HighLevelRecipe()
    assert LowLevelRecipe.from_yaml(default["low_level_default.yaml"]) == LowLevelRecipe()
    assert TwoStreamRecipe.from_yaml(default["lpf_default.yaml"]) == TwoStreamRecipe()
    assert StudentRecipe.from_yaml(default["student_default.yaml"]) == StudentRecipe()
    assert DiffusionRecipe.from_yaml(default["diffusion_default.yaml"]) == DiffusionRecipe()
    assert StreamRecipe.from_yaml(default["stream_distillation.yaml"]) == StreamRecipe(method="distillation")


PAPERS: list[tuple[Recipe, dict[str, Any]]] = [
    (
        LoDaRecipe.named("paper"),  # arXiv 2308.12001 and its code; the CNN stays in evaluation mode here
        {"latent": 64, "heads": 4, "grid": 7, "up": "mlp", "start": "random", "batch_statistics": False}
        | {"head": "token", "dropout": 0.1, "crops": 5, "epochs": 10, "batch_size": 128}
        | {"learning_rate": 3e-4, "weight_decay": 0.01},
    ),
    (
        LowLevelRecipe.named("paper"),  # arXiv 2312.04838 and its code
        {"network": "resnet18", "hidden": 512, "width": 128, "describes": "projected", "versions": 8}
        | {"side": 512, "grid": 7, "piece": 32, "temperature": 0.5, "outside": False, "epochs": 15, "batch_size": 8}
        | {"learning_rate": 1e-4, "smallest_rate": 1e-6, "weight_decay": 0.05},
    ),
    (
        HighLevelRecipe.named("paper"),  # the same; adapter and rate are ours, for their 1e-6 on all weights
        {"adapter": "lora", "rank": 8, "width": 128, "train_projection": False, "share": 32, "temperature": 0.5}
        | {"ranked_by": "labels", "epochs": 15, "batch_size": 128, "warmup_epochs": 2.5, "learning_rate": 1e-4}
        | {"weight_decay": 0.0},
    ),
]


@pytest.mark.parametrize(("recipe", "numbers"), PAPERS, ids=["loda", "low_level", "high_level"])
def test_recipes_of_papers_hold_their_numbers(recipe: Any, numbers: dict[str, Any]) -> None:
    found = dataclasses.asdict(recipe)
    ours = {"bf16", "save_steps", "steps", "visual_prompts"}  # where there are epochs, and an adapter of another kind
    assert {name: value for name, value in found.items() if name not in ours} == numbers


@pytest.mark.parametrize("path", ADAPT, ids=lambda path: path.stem)
def test_each_recipe_runs_two_steps_and_moves_what_it_names(
    path: Path, base: GRMPForImageQualityAssessment, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(FewShotRecipe.from_yaml(path), steps=2, save_steps=1, blocks=1)
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    pixels = torch.randint(0, 256, (6, 1, 3, 32, 32), dtype=torch.uint8)
    model = adapt(
        base,
        RatedPictures(pixels.__getitem__, torch.linspace(0.1, 0.9, 6), (0.5,) * 3, (0.5,) * 3),
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


@pytest.mark.parametrize("path", PRETRAIN, ids=lambda path: path.stem)
def test_each_recipe_of_pre_training_runs_two_steps_of_its_algorithm(
    path: Path, base: GRMPForImageQualityAssessment, tmp_path: Path
) -> None:
    recipe = PretrainRecipe.from_yaml(path)
    sizes = {"support": 5, "query": 4, "support_batch_size": recipe.support_batch_size and 3}
    sizes |= {"query_batch_size": recipe.query_batch_size and 4, "held_out_support": 5, "held_out_query": 4}
    recipe = dataclasses.replace(recipe, steps=2, eval_steps=1, tasks_per_step=2, visual_prompts=3, **sizes)
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    pictures = tuple(np.random.default_rng(seed).integers(0, 256, (40, 36, 3), dtype=np.uint8) for seed in range(5))
    source = from_photographs("noise", Photographs(pictures, ""), GRMPImageProcessor(32, ["center"]), recipe.labels)
    tasks, fresh = source.tasks, bool(recipe.fresh_optimizer)
    learning, judging = (
        source.episodes({kind: tasks[kind] for kind in kinds}, fresh_optimizer=fresh, **options)
        for kinds, options in (
            (("brighten", "colour_block", "impulse_noise"), recipe.learning_episodes),
            (("darken",), recipe.held_out_episodes),
        )
    )
    model = pretrain(base, learning, judging, recipe=recipe, output_dir=tmp_path, compute_metrics=None)
    names = {name.split(".grmp_")[1] for name, _ in model.named_parameters() if ".grmp_" in name}
    assert {name.split(".")[0] for name in names} == {"text", "visual"} | ({"readout"} if recipe.calibrate else set())
    assert (tmp_path / "checkpoint-2").is_dir()
    restored = model.unload().state_dict()
    assert all(torch.equal(restored[name], weight) for name, weight in before.items()), "the base must stay as it was"


@pytest.mark.parametrize("command", ["adapt", "pretrain"])
def test_recipes_go_by_name(command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    names = recipe_names(command)
    assert names == sorted(path.stem.partition("_")[2] for path in (ADAPT if command == "adapt" else PRETRAIN))
    for name in names:
        found = find_recipe(command, name)
        assert found is not None and found.name == f"{command}_{name}.yaml" and found.is_file()
    own = tmp_path / "own.yaml"
    own.write_text("steps: 3")
    assert find_recipe(command, str(own)) == own
    assert main([command, "--help"]) == 0
    assert f"{', '.join(names)}," in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("content", "message"), [(None, "expected a file, or one of"), ("a: [", "expected a recipe in YAML, got")]
)
def test_a_wrong_recipe_is_refused_before_anything_heavy(
    content: str | None, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "own.yaml"
    if content is not None:
        path.write_text(content)
    command = ["adapt", "--data", str(tmp_path), "--output", str(tmp_path / "mine"), "--recipe", str(path)]
    assert main(command) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "mine").exists()


class _Versions:
    """Two families of noise of two contrasts."""

    content_hash = "noise"

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        noise = np.random.default_rng(index).uniform(-100, 100, (40, 40, 3))
        return (128 + np.stack([noise, noise / 4])).astype(np.uint8), np.array([[1, 0.5], [0.5, 1]], np.float32)


@pytest.mark.parametrize("path", LOW_LEVEL, ids=lambda path: path.stem)
def test_each_recipe_of_the_low_level_stage_runs(path: Path, tmp_path: Path) -> None:
    recipe = LowLevelRecipe.from_yaml(path)
    short = dataclasses.replace(recipe, epochs=1, batch_size=2, versions=1, side=40, grid=2, piece=16)
    encoder = learn_low_level(_Versions(), recipe=short, output_dir=tmp_path)
    (taken,) = {int(value) for name, value in encoder.named_buffers() if name.endswith("num_batches_tracked")}
    assert taken == 1 and encoder.config.backbone == recipe.config().backbone
    assert len(encoder.backbone.encoder.stages[0].layers) == (2 if recipe.network == "resnet18" else 1)
    assert encoder.describe(np.zeros((40, 50, 3), np.uint8)).shape == (128,)


@pytest.mark.parametrize("path", HIGH_LEVEL, ids=lambda path: path.stem)
def test_each_recipe_of_the_high_level_stage_runs(
    path: Path, base: GRMPForImageQualityAssessment, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(HighLevelRecipe.from_yaml(path), epochs=2, batch_size=6, warmup_epochs=1)
    pixels = torch.randint(0, 256, (6, 1, 3, 32, 32), dtype=torch.uint8)
    rated = RatedPictures(pixels.__getitem__, torch.zeros(6), (0.5,) * 3, (0.5,) * 3)
    still = dataclasses.replace(recipe, learning_rate=0.0)
    ends = [
        dict(learn_high_level(base, rated, recipe=kind, output_dir=tmp_path).named_parameters())
        for kind in (recipe, still)
    ]
    moved = {name for name in ends[0] if not torch.equal(ends[0][name], ends[1][name])}
    assert any((".lora_" if recipe.adapter == "lora" else ".ln_tuning_layers.") in name for name in moved)
    assert any(".head." in name for name in moved) == recipe.train_projection
    assert all(weight.requires_grad for name, weight in ends[0].items() if name in moved)
