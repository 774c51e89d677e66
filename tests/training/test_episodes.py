from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from grmp_hf.errors import GRMPError
from grmp_hf.training.episodes import (
    ConcatEpisodes,
    Episode,
    EpisodeDataset,
    collate_episodes,
    hold_out_tasks,
)


class Picture(NamedTuple):
    """A row as a source of ratings may have it."""

    task: int
    reference: int
    quality: float

    @property
    def number(self) -> int:
        """Unique over all tasks."""
        return round(1000 * self.task + 10 * self.reference + 4 * self.quality)


def load(picture: Picture, seed: int) -> dict[str, Tensor]:
    return {
        "labels": torch.tensor(picture.quality),
        "number": torch.tensor(picture.number),
        "reference": torch.tensor(picture.reference),
        "seed": torch.tensor(seed),
    }


def make_tasks(count: int = 5, references: int = 6, levels: int = 5) -> dict[str, list[Picture]]:
    return {
        f"task {task}": [Picture(task, ref, level / 4) for ref in range(references) for level in range(levels)]
        for task in range(count)
    }


def make(tasks: Any = None, **options: Any) -> EpisodeDataset[Picture]:
    given = {"reference_of": lambda p: p.reference, "quality_of": lambda p: p.quality, "support": 8, "query": 6}
    return EpisodeDataset(make_tasks() if tasks is None else tasks, load, **{**given, **options})


def column(episode: Episode, side: str, name: str) -> list[float]:
    return torch.cat([batch[name] for batch in episode[side]]).tolist()  # type: ignore[literal-required]


def same(left: Episode, right: Episode) -> bool:
    return left["task"] == right["task"] and all(
        column(left, side, name) == column(right, side, name)
        for side in ("support", "query")
        for name in ("number", "seed")
    )


@pytest.mark.parametrize("epoch", range(20))
def test_support_and_query_never_share_a_reference(epoch: int) -> None:
    data = make()
    for index in range(len(data)):
        episode = data[epoch, index]
        support, query = (column(episode, side, "reference") for side in ("support", "query"))
        assert len(support) == 8 and len(query) == 6
        assert not set(support) & set(query)
        numbers = column(episode, "support", "number") + column(episode, "query", "number")
        assert len(set(numbers)) == 14, "no picture may come twice"
        assert {f"task {number // 1000}" for number in numbers} == {episode["task"]}


def test_an_episode_is_a_function_of_seed_epoch_and_index() -> None:
    data, again, other = make(seed=1), make(seed=1), make(seed=2)
    torch.manual_seed(5)
    for index in range(len(data)):
        assert same(data[3, index], again[3, index])
        assert same(data[index], again[0, index])
    assert not any(same(data[0, i], data[1, j]) or same(data[0, i], other[0, j]) for i in range(5) for j in range(5))
    seeds = [s for index in range(5) for side in ("support", "query") for s in column(data[0, index], side, "seed")]
    assert len(set(seeds)) == len(seeds)


def test_every_epoch_visits_all_tasks_in_another_order() -> None:
    data = make(visits=2)
    assert len(data) == 10
    orders = [[data[epoch, index]["task"] for index in range(10)] for epoch in range(4)]
    for order in orders:
        assert set(order[:5]) == set(order[5:]) == set(make_tasks())
    assert len({tuple(order[:5]) for order in orders} | {tuple(order[5:]) for order in orders}) > 4
    assert not same(data[0, orders[0].index("task 0")], data[0, 5 + orders[0][5:].index("task 0")])


def test_all_pictures_are_drawn_sooner_or_later() -> None:
    data = make()
    drawn = {n for epoch in range(40) for i in range(5) for n in column(data[epoch, i], "support", "number")}
    assert drawn == {picture.number for pictures in make_tasks().values() for picture in pictures}


def test_batches_inside_an_episode() -> None:
    episode = make(support_batch_size=5, query_batch_size=4)[0, 2]
    assert [len(batch["labels"]) for batch in episode["support"]] == [5, 3]
    assert [len(batch["labels"]) for batch in episode["query"]] == [4, 2]
    assert same(episode, make()[0, 2])
    assert "fresh_optimizer" not in episode and make(fresh_optimizer=True)[0, 2]["fresh_optimizer"]


