"""What a scorer learns: ``adapt`` from a few rated pictures, ``pretrain`` a start for it from many tasks."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from peft import PeftModel
from transformers import TrainerCallback

from grmp_hf.claims import WorkFolder
from grmp_hf.data import RatedTable, Split, relative_noise, split_rows
from grmp_hf.data.distortions import Pixels
from grmp_hf.embedded import find_start
from grmp_hf.errors import GRMPError
from grmp_hf.evaluation.metrics import srcc
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.bases import check_base
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.record import Record
from grmp_hf.saving import adapter_sha256, named_base, save
from grmp_hf.scoring import Scorer
from grmp_hf.scratch import scratch_folder
from grmp_hf.storing import TEMPORARY, writing
from grmp_hf.tasks import Source, Tasks, divide
from grmp_hf.teaching import compare_rows, rated_pictures
from grmp_hf.training import few_shot, pretraining
from grmp_hf.training.recipes import FewShotRecipe, PretrainRecipe
from grmp_hf.training.starts import read_start

__all__ = ["JUDGED", "Pretrained", "adapt", "check_bare", "judge", "pretrain", "processes_of", "working"]

Tell = Callable[[str, float], None]
"""Told what is being done and which share of it is done."""
JUDGED = 64
"""Photographs that a process judges at once."""

_TRAINED = "trained"  # folder of the adapter of a run that ended while its results were being looked at


def adapt(
    scorer: Scorer,
    table: RatedTable,
    *,
    shots: int | Split | None = None,
    seed: int = 0,
    recipe: FewShotRecipe | str | Path | None = None,
    start: str | Path | None = None,
    name: str | None = None,
    work: WorkFolder | None = None,
    tell: Tell | None = None,
) -> Scorer:
    """Learn a taste from rated pictures.

    >>> import grmp_hf
    >>> scorer = grmp_hf.adapt(grmp_hf.load(), grmp_hf.read_ratings("photos"), shots=50)  # doctest: +SKIP
    >>> scorer.save("my-adapter"), scorer.score("new.jpg")  # doctest: +SKIP

    Every process of ``accelerate launch`` takes part and gets the same.

    Args:
        scorer: without an adapter; it stays what it is, and its weights are shared, not copied.
        table: of rated pictures. Where it holds ``mos_std`` or ``votes``, surer ratings count more
            (:func:`~grmp_hf.data.relative_noise`), under recipes that map features.
        shots: how many of them teach, drawn by :func:`~grmp_hf.data.split_rows`, or a split that was drawn before; None
            for all but those that the table marks as test.
        seed: of the draw and of training; the result is a function of the arguments alone.
        recipe: what is trained and how, or the name of a recipe inside the package, or a file of YAML.
        start: folder of an adapter of the same base, such as :func:`pretrain` makes; "package" for the prompts inside
            the package, where they are the base's; None to start from the base.
        name: what the adapter is called in results; None for the name of the table.
        work: where an interrupted run is kept, so that the same call goes on with it; None keeps nothing.
        tell: see :data:`Tell`.

    Returns:
        A scorer with the adapter, on the scale of the ratings.

    Raises:
        GRMPError: a scorer that has an adapter, fewer pictures than shots, ratings that are all alike, a picture among
            the shots that cannot be read, or a start or recipe that does not fit.
    """
    check_bare(scorer)
    begun = find_start(start, scorer.identity["model"])
    if begun is not None:
        check_base(read_start(begun), scorer.model)
    recipe = FewShotRecipe.named(recipe).settled(scorer.device)
    split = shots if isinstance(shots, Split) else split_rows(table, shots=shots, seed=seed)
    rows, _ = split.select(table)
    split = split.with_contents(rows)
    origin = _origin(table, split, seed, recipe, begun)
    noise = relative_noise(rows, table.scale)
    decides = {**scorer.about_base, **origin, "scale": table.scale.to_dict(), "contents": [*split.contents.values()]}
    if noise is not None:
        decides["noise"] = noise.tolist()
    compared = compare_rows(table, rows) if recipe.objective == "fidelity" else None
    if compared is not None:
        decides["compared"] = compared.digest()
    with working(scorer, work, decides) as folder:
        if not (folder / _TRAINED).is_dir():
            model = few_shot.adapt(
                cast(GRMPForImageQualityAssessment, scorer.model),
                rated_pictures(scorer, rows),
                noise=None if noise is None else torch.from_numpy(noise),
                recipe=recipe,
                start=begun,
                seed=seed,
                output_dir=folder / "training",
                progress=tell,
                compared=compared,
            )
            said = {"data": table.name, "shots": len(rows), "split_rule": split.rule}
            _keep(dataclasses.replace(scorer, model=model, scale=table.scale, taught=split), {**origin, **said}, folder)
        return _trained(dataclasses.replace(scorer, scale=table.scale, taught=split), name or table.name, folder)


class Pretrained(NamedTuple):
    """What pre-training gives.

    Attributes:
        scorer: with the prompts of the best checkpoint.
        judgements: step, loss and SRCC on the held-out tasks after adaptation, the first before any learning.
    """

    scorer: Scorer
    judgements: list[dict[str, float]]

    @property
    def chosen(self) -> dict[str, float]:
        """The judgement of the best checkpoint."""
        return min(self.judgements[1:], key=lambda judgement: judgement["loss"])


def pretrain(
    scorer: Scorer,
    sources: Sequence[Source],
    *,
    held_out: Sequence[str] | None = None,
    seed: int = 0,
    recipe: PretrainRecipe | str | Path | None = None,
    name: str = "pre-trained",
    work: WorkFolder | None = None,
    workers: int = 0,
    tell: Tell | None = None,
    say: Callable[[str], None] | None = None,
) -> Pretrained:
    """Learn prompts, from many tasks, that a few rated pictures are enough to adapt.

    Every process of ``accelerate launch`` takes part and gets the same.

    Args:
        scorer: without an adapter; it stays what it is, and its weights are shared, not copied.
        sources: see :mod:`grmp_hf.tasks`.
        held_out, seed: see :func:`~grmp_hf.tasks.divide`.
        recipe: of episodes and training, or the name of a recipe inside the package, or a file of YAML.
        name: what the adapter is called in results.
        work: where an interrupted run is kept, so that the same call goes on with it; None keeps nothing.
        workers: processes that load pictures.
        tell: see :data:`Tell`.
        say: given a line for each thing worth knowing.

    Raises:
        GRMPError: a scorer that has an adapter, or tasks or a recipe that cannot be trained with.
    """
    check_bare(scorer)
    recipe = PretrainRecipe.named(recipe).settled(scorer.device)
    tasks = divide(sources, recipe, held_out=held_out, seed=seed)
    pretraining.check_recipe(recipe, use_cpu=scorer.device.type == "cpu")
    origin = _task_origin(tasks, seed, recipe)
    tell, say = tell or _silent, say or _silent
    with working(scorer, work, {**scorer.about_base, **origin}) as folder:
        say(f"{len(tasks.learning)} tasks to learn from; held out: {', '.join(tasks.held_out)}")
        if recipe.judge_photographs:  # which takes minutes: after all that may be refused
            judged = [source.judged(functools.partial(judge, scorer, tell=tell)) for source in sources]
            tasks = divide(judged, recipe, held_out=held_out, seed=seed)
        watch = _Watch(tell, say)
        model = pretraining.pretrain(
            cast(GRMPForImageQualityAssessment, scorer.model),
            tasks.episodes,
            tasks.judging,
            recipe=recipe,
            seed=seed,
            workers=workers,
            output_dir=folder / "training",
            compute_metrics=_mean_srcc,
            callbacks=[watch],
        )
        _keep(dataclasses.replace(scorer, model=model), {"stage": "pre-trained", **origin}, folder)
        return Pretrained(_trained(scorer, name, folder), watch.judgements)


def check_bare(scorer: Scorer, how: str = "--model, or grmp_hf.load of it") -> None:
    """Raise for a scorer that is no base.

    Args:
        scorer: that is to learn.
        how: a base is named where the scorer was, for the message.

    Raises:
        GRMPError: it has an adapter, or is a baked one.
    """
    if not hasattr(scorer.model, "config"):
        raise GRMPError(
            f"Expected a base to learn on, got {type(scorer.model).__name__}, which is none of a CLIP. Take what "
            "grmp_hf.load gives."
        )
    if not isinstance(scorer.model, GRMPForImageQualityAssessment):
        raise GRMPError(
            f"Expected a base to learn on, got {scorer.identity['adapter'] or 'a baked scorer'}, which has learnt "
            f"already. Name its base, {named_base(scorer)} ({how})."
        )


def judge(scorer: Scorer, photographs: Sequence[Pixels], *, tell: Tell) -> list[float]:
    """Quality in [0, 1] of each photograph, the same in every process; each judges its share.

    Parts do not depend on the number of processes.

    Args:
        scorer: judges.
        photographs: as arrays.
        tell: see :data:`Tell`.
    """
    processes = processes_of(scorer)
    own = range(processes.process_index * JUDGED, len(photographs), processes.num_processes * JUDGED)
    found: list[tuple[int, list[float]]] = []
    for done, at in enumerate(own, start=1):
        found.append((at, scorer.score(photographs[at : at + JUDGED]).quality.tolist()))
        tell("judged by the base", done / len(own))
    return [quality for _, part in sorted(gather_object(found)) for quality in part]


def processes_of(scorer: Scorer) -> PartialState:
    """The processes of this run, on the kind of device that a scorer is on."""
    return PartialState(cpu=scorer.device.type == "cpu")


@contextmanager
def working(scorer: Scorer, work: WorkFolder | None, settings: Mapping[str, Any]) -> Iterator[Path]:
    """The folder of an unfinished run with these settings, or a new one; without ``work``, one that goes in the end."""
    processes = processes_of(scorer)
    if work is not None:
        with processes.main_process_first(), writing(work.what):
            work.begin(settings)
        with writing(work.what):
            yield work.folder
        return
    with scratch_folder() as own:
        shared = [str(own)]
        broadcast_object_list(shared)
        yield Path(shared[0])
        processes.wait_for_everyone()


def _origin(table: RatedTable, split: Split, seed: int, recipe: FewShotRecipe, start: Path | None) -> dict[str, Any]:
    """What has taught, and how, as JSON values."""
    begun = start and {"name": start.resolve().name, "adapter_sha256": adapter_sha256(start)}
    return {
        "data_hash": table.content_hash,
        "split_hash": split.hash,
        "seed": seed,
        "recipe": dataclasses.asdict(recipe),
        "start": begun,
    }


def _task_origin(tasks: Tasks, seed: int, recipe: PretrainRecipe) -> dict[str, Any]:
    found = {
        "sources": dict(tasks.contents),
        "data_hash": tasks.data_hash,
        "tasks": tasks.learning,
        "held_out": tasks.held_out,
        "seed": seed,
        "recipe": dataclasses.asdict(recipe),
    }
    return cast(dict[str, Any], json.loads(json.dumps(found)))


def _keep(scorer: Scorer, origin: Mapping[str, Any], folder: Path) -> None:
    """Save what was learnt, by the first process, so that it is there whole or not at all."""
    if processes_of(scorer).is_main_process and not (folder / _TRAINED).is_dir():
        config: Any = cast(PeftModel, scorer.model).active_peft_config
        record = Record.of(config)
        dataclasses.replace(record, provenance={**(record.provenance or {}), **origin}).attach(config)
        part = folder / f"{TEMPORARY}{_TRAINED}"
        shutil.rmtree(part, ignore_errors=True)  # of a run that was killed here
        save(scorer, part)
        part.replace(folder / _TRAINED)
    processes_of(scorer).wait_for_everyone()


def _trained(base: Scorer, name: str, folder: Path) -> Scorer:
    """The scorer with the adapter that was kept: what it scores is what the saved adapter scores."""
    place = folder / _TRAINED
    model = PeftModel.from_pretrained(copy_base(base.model), str(place))
    identity = {**base.identity, "adapter": name, "adapter_sha256": adapter_sha256(place)}
    return dataclasses.replace(base, model=model.eval(), identity=identity)


def _mean_srcc(prediction: Any) -> dict[str, float]:
    """Mean over episodes of the rank correlation of a query's quality and labels."""
    found = map(srcc, prediction.predictions, prediction.label_ids)
    return {"srcc": float(np.mean(list(found)))}


def _silent(*_: Any) -> None:
    """Tell nobody."""


class _Watch(TrainerCallback):
    """Tells how far training is and what each judgement says, and keeps the judgements."""

    def __init__(self, tell: Tell, say: Callable[[str], None]) -> None:
        self.tell, self.say, self.judgements = tell, say, list[dict[str, float]]()

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
