from __future__ import annotations

from typing import Any

import pytest
import torch

from grmp_hf.errors import GRMPError
from grmp_hf.training.sampling import (
    EpochDataset,
    EpochLoader,
    Group,
    Grouped,
    Plan,
    PlanSampler,
    collate_groups,
    in_order,
    repeated,
    shuffled,
    within,
)

CASES = [(12, 3, 1), (12, 3, 2), (11, 2, 2), (9, 2, 2), (1, 4, 3), (50, 7, 4)]


def parts(plan: Plan, processes: int) -> list[list[list[Group]]]:
    """Batch -> process -> groups."""
    samplers = [PlanSampler(plan, processes=processes, rank=rank) for rank in range(processes)]
    return [list(batch) for batch in zip(*samplers, strict=True)]


def indices(batches: list[list[Group]]) -> list[list[int]]:
    return [[index for group in batch for _, index in group] for batch in batches]


@pytest.mark.parametrize(("length", "batch_size", "processes"), CASES)
def test_every_picture_once_in_parts_that_differ_by_one(length: int, batch_size: int, processes: int) -> None:
    batches = parts(shuffled(length, batch_size * processes), processes)
    seen = [key for batch in batches for part in batch for group in part for key in group]
    assert sorted(seen) == [(0, index) for index in range(length)]
    assert len(batches) == -(-length // (batch_size * processes))
    for batch in batches:
        sizes = [len(part) for part in batch]
        assert max(sizes) - min(sizes) <= 1 and max(sizes) <= batch_size


@pytest.mark.parametrize(("length", "batch_size", "processes"), CASES)
def test_joint_batches_are_those_of_one_process(length: int, batch_size: int, processes: int) -> None:
    plan = shuffled(length, batch_size * processes)
    assert [[group for part in batch for group in part] for batch in parts(plan, processes)] == list(plan(0))


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_groups_are_never_cut(processes: int) -> None:
    """Groups of one to three pictures, of a joint batch of four groups."""
    groups = [tuple((0, 10 * number + place) for place in range(1 + number % 3)) for number in range(12)]
    plan = [groups[at : at + 4] for at in range(0, 12, 4)]
    found = parts(lambda epoch: plan, processes)
    assert [[group for part in batch for group in part] for batch in found] == plan
    largest = [max(sum(map(len, part)) for part in (batch[rank] for batch in found)) for rank in range(processes)]
    assert [PlanSampler(lambda epoch: plan, processes=processes, rank=r).batch_size for r in range(processes)] == [
        max(1, size) for size in largest
    ]


def test_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        sampler = PlanSampler(shuffled(20, 4, seed=seed))
        sampler.set_epoch(epoch)
        return indices(list(sampler))

    orders = [order(seed, epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)]
    assert orders == [order(seed, epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)]
    assert all(orders.count(each) == 1 for each in orders)


def test_order_of_the_data_and_no_incomplete_batch() -> None:
    assert indices(list(PlanSampler(in_order(5, 2)))) == [[0, 1], [2, 3], [4]]
    dropping = PlanSampler(in_order(5, 2, drop_last=True))
    assert indices(list(dropping)) == [[0, 1], [2, 3]] and len(dropping) == 2


def test_a_plan_of_another_length_in_another_epoch_is_refused() -> None:
    sampler = PlanSampler(lambda epoch: [[((epoch, 0),)]] * (3 - epoch))
    assert len(list(sampler)) == 3
    sampler.set_epoch(1)
    with pytest.raises(GRMPError, match=r"a plan with 3 joint batches in every epoch.* got 2 in epoch 1"):
        list(sampler)


class Asked(EpochDataset[Any]):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, key: Any) -> Any:
        return torch.tensor(key)