def test_labels_spread_within_each_side() -> None:
    for side in ("support", "query"):
        plain, spread = (make(rescale_labels=flag)[0, 1] for flag in (False, True))
        before, after = (torch.tensor(column(episode, side, "labels")) for episode in (plain, spread))
        torch.testing.assert_close(after, (before - before.min()) / (before.max() - before.min()))
    one = make(rescale_labels=True, support=1)[0, 1]
    assert column(one, "support", "labels") == column(make(support=1)[0, 1], "support", "labels")


def test_a_loader_keeps_episodes_apart() -> None:
    data = make()
    loader = DataLoader(data, batch_sampler=[[(2, 0), (2, 1)], [(2, 4)]], collate_fn=collate_episodes, num_workers=1)
    batches = [batch["episodes"] for batch in loader]
    assert [len(batch) for batch in batches] == [2, 1]
    assert same(batches[0][1], data[2, 1]) and same(batches[1][0], data[2, 4])


def test_one_data_set_after_another() -> None:
    first, second = make(make_tasks(2)), make(seed=3, fresh_optimizer=True)
    both = ConcatEpisodes([first, second])
    assert len(both) == 7
    assert same(both[4, 1], first[4, 1]) and same(both[4, 2], second[4, 0]) and same(both[6], second[0, 4])
    for data in (both, first):
        with pytest.raises(IndexError, match="Expected an index below"):
            _ = data[0, len(data)]
        assert len(list(data)) == len(data)  # type: ignore[call-overload]


def test_held_out_tasks_have_references_of_their_own() -> None:
    options = {"reference_of": lambda p: p.reference, "share": 0.34}
    learning, held = hold_out_tasks(make_tasks(), ["task 1", "task 3"], **options)
    assert set(learning) == {"task 0", "task 2", "task 4"} and set(held) == {"task 1", "task 3"}
    references = [{p.reference for pictures in part.values() for p in pictures} for part in (learning, held)]
    assert len(references[0]) == 4 and len(references[1]) == 2 and not references[0] & references[1]
    assert hold_out_tasks(make_tasks(), ["task 1", "task 3"], **options) == (learning, held)
    others = [hold_out_tasks(make_tasks(), ["task 1", "task 3"], seed=seed, **options) for seed in range(1, 6)]
    assert any(other != (learning, held) for other in others)


@pytest.mark.parametrize(
    ("names", "share", "message"),
    [
        (["task 9"], 0.2, "some but not all of the tasks task 0, task 1"),
        ([], 0.2, "to hold out, got none"),
        (list(make_tasks()), 0.2, "some but not all"),
        (["task 1"], 0.01, "got 0.01 of 6 references"),
        (["task 1"], 1.0, "got 1.0 of 6 references"),
    ],
)
def test_holding_out_what_cannot_be(names: list[str], share: float, message: str) -> None:
    with pytest.raises(GRMPError, match=re.escape(message)):
        hold_out_tasks(make_tasks(), names, reference_of=lambda p: p.reference, share=share)


UNEVEN = [Picture(0, 0, i / 20) for i in range(20)] + [Picture(0, 1, 0.5)]
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no task": ({"tasks": {}}, "at least one task"),
    "no support": ({"support": 0}, "support=0"),
    "no query": ({"query": 0}, "query=0"),
    "no visit": ({"visits": 0}, "visits=0"),
    "too few pictures": ({"support": 30}, "task 'task 0' to have 30 pictures for the support and 6 of other"),
    "one reference": ({"tasks": make_tasks(1, references=1)}, "got 5 pictures of 1 references"),
    "a draw could fall short": ({"tasks": {"blur": UNEVEN}, "support": 8, "query": 6}, "21 pictures of 2 references"),
    "constant labels": (
        {"tasks": {**make_tasks(2), "flat": [Picture(9, i, 0.5) for i in range(30)]}},
        "different quality in task 'flat', got 30 whose labels are all alike",
    ),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_tasks_that_cannot_be_learnt_from(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GRMPError, match=re.escape(message)):
        make(**options)


def test_where_only_loading_knows_the_labels_they_are_not_checked() -> None:
    flat = {"flat": [Picture(9, i, 0.5) for i in range(30)]}
    assert len(make(flat, quality_of=None)) == 1
