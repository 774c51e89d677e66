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


@pytest.fixture
def folders(make_adapted: Callable[..., PeftModel], make_scorer: Callable[..., Any], tmp_path: Path) -> list[str]:
    """A base and an adapter."""
    make_scorer().save_pretrained(tmp_path / "base")
    make_adapted().save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    return [str(tmp_path / "base"), str(tmp_path / "adapter")]


def distance(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    assert left.keys() == right.keys()
    return max((left[name] - right[name]).abs().max().item() for name in left if left[name].numel())


def test_the_plan_never_mixes_its_two_sets() -> None:
    script = runpy.run_path(str(SCRIPT))
    for joint in (6, 2):
        batches = script["within_sets"](joint)(1)
        for group in (group for batch in batches for group in batch):
            indices = {index for _, index in group}
            assert len(indices) in (2, 3) and any(indices <= set(part) for part in script["SETS"])


FLOAT = ["pairs", "channels", "certainty", "loda", "lpf", "groups"]
DOUBLE = ["unique", "distillation"]


@pytest.mark.parametrize(
    ("use", "dtype", "bound"), [*((use, "float", 1e-6) for use in FLOAT), *((use, "double", 1e-12) for use in DOUBLE)]
)
def test_two_processes_and_accumulation_are_one_batch(
    use: str, dtype: str, bound: float, folders: list[str], tmp_path: Path, in_two_processes: Callable[..., None]
) -> None:
    """Five groups a step: of one process, of five batches, and three beside two of two processes."""
    script = runpy.run_path(str(SCRIPT))
    script["train"](*folders, tmp_path / "whole", use, 5, 1, dtype)
    script["train"](*folders, tmp_path / "parts", use, 1, 5, dtype)
    in_two_processes(SCRIPT, *folders, tmp_path / "two", use, 5, 1, dtype)
    whole, parts, two = (load_file(tmp_path / name) for name in ("whole", "parts", "two"))
    assert distance(whole, parts) <= bound and distance(whole, two) <= bound
    if use == "unique":
        (bias,) = (value for name, value in whole.items() if name.endswith("head.modules_to_save.default.last.bias"))
        assert abs(bias[1].item() - 0.541325) > 1e-3  # where sigma is 1
        return
    if use in ("loda", "lpf", "groups", "distillation"):
        begun = {n: p for n, p in script["start"](*folders, use).named_parameters() if n in whole}
        moved = {name: (whole[name] - weight).abs().max().item() for name, weight in begun.items()}
        assert begun.keys() == whole.keys() and max(moved.values()) > 1e-3
        return
    start = {name.replace(".default", ""): value for name, value in whole.items()}
    begun = load_file(Path(folders[1]) / "adapter_model.safetensors")
    assert max((start[name] - begun[name]).abs().max().item() for name in start if start[name].numel()) > 1e-3


def test_several_channels_without_a_rule_and_settings_beside_a_plan_are_refused(
    make_adapted: Callable[..., PeftModel], tmp_path: Path
) -> None:
    script = runpy.run_path(str(SCRIPT))
    data, plan = script["Pictures"](16, 1), script["within_sets"](5)
    args = GRMPTrainingArguments(str(tmp_path), use_cpu=True, max_steps=1, save_strategy="no", disable_tqdm=True)
    trainer = GRMPTrainer(make_adapted(), args, train_dataset=data, objective=script["three"], plan=plan)
    with pytest.raises(GRMPError, match="one gradient of the channels fidelity, quality, semantic"):
        trainer.train()
    args.joint_batch_size = 4
    with pytest.raises(GRMPError, match="would be passed over beside a plan"):
        GRMPTrainer(make_adapted(), args, train_dataset=data, objective=script["fidelity"], plan=plan)
    args.joint_batch_size = None
    alone = GRMPTrainer(make_adapted(), args, train_dataset=data, objective=script["fidelity"])  # every picture alone
    with pytest.raises(GRMPError, match="none that a term of the objective counts"):
        alone.train()
