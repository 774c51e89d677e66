"""The work of ``grmp-iqa pretrain`` between reading pictures and printing the result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from peft import PeftModel
from transformers import TrainerCallback

from grmp_hf.cards import write_card
from grmp_hf.cli.sources import Source
from grmp_hf.data.distortions import Picture
from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.hub import adapter_sha256, package_versions, recorded_name
from grmp_hf.measuring import peak_memory_mib
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.outputs import OutputFolder
from grmp_hf.scoring import Scorer
from grmp_hf.storing import write_json, writing
from grmp_hf.training.episodes import ConcatEpisodes, Episodes, hold_out_tasks
from grmp_hf.training.pretraining import check_recipe, pretrain
from grmp_hf.training.recipes import PretrainRecipe

__all__ = ["HELD_OUT", "JUDGED", "Task", "claim", "judge", "make_task", "train"]

HELD_OUT = ("lens_blur", "jpeg", "multiplicative_noise", "darken")
"""Types of distortion that are held out unless others are named: of four families, so that each is learnt from too."""

JUDGED = 64
"""Photographs that a process judges at once."""

_EVERY = 5  # of the tasks of a table that has none of these types, every fifth is held out


@dataclass(frozen=True)
class Task:
    """What is to be learnt, on what, and where it goes.

    Attributes:
        sources: names and hashes of what the tasks come from.
        learning, held_out: names of the tasks of each.
        episodes, judging: episodes of them.
        base: the scorer without an adapter.
        model: the base as the user named it.
        seed: of everything random.
        output: where the adapter goes.
        recipe: of episodes and training.
    """

    sources: dict[str, str]
    learning: list[str]
    held_out: list[str]
    episodes: Episodes
    judging: Episodes
    base: Scorer
    model: str
    seed: int
    output: OutputFolder
    recipe: PretrainRecipe

    @property
    def data_hash(self) -> str:
        """Of all sources."""
        return hashlib.sha256(json.dumps(self.sources, sort_keys=True).encode()).hexdigest()

    def about(self) -> dict[str, Any]:
        """All that decides about the learnt weights, as JSON values."""
        identity = self.base.identity
        found = {
            "base": identity["model"],
            "revision": identity["revision"],
            "base_fingerprint": identity["base_fingerprint"],
            "preprocessing": identity["preprocessing"],
            "sources": self.sources,
            "data_hash": self.data_hash,
            "tasks": self.learning,
            "held_out": self.held_out,
            "seed": self.seed,
            "recipe": dataclasses.asdict(self.recipe),
        }
        return cast(dict[str, Any], json.loads(json.dumps(found)))


def make_task(
    sources: Sequence[Source],
    held_out: Sequence[str] | None,
    base: Scorer,
    *,
    model: str,
    seed: int,
    output: OutputFolder,
    recipe: PretrainRecipe,
) -> Task:
    """Divide the tasks of all sources into some to learn from and some that choose the checkpoint.

    Args:
        sources: at least one.
        held_out: names of tasks; None for `HELD_OUT`, or every fifth task of a table that has none of these.
        base, model, seed, output, recipe: see `Task`.

    Raises:
        GRMPError: a name that no source has, nothing left on one side, or too few pictures for an episode.
    """
    known = [name for source in sources for name in source.tasks]
    unknown = [name for name in held_out or () if name not in known]
    if unknown:
        raise GRMPError(f"--held-out: expected tasks out of {', '.join(known)}, got {', '.join(unknown)}")
    learning: list[Episodes] = []
    judging: list[Episodes] = []
    names: tuple[list[str], list[str]] = ([], [])
    for source in sources:
        held = [name for name in source.tasks if name in (_usual(source) if held_out is None else held_out)]
        parts = _divide(source, held, recipe, seed)
        sizes = (recipe.learning_episodes, recipe.held_out_episodes)
        for episodes, kept, tasks, size in zip((learning, judging), names, parts, sizes, strict=True):
            if tasks:
                fresh = source.dataset in recipe.fresh_optimizer
                episodes.append(source.episodes(tasks, fresh_optimizer=fresh, seed=seed, **size))
                kept.extend(tasks)
    if not (learning and judging):
        raise GRMPError(
            f"Expected tasks to learn from and others to choose a checkpoint by, got {len(names[0])} and "
            f"{len(names[1])}. Add pictures of other distortions, or name others with --held-out."
        )
    content = {source.name: source.content_hash for source in sources}
    return Task(content, *names, ConcatEpisodes(learning), ConcatEpisodes(judging), base, model, seed, output, recipe)


def _usual(source: Source) -> list[str]:
    """Tasks to hold out where nobody names any."""
    return [name for name in HELD_OUT if name in source.tasks] or sorted(source.tasks)[_EVERY - 1 :: _EVERY]


def _divide(
    source: Source, held: Sequence[str], recipe: PretrainRecipe, seed: int
) -> tuple[Mapping[str, Sequence[Any]], Mapping[str, Sequence[Any]]]:
    if not held:
        return source.tasks, {}
    if len(held) == len(source.tasks):
        return {}, source.tasks
    return hold_out_tasks(source.tasks, held, reference_of=source.reference_of, share=recipe.held_out_share, seed=seed)


class _Watch(TrainerCallback):
    """Tells how far training is and what each judgement says, and keeps the judgements."""

    def __init__(self, tell: Callable[[str, float], None], say: Callable[[str], None]) -> None:
        self.tell, self.say = tell, say
        self.judgements: list[dict[str, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.tell("learn", state.global_step / state.max_steps)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Mapping[str, float], **kwargs: Any) -> None:
        self.say(f"step {state.global_step}: held-out loss {metrics['eval_loss']:.4f}, SRCC {metrics['eval_srcc']:.3f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        found = {
            entry["step"]: {"step": entry["step"], "loss": entry["eval_loss"], "srcc": entry["eval_srcc"]}
            for entry in reversed(state.log_history)  # a run that went on has judged where it began once more
            if "eval_loss" in entry
        }
        self.judgements = [found[step] for step in sorted(found)]


def claim(task: Task) -> None:
    """Write down whose checkpoints the folder holds, so that an interrupted run goes on as itself alone.

    Raises:
        GRMPError: it holds those of a run with other settings, and may not be overwritten, or a setting of the recipe
            cannot be trained with.
    """
    check_recipe(task.recipe, use_cpu=_on_cpu(task.base))
    with _processes(task.base).main_process_first():
        task.output.begin(task.about())


def judge(base: Scorer, photographs: Sequence[Picture], *, tell: Callable[[str, float], None]) -> list[float]:
    """Quality of each photograph by the base.

    Every process of ``accelerate launch`` judges its share, in parts that do not depend on their number.

    Args:
        base: without an adapter.
        photographs: as numpy arrays.
        tell: told what is going on and how far this process is.

    Returns:
        In [0, 1], the same in every process.
    """
    processes = _processes(base)
    own = range(processes.process_index * JUDGED, len(photographs), processes.num_processes * JUDGED)
    found: list[tuple[int, list[float]]] = []
    for done, at in enumerate(own, start=1):
        found.append((at, base.score(photographs[at : at + JUDGED]).quality.tolist()))
        tell("judged by the base", done / len(own))
    return [quality for _, part in sorted(gather_object(found)) for quality in part]


def _on_cpu(base: Scorer) -> bool:
    return next(base.model.parameters()).device.type == "cpu"


def _processes(base: Scorer) -> PartialState:
    return PartialState(cpu=_on_cpu(base))


def train(
    task: Task,
    *,
    workers: int,
    tell: Callable[[str, float], None],
    say: Callable[[str], None],
    start: float,
) -> dict[str, Any] | None:
    """Learn, going on from what an interrupted run with the same settings has left, and write everything.

    Every process of ``accelerate launch`` takes part; the first one writes, and the others get None.

    Args:
        task: see `Task`; its base is changed in place.
        workers: processes that load episodes.
        tell: told what is going on and how far it is.
        say: given a line for each judgement.
        start: when the command began, by ``time.monotonic``.

    Returns:
        The content of ``metrics.json``.
    """
    base = cast(GRMPForImageQualityAssessment, task.base.model)
    watch = _Watch(tell, say)
    with writing(task.output.folder):
        model = pretrain(
            base,
            task.episodes,
            task.judging,
            recipe=task.recipe,
            seed=task.seed,
            workers=workers,
            output_dir=task.output.work.folder / "training",
            compute_metrics=_mean_srcc,
            callbacks=[watch],
        )
        if not _processes(task.base).is_main_process:
            return None
        return _finish(task, model, watch.judgements, start)


def _mean_srcc(prediction: Any) -> dict[str, float]:
    """Mean over episodes of the rank correlation of a query's quality and labels."""
    pairs = zip(prediction.predictions, prediction.label_ids, strict=True)
    return {"srcc": float(np.mean([srcc(quality, labels) for quality, labels in pairs]))}


