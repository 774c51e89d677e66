"""Which pictures an adapter has learnt from, found wherever the adapter is, so that they do not test it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from grmp_hf.errors import GRMPError
from grmp_hf.record import SPLIT_FILE, read_experts

if TYPE_CHECKING:
    from grmp_hf.data import Row, Split
    from grmp_hf.scoring import Scorer

__all__ = ["Found", "leave_out_taught", "split_of_scorer", "split_of_scores"]

Found: TypeAlias = "tuple[Split | None, list[str]]"
"""A split, None where there is none, and what to say of it."""

_UNKNOWN = "whether it has learnt from these pictures is not known, and none is left out"


def split_of_scorer(scorer: Scorer) -> Found:
    """The split of a scorer; nothing to say of a base, which has learnt from no ratings."""
    adapter = scorer.identity["adapter"] or scorer.origin.get("baked_from", {}).get("adapter")
    experts = getattr(scorer.model, "names", ())
    return (None, []) if adapter is None else _found(scorer.taught, f"adapter {adapter}", experts)


def split_of_scores(about: Mapping[str, Any] | None, given: str | None, places: Iterable[Path]) -> Found:
    """The split of the adapter that has given a table of scores.

    Args:
        about: ``adapter``, its name, and ``adapter_sha256``, or the beginning of it; nothing for a base; None where
            the table does not say who has scored.
        given: where the user says that the adapter is.
        places: other folders where it may lie; one counts if it holds the same weights.

    Raises:
        GRMPError: another adapter is where the user says that it is.
    """
    if about is None:
        who = "whoever has given the scores is not named in their table"
        return _read_split(Path(given), f"adapter {given}") if given else (None, [f"{who}: {_UNKNOWN}"])
    if not about.get("adapter"):
        return None, []
    who, wanted = f"adapter {about['adapter']}, which has given the scores", str(about["adapter_sha256"])
    for folder in [Path(given)] if given else places:
        found = _weights_sha256(folder)
        if found is not None and found.startswith(wanted):
            return _read_split(folder, who)
    if given:
        raise GRMPError(
            f"--adapter {given}: expected the adapter that has given the scores, {about['adapter']} with weights "
            f"{wanted[:12]}, found another one or none; name its folder, or leave --adapter out"
        )
    return None, [f"{who}, is not found here (--adapter DIR says where it is): {_UNKNOWN}"]


def leave_out_taught(rows: Sequence[Row], split: Split, where: str) -> tuple[list[Row], list[str]]:
    """Rows whose pictures have not taught, told by their content, and notes on those that are left out.

    Where a picture cannot be read, or the split is of an earlier version and knows no contents, the name decides.

    Raises:
        GRMPError: none is left.
    """
    from grmp_hf.data.identity import KnownPictures, name_parts

    names, known = {name_parts(name) for name in split.train}, KnownPictures(split.contents.values())
    kept: list[Row] = []
    unread = 0
    for row in rows:
        taught = known.holds(row.image) if split.contents else None
        unread += taught is None
        if taught is None:
            taught = name_parts(row.name) in names
        if not taught:
            kept.append(row)
    left = len(rows) - len(kept)
    if not kept:
        raise GRMPError(
            f"{where}: expected pictures that the adapter has not learnt from, got {left} from which it has; "
            "give other ratings"
        )
    notes = [f"{left} pictures are left out: the adapter has learnt from them"] if left else []
    if not split.contents:
        notes.append(f"{SPLIT_FILE} is of an earlier version and tells pictures by name alone")
    elif unread:
        notes.append(f"{unread} pictures cannot be read here: whether they have taught is told by name alone")
    return kept, notes


def _read_split(folder: Path, who: str) -> Found:
    from grmp_hf.data import Split

    split = Split.load_own(folder)
    return _found(split, who, (read_experts(folder) or {}).get("experts", ()))


def _found(split: Split | None, who: str, experts: Collection[str]) -> Found:
    """The split, in which pictures have the names of their table: among experts each begins with the expert's own."""
    if split is None:
        return None, [f"{who}: has no {SPLIT_FILE} of its own run beside it: {_UNKNOWN}"]
    parted = [(name, *name.partition("/")) for name in split.train]
    train = tuple(rest if slash and first in experts else name for name, first, slash, rest in parted)
    return dataclasses.replace(split, train=train), []


def _weights_sha256(folder: Path) -> str | None:
    from grmp_hf.saving import adapter_sha256

    try:
        return adapter_sha256(folder)
    except (OSError, GRMPError):
        return None
