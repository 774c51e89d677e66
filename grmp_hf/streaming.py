"""``learn_stream``: one data set after the other, and what is learnt and kept of them.

A step is one data set. What it has learnt is on disk before the next one begins, and the next one begins with what is
on disk: a run that was killed goes on there, and ends as if it had not been.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from grmp_hf.adapter_files import AdapterFiles, adapter_config
from grmp_hf.claims import WorkFolder
from grmp_hf.combining import centers_of, check_names, common_scale, identified, taught_by
from grmp_hf.data import RatedTable, Row, Split, draw_shots, random_split, split_rows
from grmp_hf.data.identity import first_copies
from grmp_hf.data.scales import RatingScale
from grmp_hf.data.splits import own_parts
from grmp_hf.errors import GRMPError
from grmp_hf.hub import attach
from grmp_hf.judging import Judge, Judged, judge_tests
from grmp_hf.learning import check_bare, processes_of, working
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.experts import Experts
from grmp_hf.modeling.gating import KMeansGate, need_clustering
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.record import Record
from grmp_hf.scoring import Scorer
from grmp_hf.storing import TEMPORARY, is_first_process
from grmp_hf.teaching import rated_pictures
from grmp_hf.training.expert_fitting import Held, begin, fisher, learn, trained_weights
from grmp_hf.training.stream_recipe import StreamRecipe

__all__ = ["Stream", "learn_stream", "shared_tests", "stream_split"]

Tell = Callable[[str, float], None]

_LEARNT, _BESIDE = "trained", "beside.safetensors"
_SHARE = 0.8  # of a data set that marks no test part, and of which no number is asked for: it teaches
_CENTERS, _START, _WEIGHT = "centers", "start.", "weight."


class Stream(NamedTuple):
    """What a stream gives.

    Attributes:
        scorer: of all experts.
        judged: what each step says of the test pictures, with the figures.
        trained_weights: of an adapter, its heads left out.
    """

    scorer: Scorer
    judged: Judged
    trained_weights: int


@dataclass(frozen=True)
class _Set:
    """One data set: its name, table and split, and the rows of both parts."""

    name: str
    table: RatedTable
    split: Split
    train: Sequence[Row]
    test: Sequence[Row]


def stream_split(table: RatedTable, shots: int | None, seed: int) -> Split:
    """Which pictures of a data set teach and which test: as its column says, or ``shots`` of them, or four of five.

    Raises:
        GRMPError: as for :func:`~grmp_hf.data.split_rows`, or fewer than two pictures on one side.
    """
    rows, marked = own_parts(table)
    if shots is None and not marked:
        split = random_split(dataclasses.replace(table, rows=tuple(rows)), train_share=_SHARE, seed=seed)
    else:
        split = split_rows(table, shots=shots, seed=seed)
    if min(len(split.train), len(split.test)) < 2:
        remedy = "rate more"
        if shots is not None and len(split.train) < 2:
            remedy = "let more teach (--shots)"
        elif marked:
            remedy = "mark more of either part"
        elif len(split.train) > 2:
            remedy = "rate more, or let fewer teach (--shots)"
        raise GRMPError(
            f"{table.name}: expected at least two pictures that teach and two that test, got {len(split.train)} and "
            f"{len(split.test)}; {remedy}"
        )
    return split


def shared_tests(tables: Mapping[str, RatedTable], *, shots: int | None = None, seed: int = 0) -> dict[str, int]:
    """Name -> how many test pictures of a data set teach another one, by content; arguments as of `learn_stream`."""
    parts = {name: stream_split(table, shots, seed).select(table) for name, table in tables.items()}
    rows = [(name, at == 0, row.image) for name, both in parts.items() for at, part in enumerate(both) for row in part]
    first = first_copies([image for *_, image in rows])
    taught = {(at, name) for at, (name, teaches, _) in zip(first, rows, strict=True) if teaches}
    found = dict.fromkeys(tables, 0)
    for at, (name, teaches, _) in zip(first, rows, strict=True):
        found[name] += not teaches and any((at, other) in taught for other in tables if other != name)
    return found


def learn_stream(
    scorer: Scorer,
    tables: Mapping[str, RatedTable],
    *,
    recipe: StreamRecipe | str | Path | None = None,
    shots: int | None = None,
    seed: int = 0,
    name: str = "stream",
    work: WorkFolder | None = None,
    tell: Tell | None = None,
) -> Stream:
    """Learn one data set after the other.

    >>> import grmp_hf
    >>> from grmp_hf.streaming import learn_stream
    >>> sets = {"people": grmp_hf.read_ratings("p"), "food": grmp_hf.read_ratings("f")}  # doctest: +SKIP
    >>> found = learn_stream(grmp_hf.load(), sets)  # doctest: +SKIP
    >>> found.scorer.save("both"), found.judged.report()["figures"]  # doctest: +SKIP

    Every process of ``accelerate launch`` takes part and gets the same.

    Args:
        scorer: without an adapter; it stays what it is, and its weights are shared, not copied.
        tables: name -> rated pictures, in the order in which they are learnt.
        recipe: what is trained and how, or the name of a recipe inside the package, or a file of YAML.
        shots: how many pictures of each teach; None for :func:`stream_split`'s choice.
        seed: of splits, training and the gate; the result is a function of the arguments alone.
        name: what the experts are called in results.
        work: where an interrupted run is kept, so that the same call goes on with it; None keeps nothing.
        tell: told what is being done and which share of it is done.

    Raises:
        GRMPError: a scorer that has an adapter, fewer than two data sets, a name that no expert can have, or pictures
            or ratings that cannot be learnt from.
    """
    check_bare(scorer)
    check_names([*tables])
    recipe = StreamRecipe.named(recipe).settled(scorer.device)
    sets = [_set(who, table, shots, seed) for who, table in tables.items()]
    if any(len(one.train) > recipe.clusters for one in sets):
        need_clustering()
    decides = {
        **scorer.about_base,
        "sets": {one.name: [one.table.content_hash, one.split.hash, *one.split.contents.values()] for one in sets},
        "scales": {one.name: one.table.scale.to_dict() for one in sets},
        "order": [one.name for one in sets],
        "seed": seed,
        "recipe": dataclasses.asdict(recipe),
    }
    with working(scorer, work, decides) as folder:
        run = _Run(scorer, sets, recipe, seed, folder, tell or _silent)
        steps = run.steps()
        gate = KMeansGate({one.name: run.centers(at) for at, one in enumerate(sets)}, recipe.temperature)
        tests = {one.name: one.test for one in sets}
        judged = judge_tests(scorer, _judge(steps, recipe), gate, tests, run.folder, run.tell)
        found = identified(run.gathered(steps, gate), name)
    return Stream(found, judged, run.trained_weights())


def _judge(steps: Mapping[int, PeftModel], recipe: StreamRecipe) -> Judge:
    """What each step says: experts each for itself, or the axes of an adapter with several."""

    def judge(pixels: Tensor) -> dict[int, Tensor]:
        if recipe.method == "experts":
            said = [steps[at](pixel_values=pixels).quality for at in sorted(steps)]
            return {at: torch.stack(said[: at + 1], dim=-1) for at in steps}
        found = {}
        for at, model in steps.items():
            head: Any = model.get_base_model().head
            own = head.modules_to_save["default"]
            found[at] = own.qualities(model(pixel_values=pixels).means)
        return found

    return judge


def _set(name: str, table: RatedTable, shots: int | None, seed: int) -> _Set:
    split = stream_split(table, shots, seed)
    train, test = split.select(table)
    return _Set(name, table, split.with_contents(train), train, test)


@dataclass(frozen=True)
class _Run:
    """A stream in a folder of working files."""

    scorer: Scorer
    sets: Sequence[_Set]
    recipe: StreamRecipe
    seed: int
    work: Path
    tell: Tell

    @property
    def folder(self) -> Path:
        """Of what is learnt."""
        return self.work / _LEARNT

    @property
    def base(self) -> GRMPForImageQualityAssessment:
        """The model that all adapters are put around."""
        return cast(GRMPForImageQualityAssessment, self.scorer.model)

    def steps(self) -> dict[int, PeftModel]:
        """Learn what is not learnt yet; the adapted model after each step, as it is on disk."""
        joint, found = self.recipe.method == "joint", dict[int, PeftModel]()
        for at in [len(self.sets) - 1] if joint else range(len(self.sets)):
            if not self._place(at).is_dir():
                self._learn(at, found.get(at - 1) if self.recipe.continual else None)
            found[at] = self._load(at)
        return found

    def _place(self, at: int) -> Path:
        return self.folder / f"step-{at}"

    def _load(self, at: int) -> PeftModel:
        files = AdapterFiles(self._place(at), self.sets[at].name, None)
        return attach(copy_base(self.base), files, adapter_config(files)).eval()

    def _rows(self, at: int) -> tuple[list[Row], Tensor]:
        """What teaches a step, and the number of the data set of each row among the axes of its head."""
        if self.recipe.method == "experts":
            return list(self.sets[at].train), torch.zeros(len(self.sets[at].train), dtype=torch.long)
        parts = [self._kept(number, at) for number in range(at)] + [list(self.sets[at].train)]
        numbers = [number for number, part in enumerate(parts) for _ in part]
        return [row for part in parts for row in part], torch.tensor(numbers)

    def _kept(self, number: int, at: int) -> list[Row]:
        """The pictures of an earlier data set that are learnt from again, drawn once: fewer with every step."""
        own = self.sets[number].train
        if self.recipe.method == "joint":
            return list(own)
        count = min(self.recipe.memory // at, len(own))
        if count < 2:  # one has no pair
            return []
        return [own[index] for index in draw_shots(len(own), count, seed=self.seed)]

    def _learn(self, at: int, before: PeftModel | None) -> None:
        """Learn a data set, and put all that is needed of it into its place at once."""
        one, recipe = self.sets[at], self.recipe
        rows, numbers = self._rows(at)
        pictures = rated_pictures(self.scorer, rows)
        heads = 1 if recipe.method == "experts" else at + 1
        model = begin(self.base, recipe, heads, seed=self.seed, before=before)
        held = self._held(at - 1) if recipe.method == "ewc" and at else None
        new = range(heads) if recipe.method == "joint" else [heads - 1]
        learn(
            model,
            pictures,
            numbers,
            new,
            recipe=recipe,
            seed=self.seed,
            output_dir=self.work / "training",
            before=before if recipe.method == "distillation" else None,
            held=held,
            progress=lambda what, share: self.tell(f"{one.name}: {what}", share),
        )
        beside: dict[str, Tensor] = {}
        if recipe.method == "ewc":
            weights = fisher(model, pictures, numbers, recipe, self.seed)
            earlier = {} if held is None else held.weights
            known = dict(model.named_parameters())
            for key, found in weights.items():
                beside[f"{_WEIGHT}{key}"] = found + earlier.get(key, torch.zeros_like(found))
                beside[f"{_START}{key}"] = known[key].detach().cpu().contiguous()
        for number in range(len(self.sets)) if recipe.method == "joint" else [at]:
            own = centers_of(self.scorer, self.sets[number].train, clusters=recipe.clusters, seed=self.seed)
            beside[f"{_CENTERS}{number}"] = own
        self._save(at, model, beside)

    def _save(self, at: int, model: PeftModel, beside: Mapping[str, Tensor]) -> None:
        one, place = self.sets[at], self._place(at)
        if is_first_process() and not place.is_dir():
            part = self.folder / f"{TEMPORARY}{place.name}"
            shutil.rmtree(part, ignore_errors=True)  # of a run that was killed here
            _say(model.active_peft_config, one, self._origin())
            dataclasses.replace(self.scorer, model=model, scale=one.table.scale, taught=one.split).save(part)
            save_file(dict(beside), part / _BESIDE)
            part.replace(place)
        processes_of(self.scorer).wait_for_everyone()

    def _beside(self, at: int) -> dict[str, Tensor]:
        return load_file(self._place(at) / _BESIDE)

    def centers(self, at: int) -> Tensor:
        """Of the pictures that have taught a data set."""
        step = len(self.sets) - 1 if self.recipe.method == "joint" else at
        return self._beside(step)[f"{_CENTERS}{at}"]

    def _held(self, at: int) -> Held:
        kept = self._beside(at)
        start, weights = (
            {key.removeprefix(word): value for key, value in kept.items() if key.startswith(word)}
            for word in (_START, _WEIGHT)
        )
        return Held(start, weights)

    def gathered(self, steps: Mapping[int, PeftModel], gate: KMeansGate) -> Scorer:
        """All experts behind their gate; of one adapter with several axes, one for each."""
        experts: dict[str, PeftModel] = {}
        for at, one in enumerate(self.sets):
            model = steps[at] if self.recipe.method == "experts" else self._load(len(self.sets) - 1)
            if self.recipe.method != "experts":
                head: Any = model.get_base_model().head
                head.modules_to_save["default"].judge = at
            config: Any = model.active_peft_config
            _say(config, one, dict(Record.of(config).provenance or {}))
            experts[one.name] = model
        taught = taught_by({one.name: one.split for one in self.sets})
        scale = common_scale([one.table.scale.to_dict() for one in self.sets])
        counts = {one.name: {"data_hash": one.table.content_hash, "shots": len(one.train)} for one in self.sets}
        origin = {**self._origin(), "sets": counts, "split_hash": taught.hash}
        common = dataclasses.replace(Record.of(config), head=None, scale=scale, provenance=origin)
        model = Experts(self.base, experts, gate, common)
        unit = None if scale is None else RatingScale.from_dict(scale)
        return dataclasses.replace(self.scorer, model=model.eval(), scale=unit, taught=taught)

    def _origin(self) -> dict[str, Any]:
        return {"stage": "stream", "seed": self.seed, "recipe": dataclasses.asdict(self.recipe)}

    def trained_weights(self) -> int:
        """Of an adapter, its heads left out."""
        return trained_weights(begin(self.base, self.recipe, 1, seed=self.seed))


def _say(config: Any, one: _Set, origin: dict[str, Any]) -> None:
    """Let the record of an adapter hold the scale of a data set's ratings, and which pictures have taught it."""
    said = {"data": one.name, "data_hash": one.table.content_hash, "shots": len(one.train)}
    origin = {**origin, **said, "split_hash": one.split.hash}
    dataclasses.replace(Record.of(config), scale=one.table.scale.to_dict(), provenance=origin).attach(config)


def _silent(*_: Any) -> None:
    """Tell nobody."""