def _finish(task: Task, model: PeftModel, judgements: list[dict[str, float]], start: float) -> dict[str, Any]:
    """Write adapter, card and ``metrics.json``, and put them in their place; remove the checkpoints."""
    folder = task.output.new
    identity, about = task.base.identity, task.about()
    config: Any = model.peft_config[model.active_adapters[0]]
    config.base_model_name_or_path = recorded_name(task.model)
    config.revision = None if identity["revision"].startswith("weights-") else identity["revision"]
    config.target_modules = sorted(config.target_modules)  # a set, which would be written in another order each time
    config.preprocessing = task.base.processor.settings()
    said = {key: value for key, value in about.items() if key not in ("preprocessing", "base_fingerprint")}
    config.provenance = {"stage": "pre-trained", **said, "versions": package_versions()}
    model.save_pretrained(str(folder), save_embedding_layers=False)
    chosen = min(judgements[1:], key=lambda judgement: judgement["loss"])
    metrics = {
        "model": identity["model"],
        "stage": "pre-trained",
        **about,
        "held_out_before": judgements[0],
        "held_out_after": chosen,
        "judgements": judgements,
        "adapter_sha256": adapter_sha256(folder),
        "identity": identity,
        "versions": package_versions(),
        "device": str(next(model.parameters()).device),
        "seconds": round(time.monotonic() - start, 1),
        "peak_memory_mib": peak_memory_mib(),
    }
    write_card(folder, metrics)
    write_json(folder / "metrics.json", metrics)
    task.output.publish()
    return metrics
