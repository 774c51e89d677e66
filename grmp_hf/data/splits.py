"""Which pictures teach and which test: official parts, few-shot draws, random splits and folds, functions of a seed.

Permutations come from numpy's `RandomState`, whose stream is frozen for good (numpy enhancement proposal 19); that of
the newer generators may change from release to release.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grmp_hf.data.columns import RatedTable, Row, first_few
from grmp_hf.data.grouping import SplitUnit, about_copies, check_apart, first_name, groups_of, unit_of
from grmp_hf.data.identity import content_id
from grmp_hf.errors import GRMPError
from grmp_hf.record import SPLIT_FILE, origin_of

__all__ = [
    "Split",
    "SplitUnit",
    "draw_shots",
    "fold_splits",
    "official_split",
    "own_parts",
    "random_split",
    "split_rows",
]


@dataclass(frozen=True)
class Split:
    """Names of the pictures that teach and of those that test.

    Attributes:
        train: in the order drawn, so that the first k are the draw of k.
        test: in the order of the table; empty when all pictures teach.
        rule: one sentence on how it was made.
        seed: of everything random in it.
        contents: name -> `content_id` of pictures that teach, by which they are known wherever they lie; may be empty.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    rule: str
    seed: int
    contents: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __repr__(self) -> str:
        return f"Split({len(self.train)} teach, {len(self.test)} test; {self.rule}; seed {self.seed})"

    @property
    def hash(self) -> str:
        """SHA-256, in hexadecimal, of the sorted names of each part: the same on every machine and for every order."""
        parts = [sorted(unicodedata.normalize("NFC", name) for name in part) for part in (self.train, self.test)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def select(self, table: RatedTable) -> tuple[list[Row], list[Row]]:
        """Return the rows of both parts, in their order.

        Raises:
            GRMPError: the table lacks some of the names, or a picture is in the split twice.
        """
        twice = [f'"{name}"' for name, count in Counter((*self.train, *self.test)).items() if count > 1]
        if twice:
            raise GRMPError(
                f"{table.name}: expected each picture in one part of the split, once, got {len(twice)} more often: "
                f"{first_few(twice)}; make the split again"
            )
        rows = {row.name: row for row in table.rows}
        absent = [f'"{name}"' for name in (*self.train, *self.test) if name not in rows]
        if absent:
            raise GRMPError(
                f"{table.name}: expected the pictures of the split, {len(absent)} are not in the table: "
                f"{first_few(absent)}; use the split with the table that it was made from"
            )
        return [rows[name] for name in self.train], [rows[name] for name in self.test]

    def with_contents(self, rows: Iterable[Row]) -> Split:
        """The same, with the contents of the pictures that teach, of those rows that can be read."""
        taught = set(self.train)
        found = {row.name: content_id(row.image) for row in rows if row.name in taught}
        return replace(self, contents={name: content for name, content in found.items() if content is not None})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the split and its hash as JSON."""
        fields = {"rule": self.rule, "seed": self.seed, "hash": self.hash, "train": self.train, "test": self.test}
        fields["contents"] = dict(self.contents)
        Path(path).write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Split:
        """Read what `save` wrote; files of earlier versions hold no contents.

        Raises:
            GRMPError: the file is missing, of another form, or was changed by hand.
        """
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
            train, test = (tuple(map(str, fields[part])) for part in ("train", "test"))
            contents = {str(name): str(content) for name, content in dict(fields.get("contents", {})).items()}
            split = cls(train, test, str(fields["rule"]), int(fields["seed"]), contents)
            written = fields["hash"]
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise GRMPError(
                f"{path}: expected a split written by Split.save, got ({error!r}); make it again"
            ) from error
        if split.hash != written:
            raise GRMPError(f"{path}: the names do not match the hash in the file; restore it or make it again")
        return split

    @classmethod
    def load_own(cls, folder: str | os.PathLike[str]) -> Split | None:
        """Of the run that the record of an adapter's or model's folder is of; None where no whole one lies there."""
        try:
            split = cls.load(Path(folder) / SPLIT_FILE)
        except GRMPError:
            return None
        return split if origin_of(folder).get("split_hash") in (None, split.hash) else None


def draw_shots(
    n_or_quality: int | Sequence[float] | NDArray[np.float64], k: int, *, seed: int, stratified: bool = False
) -> list[int]:
    """Draw k of N pictures; the draw of a smaller k with the same seed is the beginning of this one.

    Stratified, the j-th picture is the free one nearest to the rank u_j N, with u_j = u_0 + j (sqrt(5) - 1) / 2 modulo
    1 and u_0 random: every prefix of the multiples of the golden ratio, modulo 1, fills [0, 1) evenly. Pictures of
    equal quality are in random order.

    Args:
        n_or_quality: N, or (N,) quality of the pictures, which a stratified draw needs.
        k: 1 to N.
        seed: 0 to 2**32 - 1.
        stratified: spread over the range of quality instead of blind to it.

    Returns:
        (k,) different indices below N.

    Raises:
        GRMPError: fewer pictures than shots, k below 1 or no whole number, or a stratified draw without quality.

    Examples:
        >>> draw_shots(10, 4, seed=0), draw_shots(10, 2, seed=0)
        ([2, 8, 4, 9], [2, 8])
        >>> draw_shots([0.1, 0.9, 0.2, 0.8, 0.5, 0.4], 3, seed=0, stratified=True)
        [4, 2, 1]
    """
    n = n_or_quality if isinstance(n_or_quality, int) else len(n_or_quality)
    if not isinstance(k, int | np.integer):
        raise GRMPError(f"expected a whole number of shots, such as 10, got {k!r}; give int(shots)")
    if not 1 <= k <= n:
        raise GRMPError(
            f"expected between 1 and {n} shots, as many as there are pictures to draw from, got {k}; "
            "ask for fewer shots or rate more pictures"
        )
    random = np.random.RandomState(seed)
    order = random.permutation(n)
    if not stratified:
        return [int(index) for index in order[:k]]
    if isinstance(n_or_quality, int):
        raise GRMPError(
            "expected the quality of each picture for a stratified draw, got their number; give the quality"
        )
    ranked = order[np.argsort(np.asarray(n_or_quality, dtype=np.float64)[order], kind="stable")]
    targets = (random.random_sample() + np.arange(k) * ((5**0.5 - 1) / 2)) % 1.0 * n
    free = np.arange(n)
    drawn: list[int] = []
    for target in targets:
        nearest = int(np.argmin(np.abs(free + 0.5 - target)))
        drawn.append(int(ranked[free[nearest]]))
        free = np.delete(free, nearest)
    return drawn


def official_split(table: RatedTable, *, by: SplitUnit = "auto") -> Split:
    """Split as the column `split` says: rows marked "train" or "validation" teach, rows marked "test" test.

    Args:
        table: rated pictures; rows with another word, or none, are in no part.
        by: what must not be on both sides. With contents in the table only an explicit "picture" lets a column pass
            that has versions of one content in both parts, which flatters every method.

    Raises:
        GRMPError: a part without rows, one content in both parts, or one picture in both parts (which no argument lets
            pass).
    """
    train = [row for row in table.rows if row.split in ("train", "validation")]
    test = [row for row in table.rows if row.split == "test"]
    if not (train and test):
        raise GRMPError(
            f'{table.name}: expected rows marked train and test in the column "split", got {len(train)} to teach and '
            f"{len(test)} to test; mark them, or split at random"
        )
    check_apart(table, train, test, by)
    left_out = len(table) - len(train) - len(test)
    rule = f'the parts of the table\'s "split" column, {len(train)} teach and {len(test)} test'
    rule += f", {left_out} in neither" if left_out else ""
    return Split(tuple(row.name for row in train), tuple(row.name for row in test), rule, 0)


def split_rows(
    table: RatedTable,
    *,
    shots: int | None = None,
    seed: int = 0,
    stratified: bool = False,
    by: SplitUnit = "auto",
) -> Split:
    """Choose the pictures that teach, and those that test.

    Parts that the table marks are kept, see :func:`own_parts`. Where none of them tests and it has references (or
    scenes that are its contents), shots come from 80 of 100 of them and the others test, so that no content is on both
    sides. Else what may teach and is not drawn is the test part. Copies of a picture under another name neither are a
    second shot nor test.

    Args:
        table: rated pictures.
        shots: how many to draw; None takes the whole pool (without a test part in the table, nothing is left to test).
        seed: of the draw.
        stratified: as for `draw_shots`.
        by: what must not be on both sides, as for `random_split`.

    Raises:
        GRMPError: fewer pictures than shots, a table that marks all as "test", or one content or picture in both parts
            of the table's own.
    """
    rows, tested = own_parts(table)
    if not rows:
        raise GRMPError(
            f'{table.name}: expected rows that teach, got all {len(table)} marked test in the column "split"; mark '
            "some of them train, or take that column out"
        )
    left = len(table) - len(rows) - len(tested)
    if not tested:
        table = replace(table, rows=tuple(rows))
    if tested:
        pool = list(rows)
        check_apart(table, pool, tested, by)
        test = [row.name for row in tested]
        rule = f'the {tested[0].split} part is that of the table\'s "split" column'
        rule += " and tests" if tested[0].split != "test" else ""
    elif shots is not None and unit_of(table, by) != "picture":
        by_content = random_split(table, seed=seed, by=by)
        pool, _ = by_content.select(table)
        test, rule = list(by_content.test), by_content.rule
    else:
        pool, test, rule = list(rows), [], "the test part is all that was not drawn"
        rule += about_copies(table) if shots is not None else ""
    others = f"; {left} in other parts neither teach nor test" if left else ""
    if shots is None:
        rule = rule if test else "all pictures of the part that teaches" if left else "all pictures teach"
        return Split(tuple(row.name for row in pool), tuple(test), rule + others, seed)
    distinct: dict[str, Row] = {}
    for row in pool:
        distinct.setdefault(first_name(table, row), row)
    pool = list(distinct.values())
    drawn = draw_shots(np.array([row.quality for row in pool]), shots, seed=seed, stratified=stratified)
    train = tuple(pool[index].name for index in drawn)
    if not test:
        taken = {first_name(table, pool[index]) for index in drawn}
        test = [row.name for row in rows if first_name(table, row) not in taken]
    how = "spread over the range of quality" if stratified else "at random"
    return Split(train, tuple(test), f"{shots} of {len(pool)} drawn {how}; {rule}{others}", seed)


def own_parts(table: RatedTable) -> tuple[list[Row], list[Row]]:
    """Rows that may teach and rows that test, as the column `split` says; all may teach where it says nothing.

    Those marked "train" may teach or, where there are none, all that do not test. Those marked "test" test; without
    such rows "validation" tests where others are "train". Rows of any other part are in neither.
    """
    parts = {row.split for row in table.rows}
    word = "test" if "test" in parts else "validation" if {"train", "validation"} <= parts else None
    tests = [row for row in table.rows if word is not None and row.split == word]
    marked = [row for row in table.rows if row.split == "train"]
    return marked or [row for row in table.rows if word is None or row.split != word], tests


def random_split(table: RatedTable, *, train_share: float = 0.8, seed: int = 0, by: SplitUnit = "auto") -> Split:
    """Split at random; floor(train_share * N) of the N pictures, references or scenes teach. Copies stay together.

    Args:
        table: rated pictures; its column `split` is not looked at.
        train_share: in (0, 1).
        seed: of the permutation.
        by: what stays together. With contents in the table only an explicit "picture" splits the versions of one
            content over both sides, which flatters every method.

    Raises:
        GRMPError: a share that is none, nothing left on one side, or "reference" or "scene" without that column.
    """
    if not 0 <= train_share <= 1:
        raise GRMPError(f"train_share: expected a number in (0, 1), got {train_share}; 0.8 is usual")
    groups, unit = groups_of(table, by)
    order = np.random.RandomState(seed).permutation(len(groups))
    n_train = int(len(groups) * train_share + 1e-9)  # 0.29 of 100 is 29
    if len(groups) < 2:
        raise GRMPError(
            f"{table.name}: expected two or more {unit}s to split, got one for all {len(table)} rows; "
            f"rate pictures of another {unit}" + (" that are no copies" if unit == "picture" else "")
        )
    if not 0 < n_train < len(groups):
        raise GRMPError(
            f"{table.name}: expected pictures on both sides, got {n_train} of {len(groups)} {unit}s to teach; "
            f"choose a train_share from 1/{len(groups)} to {len(groups) - 1}/{len(groups)}"
        )
    rule = f"random split by {unit}, {n_train} of {len(groups)} {unit}s teach" + about_copies(table)
    return _split_of(table, groups, order[:n_train], rule, seed)


def fold_splits(table: RatedTable, folds: int, *, seed: int = 0, by: SplitUnit = "auto") -> list[Split]:
    """Split into folds of nearly equal size, each the test part once; arguments as for `random_split`.

    Raises:
        GRMPError: fewer than two folds, or fewer pictures (references, scenes) than folds.
    """
    groups, unit = groups_of(table, by)
    if not 2 <= folds <= len(groups):
        raise GRMPError(
            f"{table.name}: expected between 2 and {len(groups)} folds, as many as there are {unit}s, got {folds}; "
            "choose another number"
        )
    order = np.random.RandomState(seed).permutation(len(groups))
    places, rule = np.arange(len(groups)) % folds, f"of {folds} by {unit} tests{about_copies(table)}"
    return [_split_of(table, groups, order[places != fold], f"fold {fold + 1} {rule}", seed) for fold in range(folds)]


def _split_of(
    table: RatedTable, groups: Sequence[Sequence[str]], chosen: NDArray[np.int64], rule: str, seed: int
) -> Split:
    train = tuple(name for group in chosen for name in groups[group])
    taken = set(train)
    return Split(train, tuple(row.name for row in table.rows if row.name not in taken), rule, seed)
