"""The work of ``grmp-iqa adapt`` between reading the ratings and printing the result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor

from grmp_hf.cards import write_card
from grmp_hf.cli.writing import COLUMNS, describe_scorer, write_table
from grmp_hf.data import RatedTable, RatingScale, Row, Split
from grmp_hf.data.images import ImageError
from grmp_hf.evaluation.baselines import RidgeModel, fit_ridge
from grmp_hf.evaluation.logistic import ENOUGH, fit_logistic
from grmp_hf.evaluation.metrics import caveats, evaluate_scores
from grmp_hf.evaluation.plots import scatter
from grmp_hf.evaluation.report import format_figure
from grmp_hf.hub import adapter_sha256, package_versions, recorded_name
from grmp_hf.measuring import peak_memory_mib
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.modeling.peft_prompts import check_base, teacher_mode
from grmp_hf.outputs import OutputFolder
from grmp_hf.scoring import Scorer, iter_views
from grmp_hf.storing import write_json, writing
from grmp_hf.training.few_shot import FewShotRecipe, adapt
from grmp_hf.training.starts import read_start

__all__ = ["Results", "Task", "check_start", "finish", "fit_baseline", "score_both", "train"]

_COLUMNS = (*COLUMNS[:5], "rating", "zero_shot", "ridge", *COLUMNS[5:])


@dataclass(frozen=True)
class Task:
    """What is to be learnt, on what, and where it goes.

    Attributes:
        table: the ratings.
        split: which pictures teach and which test.
        base: the scorer without an adapter.
        model: the base as the user named it.
        seed: of the draw and of training.
        output: where the adapter goes.
        recipe: of training.
        start: folder of an adapter whose prompts are where training begins; None to start from the base.
    """

    table: RatedTable
    split: Split
    base: Scorer
    model: str
    seed: int
    output: OutputFolder
    recipe: FewShotRecipe
    start: Path | None = None

    @property
    def start_identity(self) -> dict[str, str] | None:
        """Name and weights' hash of the start."""
        if self.start is None:
            return None
        return {"name": self.start.resolve().name, "adapter_sha256": adapter_sha256(self.start)}

    def settings(self, pixels: Tensor) -> dict[str, Any]:
        """All that decides about the trained weights."""
        identity = self.base.identity
        return {
            "base_fingerprint": identity["base_fingerprint"],
            "data_hash": self.table.content_hash,
            "pixels_hash": hashlib.sha256(pixels.numpy().tobytes()).hexdigest(),
            "preprocessing": identity["preprocessing"],
            "recipe": dataclasses.asdict(self.recipe),
            "seed": self.seed,
            "split_hash": self.split.hash,
            "start": self.start_identity,
        }


def check_start(folder: Path, base: Scorer) -> None:
    """Raise unless a folder holds prompts of a base."""
    check_base(read_start(folder), base.model)


@dataclass
class Results:
    """Test pictures that could be read, in the order of the table, and rows for all of them.

    Attributes:
        rows: of the table of scores, bad pictures among them.
        rating, score, zero_shot, ridge: ``(n_test,)`` each, in the unit of the ratings.
        notes: a sentence for each bad picture.
    """

    rows: list[dict[str, Any]]
    rating: NDArray[np.float64]
    score: NDArray[np.float64]
    zero_shot: NDArray[np.float64]
    ridge: NDArray[np.float64]
    notes: list[str]


def train(task: Task, pixels: Tensor, progress: Callable[[str, float], None]) -> Scorer | None:
    """Train the adapter, going on from what an interrupted run with the same settings has left.

    Every process of ``accelerate launch`` takes part; the first one writes, and the others get None.

    Args:
        task: see :class:`Task`; its base is changed in place.
        pixels: uint8 ``(n, V, 3, S, S)``, in the order of the split's train part.
        progress: told what is going on and how far it is.
    """
    output, work = task.output, task.output.work.folder
    base = cast(GRMPForImageQualityAssessment, task.base.model)
    processes = PartialState(cpu=base.device.type == "cpu")
    with processes.main_process_first():
        output.begin(task.settings(pixels))
    trained = work / "trained.json"  # there if an earlier run ended while it scored
    if trained.is_file() and json.loads(trained.read_text(encoding="utf-8")) == _weights(output.new):
        model = PeftModel.from_pretrained(base, str(output.new))
        return _scorer(task, model) if processes.is_main_process else None
    rows, _ = task.split.select(task.table)
    with writing(output.folder):
        model = adapt(
            base,
            pixels,
            torch.tensor([row.quality for row in rows], dtype=torch.float32),
            mean=task.base.processor.image_mean,
            std=task.base.processor.image_std,
            recipe=task.recipe,
            start=task.start,
            seed=task.seed,
            output_dir=work / "training",
            progress=progress,
        )
        if not processes.is_main_process:
            return None
        _describe(task, model.peft_config[model.active_adapters[0]])
        model.save_pretrained(str(output.new), save_embedding_layers=False)
        write_json(trained, _weights(output.new))
    return _scorer(task, model)


