from __future__ import annotations

import pytest

from grmp_hf.training.sampling import EpochDataLoader, JointBatchSampler, JointEpisodeSampler

CASES = [(12, 3, 1), (12, 3, 2), (11, 2, 2), (9, 2, 2), (1, 4, 3), (50, 7, 4)]


def parts(length: int, batch_size: int, processes: int, **options: int | bool) -> list[list[list[int]]]:
    """Batch -> process -> indices."""
    samplers = [
        JointBatchSampler(length, batch_size * processes, processes=processes, rank=rank, **options)  # type: ignore[arg-type]
        for rank in range(processes)
    ]
    return [list(batch) for batch in zip(*samplers, strict=True)]


@pytest.mark.parametrize(("length", "batch_size", "processes"), CASES)
def test_every_picture_once_in_parts_that_differ_by_one(length: int, batch_size: int, processes: int) -> None:
    batches = parts(length, batch_size, processes)
    seen = [index for batch in batches for part in batch for index in part]
    assert sorted(seen) == list(range(length)) and len(batches) == -(-length // (batch_size * processes))
    for batch in batches:
        sizes = [len(part) for part in batch]
        assert max(sizes) - min(sizes) <= 1 and max(sizes) <= batch_size


@pytest.mark.parametrize(("length", "batch_size", "processes"), CASES)
def test_joint_batches_are_those_of_one_process(length: int, batch_size: int, processes: int) -> None:
    joint = [[index for part in batch for index in part] for batch in parts(length, batch_size, processes)]
    assert joint == [batch[0] for batch in parts(length, batch_size * processes, 1)]


def test_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        sampler = JointBatchSampler(20, 4, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    orders = [order(seed, epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)]
    assert orders == [order(seed, epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)]
    assert all(orders.count(each) == 1 for each in orders)


def test_order_of_the_data_and_no_incomplete_batch() -> None:
    assert list(JointBatchSampler(5, 2, shuffle=False)) == [[0, 1], [2, 3], [4]]
    dropping = JointBatchSampler(5, 2, shuffle=False, drop_last=True)
    assert list(dropping) == [[0, 1], [2, 3]] and len(dropping) == 2


def test_the_loader_hands_the_epoch_on() -> None:
    loader = EpochDataLoader(list(range(20)), batch_sampler=JointBatchSampler(20, 20))
    first = next(iter(loader)).tolist()
    loader.set_epoch(1)
    assert next(iter(loader)).tolist() != first
    loader.set_epoch(0)
    assert next(iter(loader)).tolist() == first


def test_episodes_are_asked_for_by_epoch_and_index_in_their_own_order() -> None:
    both = [JointEpisodeSampler(5, 4, processes=2, rank=rank, shuffle=False) for rank in (0, 1)]
    for sampler in both:
        sampler.set_epoch(3)
    assert [list(sampler) for sampler in both] == [[[(3, 0), (3, 1)], [(3, 4)]], [[(3, 2), (3, 3)], []]]


def test_a_joint_batch_need_not_be_a_multiple_of_the_processes() -> None:
    samplers = [JointBatchSampler(400, 192, processes=5, rank=rank) for rank in range(5)]
    assert [sum(map(len, batch)) for batch in zip(*samplers, strict=True)] == [192, 192, 16]
    assert all(len(part) <= sampler.batch_size for sampler in samplers for part in sampler)
