"""``combine``: adapters that exist already, of any kind, behind one gate."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from grmp_hf.adapter_files import AdapterFiles, adapter_config, choose_adapter
from grmp_hf.data.scales import RatingScale
from grmp_hf.data.splits import Split
from grmp_hf.errors import GRMPError
from grmp_hf.hub import gather
from grmp_hf.learning import check_bare
from grmp_hf.modeling.adapters import copy_base
from grmp_hf.modeling.configuration_grmp import match_views
from grmp_hf.modeling.gating import CLUSTERS, TEMPERATURE, KMeansGate, fit_centers
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor
from grmp_hf.record import EXPERT_NAME, Record
from grmp_hf.saving import adapter_sha256
from grmp_hf.scoring import Scorer
from grmp_hf.scratch import scratch_folder
from grmp_hf.views import all_views

__all__ = ["centers_of", "check_names", "combine", "common_scale", "identified", "seen_by", "taught_by"]

Tell = Callable[[str, float], None]

_RENAME = "Name each one yourself: NAME=PLACE, or the key of a mapping."
_SINGLY = "Experts of one folder keep their names: give them singly, NAME=FOLDER/experts/NAME, with their pictures."
_TOGETHER = 16  # pictures that are embedded at once


def combine(
    base: Scorer,
    adapters: Mapping[str, str | os.PathLike[str]],
    *,
    pictures: Mapping[str, Sequence[Any]] | None = None,
    name: str = "experts",
    clusters: int = CLUSTERS,
    temperature: float = TEMPERATURE,
    seed: int = 0,
    tell: Tell | None = None,
) -> Scorer:
    """Let adapters of one base judge together, each one most where pictures are like those that have taught it.

    The quality of each is that of the nominal range of its own ratings: 0 and 1 are their ends. Scores are on the scale
    of the ratings where it is the same for all, else from 0 to 1.

    >>> import grmp_hf
    >>> from grmp_hf.combining import combine
    >>> pictures = {"people": ["a.jpg", "b.jpg"], "food": ["c.jpg"]}
    >>> both = combine(grmp_hf.load(), {"people": "p", "food": "f"}, pictures=pictures)  # doctest: +SKIP
    >>> both.save("both"), both.score("new.jpg").experts  # doctest: +SKIP

    Args:
        base: without an adapter, that of all of them.
        adapters: name -> folder or Hub id of an adapter. One of experts stands for all of these, under their own names.
        pictures: name -> pictures (rows of a table, or a :data:`~grmp_hf.pictures.Picture`) that have taught an
            adapter, by which its own are known; not needed for those that come with a gate.
        name: what they are called in results.
        clusters, temperature, seed: of the gate; see :mod:`grmp_hf.modeling.gating`.
        tell: told what is done and which share of it is done.

    Raises:
        GRMPError: fewer than two adapters, two of one name, one of another base or that sees pictures differently,
            or one whose pictures nobody names.
    """
    check_bare(base)
    parts, known = _unfold(adapters)
    given = dict(pictures or {})
    _check_pictures(parts, known, given)
    records = {who: Record.of(adapter_config(part)) for who, part in parts.items()}
    scale = common_scale([record.scale for record in records.values()])
    seeing = seen_by(base, next(iter(records.values())))
    placed = KMeansGate({who: known.get(who, torch.zeros(1, _width(base))) for who in parts}, temperature)
    splits = _splits(parts)
    taught = None if splits is None else taught_by(splits)
    origin = {
        "stage": "combined",
        "adapters": {who: _origin(part, records[who]) for who, part in parts.items()},
        "split_hash": None if taught is None else taught.hash,
        "clusters": clusters,
        "temperature": temperature,
        "seed": seed,
    }
    common = Record(scale=scale, provenance=origin)
    model = gather(seeing.model, parts, placed, common)  # refuses what does not belong together, before any picture
    for at, (who, own) in enumerate(given.items()):
        known[who] = centers_of(seeing, own, clusters=clusters, seed=seed)
        if tell is not None:
            tell("look at the pictures of each adapter", (at + 1) / len(given))
    model.gate = KMeansGate({who: known[who] for who in parts}, temperature)
    found = dataclasses.replace(
        seeing, model=model.eval(), scale=None if scale is None else RatingScale.from_dict(scale), taught=taught
    )
    return identified(found, name)


def identified(scorer: Scorer, name: str) -> Scorer:
    """A scorer of experts whose identity says what they are called and which weights they have."""
    with scratch_folder() as folder:
        scorer.save(folder)
        sha256 = adapter_sha256(folder)
    return dataclasses.replace(scorer, identity={**scorer.identity, "adapter": name, "adapter_sha256": sha256})


def common_scale(scales: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """The scale of all experts where they have the same; None, for quality from 0 to 1, where they differ."""
    return scales[0] if all(other == scales[0] for other in scales) else None


def centers_of(base: Scorer, pictures: Iterable[Any], *, clusters: int = CLUSTERS, seed: int = 0) -> Tensor:
    """The centres ``(K, D)`` of pictures as a base sees them; see :func:`~grmp_hf.modeling.gating.fit_centers`.

    Args:
        base: without an adapter.
        pictures: rows of a table, or pictures of any kind.
    """
    parts = [
        base.outputs(pixels).image_embeds.float().cpu()
        for pixels in all_views(pictures, base.views, batch_size=_TOGETHER)
    ]
    embeds = torch.cat(parts) if parts else torch.zeros(0, _width(base))
    return fit_centers(torch.nn.functional.normalize(embeds, dim=-1), clusters, seed=seed)


def seen_by(base: Scorer, record: Record) -> Scorer:
    """A base that sees pictures as an adapter does; the base itself stays what it is."""
    if record.preprocessing is None:
        return base
    processor, model = GRMPImageProcessor(**record.preprocessing), copy_base(cast(Any, base.model))
    match_views(model.config, processor)
    identity = {**base.identity, "preprocessing": processor.settings()}
    return dataclasses.replace(base, model=model.eval(), processor=processor, identity=identity)


def check_names(names: Sequence[str], remedy: str = _RENAME) -> None:
    """Raise for names that experts cannot have, or that two of them have.

    Args:
        names: of all of them.
        remedy: what to do about such a name, for the message.

    Raises:
        GRMPError: such a name, or fewer than two.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    odd = [name for name in names if not EXPERT_NAME.fullmatch(name)]
    if twice or odd:
        raise GRMPError(
            f"Expected names that differ, of letters, digits, - . _, got {', '.join(twice or odd)}"
            f"{' twice' if twice else ''}. {remedy}"
        )
    if len(names) < 2:
        raise GRMPError(f"Expected at least two experts, got {', '.join(names) or 'none'}. One alone needs no gate.")