def _weights(output: Path) -> str | None:
    return adapter_sha256(output) if (output / "adapter_model.safetensors").is_file() else None


def _scorer(task: Task, model: PeftModel) -> Scorer:
    name, weights = task.output.folder.resolve().name, adapter_sha256(task.output.new)
    identity = {**task.base.identity, "adapter": name, "adapter_sha256": weights}
    return Scorer(model.eval(), task.base.processor, task.table.scale, identity)


def _describe(task: Task, config: Any) -> None:
    """Write into the adapter's config all that scoring needs and where it comes from."""
    identity = task.base.identity
    config.base_model_name_or_path = recorded_name(task.model)
    config.revision = None if identity["revision"].startswith("weights-") else identity["revision"]
    config.target_modules = sorted(config.target_modules)  # a set, which would be written in another order each time
    config.rating_scale = task.table.scale.to_dict()
    config.preprocessing = task.base.processor.settings()
    config.provenance = {
        **(config.provenance or {}),
        "base": identity["model"],
        "revision": identity["revision"],
        "data": task.table.name,
        "data_hash": task.table.content_hash,
        "split_hash": task.split.hash,
        "split_rule": task.split.rule,
        "shots": len(task.split.train),
        "seed": task.seed,
        "recipe": dataclasses.asdict(task.recipe),
        "start": task.start_identity,
        "versions": package_versions(),
    }


def fit_baseline(scorer: Scorer, pixels: Tensor, taught: Sequence[Row], batch_size: int) -> RidgeModel:
    """Ridge regression on the base's embedding of the pictures that taught.

    Args:
        scorer: with the adapter.
        pixels: views of the pictures, uint8 ``(n, V, 3, S, S)``.
        taught: their rows.
        batch_size: pictures at once.
    """
    parts = [pixels[at : at + batch_size] for at in range(0, len(pixels), batch_size)]
    features = torch.cat([_base_outputs(scorer, part).image_embeds.cpu() for part in parts])
    return fit_ridge(features.numpy(), [row.quality for row in taught])


def score_both(
    scorer: Scorer,
    test: Sequence[Row],
    ridge: RidgeModel,
    batch_size: int,
    advance: Callable[[int], None],
) -> Results:
    """Score the test pictures with the adapter, with its base alone (zero-shot), and by ridge on the base's embedding.

    Args:
        scorer: with the adapter.
        test: pictures that played no part in training.
        ridge: see :func:`fit_baseline`.
        batch_size: pictures at once.
        advance: told how many more are done.
    """
    rows: list[dict[str, Any]] = []
    found_values = [np.empty((0, 3))]
    for chunk in iter_views(test, scorer.views, batch_size=batch_size):
        good = [found for _, found in chunk if isinstance(found, Tensor)]
        values = _three_qualities(scorer, ridge, torch.stack(good)) if good else np.empty((0, 3))
        found_values.append(scorer.unit.to_score(values))
        remaining = iter(values)
        for row, found in chunk:
            rows.append(_table_row(scorer, row, found if isinstance(found, ImageError) else next(remaining)))
        advance(len(chunk))
    scores = np.concatenate(found_values)
    rating = np.array([row["rating"] for row in rows if row["status"] == "ok"])
    notes = [row["message"] for row in rows if row["status"] != "ok"]
    return Results(rows, rating, scores[:, 0], scores[:, 1], scores[:, 2], notes)


def _base_outputs(scorer: Scorer, pixels: Tensor) -> Any:
    """What the base says of views, as if there were no adapter."""
    with teacher_mode(scorer.model):
        return scorer.outputs(pixels)


def _three_qualities(scorer: Scorer, ridge: RidgeModel, pixels: Tensor) -> NDArray[np.float64]:
    """Quality ``(B, 3)`` of views: with the adapter, zero-shot, ridge."""
    base = _base_outputs(scorer, pixels)
    config: Any = cast(PeftModel, scorer.model).active_peft_config
    if config.visual_prompts or config.modules_to_save:
        adapted = scorer.quality(pixels)
    else:  # it changes what is read from the embedding, not the embedding
        with torch.inference_mode():
            adapted = scorer.model(image_embeds=base.image_embeds).quality.double().cpu().numpy()
    by_ridge = ridge.predict(base.image_embeds.double().cpu().numpy())
    return np.stack([adapted, base.quality.double().cpu().numpy(), by_ridge], axis=1)