def test_rows_are_asked_by_epoch_and_index_or_by_index() -> None:
    group = ((3, 1), (3, 4))
    assert Grouped(list("abcde"))[group] == ["b", "e"]
    assert torch.stack(Grouped(Asked())[group]).tolist() == [[3, 1], [3, 4]]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_hands_the_epoch_on(workers: int) -> None:
    sampler = PlanSampler(shuffled(20, 20))
    stacked = lambda groups: torch.stack([row for group in groups for row in group])  # noqa: E731
    loader = EpochLoader(Grouped(Asked()), batch_sampler=sampler, collate_fn=stacked, num_workers=workers)
    first = next(iter(loader)).tolist()
    loader.set_epoch(1)
    second = next(iter(loader)).tolist()
    assert {epoch for epoch, _ in first} == {0} and {epoch for epoch, _ in second} == {1}
    assert [index for _, index in first] != [index for _, index in second]
    loader.set_epoch(0)
    assert next(iter(loader)).tolist() == first


def test_episodes_are_asked_for_in_their_own_order() -> None:
    both = [PlanSampler(in_order(5, 4), processes=2, rank=rank) for rank in (0, 1)]
    for sampler in both:
        sampler.set_epoch(3)
    keys = [[[key for group in part for key in group] for part in sampler] for sampler in both]
    assert keys == [[[(3, 0), (3, 1)], [(3, 4)]], [[(3, 2), (3, 3)], []]]


def test_a_joint_batch_need_not_be_a_multiple_of_the_processes() -> None:
    batches = parts(shuffled(400, 192), 5)
    assert [sum(map(len, batch)) for batch in batches] == [192, 192, 16]


def test_a_batch_knows_its_groups() -> None:
    def collator(rows: list[int]) -> dict[str, Any]:
        return {"labels": torch.tensor(rows)}

    batch = collate_groups(collator, [[1, 2], [3], [4, 5, 6]])
    assert batch["labels"].tolist() == [1, 2, 3, 4, 5, 6] and batch["groups"].tolist() == [0, 0, 1, 2, 2, 2]
    assert collate_groups(collator, []) == {}


SETS = ["a"] * 7 + ["b"] * 2 + ["c"] * 9


@pytest.mark.parametrize("size", [2, 3, 4, 50])
@pytest.mark.parametrize("across", [False, True])
def test_every_picture_is_compared_once_and_within_its_data_set(size: int, across: bool) -> None:
    plan = within(SETS, size, 2, seed=3, across=across)
    for epoch in range(3):
        groups = [group for batch in plan(epoch) for group in batch]
        assert sorted(key for group in groups for key in group) == [(epoch, at) for at in range(18)]
        assert all(len(group) >= 2 for group in groups)
        sets = [{SETS[at] for _, at in group} for group in groups]
        assert (max(map(len, sets)) > 1) is across
        assert len(plan(epoch)) == len(plan(0)) and plan(epoch) == within(SETS, size, 2, seed=3, across=across)(epoch)
    assert [[at for _, at in group] for group in plan(0)[0]] != [[at for _, at in group] for group in plan(1)[0]]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_comparisons_of_several_processes_are_those_of_one(processes: int) -> None:
    plan = within(SETS, 3, 4)
    assert [[group for part in batch for group in part] for batch in parts(plan, processes)] == list(plan(0))


@pytest.mark.parametrize(
    ("sets", "size", "joint", "message"),
    [
        (SETS, 1, 1, "at least 2 pictures, since one has no pair, .* got groups of 1"),
        (SETS, 3, 0, "got groups of 3 and 0 of them"),
        ([*SETS, "d"], 3, 1, "at least 2 pictures of each data set, .* got 1 of d"),
        ([], 3, 1, "got 1 of none"),
    ],
)
def test_comparisons_that_leave_no_pair(sets: list[str], size: int, joint: int, message: str) -> None:
    with pytest.raises(GRMPError, match=message):
        within(sets, size, joint)


def test_a_single_picture_may_meet_those_of_other_data_sets() -> None:
    (batch,) = within(["a", "b", "b"], 3, across=True)(0)
    assert len(batch[0]) == 3


def test_several_passes_are_one_epoch_with_crops_of_their_own() -> None:
    plan = repeated(within(["one"] * 5, 5), 3)
    for epoch in (0, 1):
        batches = list(plan(epoch))
        assert len(batches) == 3
        for at, groups in enumerate(batches):
            (keys,) = groups
            assert sorted(keys) == [(3 * epoch + at, index) for index in range(5)]
    assert len(PlanSampler(plan)) == 3 and list(plan(0)) == list(plan(0))
