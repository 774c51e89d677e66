from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback

from grmp_hf.errors import GRMPError
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.episodes import EpisodeDataset
from grmp_hf.training.pretraining import PretrainRecipe, pretrain

RECIPE = PretrainRecipe(
    visual_prompts=3,
    calibrate=False,
    meta_algorithm="fomaml",
    inner_steps=1,
    inner_learning_rate=0.1,
    steps=6,
    tasks_per_step=2,
    learning_rate=0.05,
    eval_steps=2,
)


def episodes(tasks: range, seed: int = 0, sign: int = 1) -> EpisodeDataset[int]:
    """Noise, the better the brighter (or darker); each task adds a pattern of its own."""
    generator = torch.Generator().manual_seed(1)
    noise, patterns = torch.randn(12, 3, 16, 16, generator=generator), torch.randn(9, 3, 16, 16, generator=generator)
    labels = torch.linspace(0.05, 0.95, 12)

    def load(item: int, seed: int) -> dict[str, Tensor]:
        task, place = divmod(item, 12)
        pixels = 0.5 * noise[place] + patterns[task] + 2 * sign * labels[place]
        return {"pixel_values": pixels, "labels": labels[place]}

    items = {f"pattern {task}": range(12 * task, 12 * task + 12) for task in tasks}
    return EpisodeDataset(items, load, reference_of=lambda item: item, support=4, query=6, seed=seed)


class Watch(TrainerCallback):
    """Keeps what is logged, and stops a run at a step if asked to."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.losses: list[float] = []
        self.steps: list[int] = []
        self.stop_at = stop_at

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        self.losses.append(metrics["eval_loss"])

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(state.global_step)
        if state.global_step == self.stop_at:
            raise KeyboardInterrupt


@pytest.fixture
def run(make_scorer: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    def go(**options: Any) -> Any:
        given = {"recipe": RECIPE, "output_dir": tmp_path / "run", **options}
        held_out = given.pop("held_out", episodes(range(6, 9), seed=1))
        return pretrain(make_scorer(), episodes(range(6)), held_out, **given)

    return go


def learnt(model: Any) -> dict[str, Tensor]:
    return {name: weight for name, weight in model.state_dict().items() if ".grmp_" in name}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_it_learns_what_held_out_tasks_share(run: Callable[..., Any]) -> None:
    watch = Watch()
    model = run(recipe=dataclasses.replace(RECIPE, steps=30, eval_steps=10), callbacks=[watch])
    assert len(watch.losses) == 4
    assert min(watch.losses) < watch.losses[0] - 0.01
    assert not model.training


def test_the_best_checkpoint_is_taken(run: Callable[..., Any], tmp_path: Path) -> None:
    """Where the held-out tasks say the contrary of the others, every step makes it worse."""
    watch, turned = Watch(), episodes(range(6, 9), sign=-1)
    recipe = dataclasses.replace(RECIPE, schedule="constant", steps=8)
    model = run(recipe=recipe, held_out=turned, callbacks=[watch])
    assert watch.losses[1:] == sorted(watch.losses[1:])
    short = run(recipe=dataclasses.replace(recipe, steps=2), held_out=turned, output_dir=tmp_path / "short")
    assert equal(learnt(model), learnt(short))


def test_an_interrupted_run_goes_on_to_the_same_weights(run: Callable[..., Any], tmp_path: Path) -> None:
    whole, watch = run(output_dir=tmp_path / "whole"), Watch()
    with pytest.raises(KeyboardInterrupt):
        run(callbacks=[Watch(stop_at=5)])
    assert equal(learnt(whole), learnt(run(callbacks=[watch])))
    assert watch.steps == [4, 5], "it must not begin from the start"


def test_a_finished_run_has_nothing_left_to_do(run: Callable[..., Any]) -> None:
    recipe, watch = dataclasses.replace(RECIPE, schedule="constant"), Watch()
    first = run(recipe=recipe)
    again = run(recipe=recipe, callbacks=[watch])
    assert equal(learnt(first), learnt(again)) and not again.training
    assert not watch.steps and not watch.losses


def test_the_result_depends_on_the_arguments_alone(run: Callable[..., Any], tmp_path: Path) -> None:
    first = learnt(run())
    torch.manual_seed(99)
    assert equal(first, learnt(run(output_dir=tmp_path / "again", workers=1)))
    assert not equal(first, learnt(run(output_dir=tmp_path / "other", seed=1)))


def test_texts_alone_and_metrics_of_the_held_out_queries(run: Callable[..., Any]) -> None:
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def metrics(prediction: Any) -> dict[str, float]:
        seen.append((prediction.predictions.shape, prediction.label_ids.shape))
        return {"error": float(abs(prediction.predictions - prediction.label_ids).mean())}

    model = run(recipe=dataclasses.replace(RECIPE, visual_prompts=0, steps=2), compute_metrics=metrics)
    assert {name.split(".grmp_")[1] for name in learnt(model)} == {"text.default.context"}
    assert seen == [((3, 6), (3, 6))] * 2


def test_calibration_comes_before_the_first_step(run: Callable[..., Any], tmp_path: Path) -> None:
    plain, calibrated = Watch(), Watch()
    run(recipe=dataclasses.replace(RECIPE, steps=2), callbacks=[plain])
    recipe = dataclasses.replace(RECIPE, calibrate=True)
    whole = run(recipe=recipe, output_dir=tmp_path / "whole", callbacks=[calibrated])
    assert calibrated.losses[0] < plain.losses[0] - 0.01
    names = {name.split(".")[-1] for name in learnt(whole)}
    assert {"log_scale", "offset"} <= names
    with pytest.raises(KeyboardInterrupt):
        run(recipe=recipe, output_dir=tmp_path / "cut", callbacks=[Watch(stop_at=5)])
    assert equal(learnt(whole), learnt(run(recipe=recipe, output_dir=tmp_path / "cut")))


def test_another_runs_folder_is_refused(run: Callable[..., Any]) -> None:
    run(recipe=dataclasses.replace(RECIPE, steps=2))
    with pytest.raises(GRMPError, match="with the same recipe, seed and pictures, got"):
        run()
    with pytest.raises(GRMPError, match="which holds checkpoints of another"):
        run(recipe=dataclasses.replace(RECIPE, steps=2), held_out=episodes(range(6, 9), seed=2))


@pytest.mark.parametrize("name", ["checkpoint-2/photo.jpg", "run.json", "mine.txt"])
def test_a_folder_with_files_of_somebody_else_is_refused_and_kept(
    run: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "run" / name).write_text("mine")
    with pytest.raises(GRMPError, match=f"got one with {name.split('/')[0]}; choose another folder"):
        run()
    assert [path for path in (tmp_path / "run").rglob("*") if path.is_file()] == [tmp_path / "run" / name]
    assert (tmp_path / "run" / name).read_text() == "mine"


def test_tasks_that_processes_cannot_share_are_refused(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GRMPTrainingArguments, "world_size", property(lambda self: 4))
    with pytest.raises(GRMPError, match="a multiple of the 4 processes, got 2"):
        run()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"meta_algorithm": "protonet"}, "meta_algorithm out of fomaml, maml, reptile, authors, got 'protonet'"),
        ({"inner_steps": 0}, "inner_steps of at least 1, got 0"),
        ({"tasks_per_step": 0}, "tasks_per_step of at least 1, got 0"),
    ],
)
def test_a_recipe_is_checked_when_it_is_made(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(GRMPError, match=re.escape(message)):
        dataclasses.replace(RECIPE, **wrong)