def _table_row(scorer: Scorer, row: Row, found: NDArray[np.float64] | ImageError) -> dict[str, Any]:
    scored = scorer.row(row.name, found if isinstance(found, ImageError) else float(found[0]))
    others = [None, None] if isinstance(found, ImageError) else scorer.unit.to_score(found[1:]).round(6).tolist()
    extra = {"rating": row.mos, "zero_shot": others[0], "ridge": others[1]}
    return {**scored._asdict(), **extra, "scale": str(scorer.unit), "scorer": describe_scorer(scorer.identity)}


_SCATTER = "scatter.png"


def finish(task: Task, scorer: Scorer, results: Results, report: OutputFolder, start: float) -> dict[str, Any]:
    """Evaluate, write everything but the weights, and put it in its place.

    Args:
        task: see :class:`Task`.
        scorer: with the adapter.
        results: of the test pictures.
        report: where figures, plot and scores go: the task's output, or another folder.
        start: when the command began, by ``time.monotonic``.

    Returns:
        The content of ``metrics.json``.
    """
    metrics = _metrics(task, scorer, results, start)
    output = task.output
    with writing(output.folder):
        task.split.save(output.new / "split.json")
        shown = report is output and metrics["srcc"] is not None
        write_card(output.new, metrics, picture=_SCATTER if shown else None)
    if report is not output:
        report.begin()
    with writing(report.folder):
        about = {key: metrics[key] for key in ("scale", "rating_scale", "scorer", "identity", "failed")}
        write_table(results.rows, "csv", report.new / "scores.csv", about, _COLUMNS)
        if metrics["srcc"] is not None:
            _plot(task, results, metrics, report.new / _SCATTER)
        write_json(report.new / "metrics.json", metrics)
    if report is not output:
        report.publish()
    output.publish()
    return metrics


def _plot(task: Task, results: Results, metrics: dict[str, Any], path: Path) -> None:
    figure = f"SRCC {format_figure(metrics['srcc'], metrics['srcc_interval'])}"
    enough = len(results.rating) >= ENOUGH
    few = "" if enough else f"; too few for a fitted curve ({ENOUGH} are needed)"
    scatter(
        results.score,
        results.rating,
        path,
        scale=_axis(task.table.scale),
        title=f"{metrics['model']}, {metrics['shots']} ratings",
        caption=f"{figure}, {metrics['n_test']} test pictures of {task.table.name}{few}",
        curve=fit_logistic(results.score, results.rating) if enough else None,
    )


def _axis(scale: RatingScale) -> str:
    best = scale.high if scale.higher_is_better else scale.low
    return f"{scale.low:g} to {scale.high:g}{scale.unit and ' ' + scale.unit}, {best:g} = best"


def _metrics(task: Task, scorer: Scorer, results: Results, start: float) -> dict[str, Any]:
    names = ("score", "zero_shot", "ridge")
    figures: dict[str, dict[str, Any]] = {name: {"srcc": None, "srcc_interval": None} for name in names}
    if len(results.rating) >= 2:
        figures = {name: dict(evaluate_scores(getattr(results, name), results.rating)) for name in names}
    shots = len(task.split.train)
    return {
        "model": scorer.identity["model"],
        "revision": scorer.identity["revision"],
        "shots": shots,
        "seed": task.seed,
        "n_test": len(results.rating),
        "failed": len(results.notes),
        **{name: value for name, value in figures["score"].items() if name != "n"},
        "caveats": caveats(results.score, results.rating) if len(results.rating) >= 2 else [],
        "baselines": {"zero_shot": figures["zero_shot"], "ridge": figures["ridge"]},
        "protocol": f"Split: {task.split.rule}; seed {task.seed}. Ratings of test pictures chose nothing.",
        "data": task.table.name,
        "data_hash": task.table.content_hash,
        "split_hash": task.split.hash,
        "adapter_sha256": scorer.identity["adapter_sha256"],
        "recipe": dataclasses.asdict(task.recipe),
        "start": task.start_identity,
        "preprocessing": scorer.identity["preprocessing"],
        "scale": str(scorer.unit),
        "rating_scale": scorer.unit.to_dict(),
        "scorer": describe_scorer(scorer.identity),
        "identity": scorer.identity,
        "versions": package_versions(),
        "device": str(next(scorer.model.parameters()).device),
        "seconds": round(time.monotonic() - start, 1),
        "peak_memory_mib": peak_memory_mib(),
    }