def _unfold(adapters: Mapping[str, str | os.PathLike[str]]) -> tuple[dict[str, AdapterFiles], dict[str, Tensor]]:
    """Files of every expert, and the centres of those that come with a gate."""
    pairs: list[tuple[str, AdapterFiles]] = []
    known: dict[str, Tensor] = {}
    kept: list[str] = []  # names that nobody can change here
    for name, place in adapters.items():
        files = choose_adapter("default", place, None, False)
        assert files is not None
        pairs += [*files.experts.items()] or [(name, files)]
        kept += files.experts
        if files.experts:
            known |= KMeansGate.load(files.folder, tuple(files.experts)).centers
    check_names([name for name, _ in pairs], _RENAME if len(set(kept)) == len(kept) else _SINGLY)
    return dict(pairs), known


def _check_pictures(parts: Mapping[str, Any], known: Mapping[str, Any], given: Mapping[str, Sequence[Any]]) -> None:
    """Raise where nobody says which pictures have taught an adapter, or says it of one that is not there."""
    unknown = [who for who in given if who not in parts]
    missing = [who for who in parts if who not in known and not given.get(who)]
    if unknown or missing:
        raise GRMPError(
            f"Expected the pictures that have taught {', '.join(missing) or 'these adapters'}, by which its own are "
            f"known, got those of {', '.join(given) or 'none'}; experts are {', '.join(parts)}. Name them: --pictures "
            "NAME=PLACE (pictures=)."
        )


def _splits(parts: Mapping[str, AdapterFiles]) -> dict[str, Split] | None:
    """Which pictures have taught each of them; None where one does not say."""
    found = {}
    for name, part in parts.items():
        own = Split.load_own(part.folder)
        if own is None:
            return None
        found[name] = own
    return found


def taught_by(splits: Mapping[str, Split]) -> Split:
    """Which pictures have taught any of some experts; names of pictures begin with those of the experts."""
    pairs = splits.items()
    train = tuple(f"{name}/{picture}" for name, own in pairs for picture in own.train)
    test = tuple(f"{name}/{picture}" for name, own in pairs for picture in own.test)
    contents = {f"{name}/{picture}": content for name, own in pairs for picture, content in own.contents.items()}
    return Split(train, test, f"those of the experts {', '.join(splits)}", 0, contents)


def _origin(part: AdapterFiles, record: Record) -> dict[str, Any]:
    said = record.provenance or {}
    names = ("data", "data_hash", "shots", "split_hash")
    kept: dict[str, Any] = {name: said[name] for name in names if name in said}
    return {**kept, "scale": record.scale, "adapter_sha256": adapter_sha256(Path(part.folder))}


def _width(base: Scorer) -> int:
    model: Any = base.model
    return int(model.config.clip_config.projection_dim)
