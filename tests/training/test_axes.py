"""Uses of one's own of objective, rule and plan: one process, two, and accumulation learn the same."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.trainer import GRMPTrainer

SCRIPT = Path(__file__).parent / "scripts" / "axes.py"
AXES = runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def folders(
    make_adapted: Callable[..., PeftModel], make_scorer: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """A base and an adapter."""
    place = tmp_path_factory.mktemp("folders")
    make_scorer().save_pretrained(place / "base")
    make_adapted().save_pretrained(str(place / "adapter"), save_embedding_layers=False)
    return [str(place / "base"), str(place / "adapter")]


@pytest.fixture(scope="module")
def of_two_processes(
    folders: list[str],
    in_two_processes: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What two processes learn of five groups a step, three beside two: a file for every use."""
    place = tmp_path_factory.mktemp("two")
    in_two_processes(SCRIPT, *folders, place, 5, 1, *AXES["USES"])
    return place


def distance(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    assert left.keys() == right.keys()
    return max((left[name] - right[name]).abs().max().item() for name in left if left[name].numel())


def test_the_plan_never_mixes_its_two_sets() -> None:
    for joint in (6, 2):
        batches = AXES["within_sets"](joint)(1)
        for group in (group for batch in batches for group in batch):
            indices = {index for _, index in group}
            assert len(indices) in (2, 3) and any(indices <= set(part) for part in AXES["SETS"])


@pytest.mark.parametrize("use", AXES["USES"])
def test_two_processes_and_accumulation_are_one_batch(
    use: str, folders: list[str], of_two_processes: Path, tmp_path: Path
) -> None:
    """Five groups a step: of one process, of five batches, and three beside two of two processes."""
    bound = 1e-12 if use in AXES["DOUBLE"] else 1e-6
    for name, groups, steps in (("whole", 5, 1), ("parts", 1, 5)):
        (tmp_path / name).mkdir()
        AXES["train"](*folders, tmp_path / name, groups, steps, use)
    whole, parts, two = (load_file(place / use) for place in (tmp_path / "whole", tmp_path / "parts", of_two_processes))
    assert distance(whole, parts) <= bound and distance(whole, two) <= bound
    if use == "unique":
        (bias,) = (value for name, value in whole.items() if name.endswith("head.modules_to_save.default.last.bias"))
        assert abs(bias[1].item() - 0.541325) > 1e-3  # where sigma is 1
        return
    if use in ("loda", "lpf", "groups", "distillation"):
        begun = {n: p for n, p in AXES["start"](*folders, use).named_parameters() if n in whole}
        moved = {name: (whole[name] - weight).abs().max().item() for name, weight in begun.items()}
        assert begun.keys() == whole.keys() and max(moved.values()) > 1e-3
        return
    start = {name.replace(".default", ""): value for name, value in whole.items()}
    begun = load_file(Path(folders[1]) / "adapter_model.safetensors")
    assert max((start[name] - begun[name]).abs().max().item() for name in start if start[name].numel()) > 1e-3


def test_several_channels_without_a_rule_and_settings_beside_a_plan_are_refused(
    make_adapted: Callable[..., PeftModel], tmp_path: Path
) -> None:
    data, plan = AXES["Pictures"](16, 1), AXES["within_sets"](5)
    args = GRMPTrainingArguments(str(tmp_path), use_cpu=True, max_steps=1, save_strategy="no", disable_tqdm=True)
    trainer = GRMPTrainer(make_adapted(), args, train_dataset=data, objective=AXES["three"], plan=plan)
    with pytest.raises(GRMPError, match="one gradient of the channels fidelity, quality, semantic"):
        trainer.train()
    args.joint_batch_size = 4
    with pytest.raises(GRMPError, match="would be passed over beside a plan"):
        GRMPTrainer(make_adapted(), args, train_dataset=data, objective=AXES["fidelity"], plan=plan)
    args.joint_batch_size = None
    alone = GRMPTrainer(make_adapted(), args, train_dataset=data, objective=AXES["fidelity"])  # every picture alone
    with pytest.raises(GRMPError, match="none that a term of the objective counts"):
        alone.train()
