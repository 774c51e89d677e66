from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grmp_hf.training.aside import aside
from grmp_hf.training.few_shot import FewShotRecipe, adapt
from tests.training.test_few_shot import learnt, rated


def drawn() -> tuple[float, ...]:
    return random.random(), np.random.random(), torch.rand(1).item()


def test_what_the_caller_draws_next_is_what_it_would_have_drawn(make_scorer: Any, shots: Any, tmp_path: Path) -> None:
    base = make_scorer()
    for seed in (1, 2):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        expected = [drawn(), drawn()]
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        found = [drawn()]
        adapt(base, rated(*shots), recipe=FewShotRecipe(steps=2), output_dir=tmp_path / "run")
        assert [*found, drawn()] == expected


def test_adaptations_in_threads_do_not_disturb_each_other(make_scorer: Any, shots: Any, tmp_path: Path) -> None:
    base, recipe, found = make_scorer(), FewShotRecipe(steps=20), dict[int, Any]()

    def run(number: int) -> None:
        model = adapt(base, rated(*shots), recipe=recipe, output_dir=tmp_path / str(number))
        found[number] = learnt(model)

    run(0)
    threads = [threading.Thread(target=run, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.keys() == {0, 1, 2, 3}
    assert all(torch.equal(found[n][name], weight) for n in (1, 2, 3) for name, weight in found[0].items())


def test_one_learns_at_a_time_and_an_error_ends_it() -> None:
    busy, most = 0, 0

    @aside()
    def learn(fails: bool) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        time.sleep(0.02)
        busy -= 1
        if fails:
            raise ValueError

    threads = [threading.Thread(target=learn, args=(False,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    with pytest.raises(ValueError):
        learn(True)
    for thread in threads:
        thread.join()
    assert most == 1
