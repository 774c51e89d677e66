"""The ten splits of the authors' published evaluation, derived again from the number of pictures.

Source: LXDxmu/GRMP-IQA, commit b36d254, ``finetune.py``, ``main``; docs/method.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from grmp_hf.data.columns import RatedTable
from grmp_hf.data.splits import Split
from grmp_hf.errors import GRMPError

__all__ = ["PAPER_SEED", "PaperRound", "paper_indices", "paper_splits"]

PAPER_SEED = 2024
"""Seed of numpy's legacy generator, set once before the first round."""


class PaperRound(NamedTuple):
    """Rows of one round, each `(n,)` of int64 in the order in which the published loop has them."""

    picks: NDArray[np.int64]
    pool: NDArray[np.int64]
    test: NDArray[np.int64]


def paper_indices(n: int, shots: int, rounds: int = 10) -> list[PaperRound]:
    """Derive which rows teach and which test in each round of the published evaluation.

    One order of all rows is shuffled in place from round to round and never reset; its first floor(0.8 n) rows are the
    pool, the rest the test part, and the shots are chosen from the pool without replacement. Pools and test parts do
    not depend on the number of shots, and few shots are the beginning of many.

    Args:
        n: rows of the data set: 1,169 for LIVE Challenge, 10,073 for KonIQ-10k.
        shots: 1 to floor(0.8 n).
        rounds: the published loop has ten.

    Raises:
        GRMPError: fewer rows in the pool than shots, or no round.

    Examples:
        >>> first = paper_indices(1169, 50)[0]
        >>> first.picks[:5].tolist(), first.test[:5].tolist(), len(first.pool)
        ([157, 89, 1034, 615, 485], [565, 383, 714, 429, 340], 935)
    """
    size = int(n * 0.8)
    if not 1 <= shots <= size:
        raise GRMPError(f"expected between 1 and {size} shots, 80 of 100 of {n} pictures, got {shots}; ask for fewer")
    if rounds < 1:
        raise GRMPError(f"expected at least one round, got {rounds}; the published evaluation has ten")
    random = np.random.RandomState(PAPER_SEED)
    order = np.arange(n, dtype=np.int64)
    found = []
    for _ in range(rounds):
        random.shuffle(order)
        pool, test = order[:size].copy(), order[size:].copy()
        found.append(PaperRound(random.choice(pool, size=shots, replace=False), pool, test))
    return found


def paper_splits(table: RatedTable, shots: int, rounds: int = 10) -> list[Split]:
    """Split a table as the published evaluation does, round by round; see `paper_indices`.

    The lists are the authors' own where the rows are theirs: all 1,169 of LIVE Challenge, the practice pictures among
    them, or all of KonIQ-10k, in the order of the label file. The published loop splits by picture whatever the
    contents: `Split.rule` says where that puts versions of one content on both sides.

    Args:
        table: rated pictures; its column `split` is not looked at.
        shots: how many teach.
        rounds: how many splits; the first of more are those of fewer.

    Returns:
        `(rounds,)` splits with their pictures in the published order.

    Raises:
        GRMPError: as for `paper_indices`.
    """
    names = [row.name for row in table.rows]
    mixed = f", pictures of one {table.content} on both sides" if table.has(table.content) else ""
    try:
        found = paper_indices(len(names), shots, rounds)
    except GRMPError as error:
        raise GRMPError(f"{table.name}: {error}") from error
    return [
        Split(
            tuple(names[index] for index in part.picks),
            tuple(names[index] for index in part.test),
            f"round {number} of the published evaluation, {shots} of {len(part.pool)} drawn at random{mixed}",
            PAPER_SEED,
        )
        for number, part in enumerate(found, start=1)
    ]
