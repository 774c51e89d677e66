"""Train with an objective, a rule and a plan of one's own: `axes.py BASE ADAPTER OUTPUT USE GROUPS STEPS`.

USE is `pairs`, `channels` or `certainty`; GROUPS are those of a joint batch, STEPS the batches that a step accumulates.
What was trained is written to OUTPUT.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

from grmp_hf import GRMPForImageQualityAssessment, GRMPTrainer, GRMPTrainingArguments
from grmp_hf.training.objectives import Batch, Forward, Term, quality, quality_and_semantic
from grmp_hf.training.sampling import Group, Plan

SETS = (range(7), range(7, 16))


class Pictures(Dataset[dict[str, Tensor]]):
    """Noise, rated on a scale that no other set shares."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.pixels = torch.randn(count, 3, 16, 16, generator=generator)
        self.labels = torch.rand(count, generator=generator) / seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.pixels[index], "labels": self.labels[index]}


def fidelity(student: Forward, teacher: Forward, batch: Batch) -> dict[str, Term]:
    """How well differences of quality tell which picture of a pair is better; pairs within a group alone."""
    quality, labels, groups = student({"pixel_values": batch["pixel_values"]}).quality, batch["labels"], batch["groups"]
    first, second = torch.nonzero((groups[:, None] == groups).triu(1), as_tuple=True)
    better = (labels[first] > labels[second]).to(quality)
    chance = (10 * (quality[first] - quality[second])).sigmoid()
    loss = 1 - (chance * better + 1e-8).sqrt() - ((1 - chance) * (1 - better) + 1e-8).sqrt()
    return {"fidelity": Term(loss.mean(), len(first))}


def three(student: Forward, teacher: Forward, batch: Batch) -> dict[str, Term]:
    """Pairs, and the two channels of rated pictures."""
    return {**fidelity(student, teacher, batch), **quality_and_semantic([1.0, 0.0])(student, teacher, batch)}


def certain(student: Forward, teacher: Forward, batch: Batch) -> dict[str, Term]:
    """Quality, where some pictures count ten times as much as others."""
    return quality([1.0, 0.0])(student, teacher, {**batch, "certainty": torch.where(batch["labels"] > 0.4, 2.0, 0.2)})


def lengths_alike(gradients: dict[str, dict[str, Tensor]], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The sum of three gradients that were made equally long: of whole batches alone is it what it says."""
    lengths = {c: torch.stack([g.norm() for g in part.values()]).norm() for c, part in gradients.items()}
    assert list(lengths) == ["fidelity", "quality", "semantic"]
    return {n: torch.stack([part[n] / lengths[c] for c, part in gradients.items()]).sum(0) for n in parameters}


def within_sets(joint: int) -> Plan:
    """Groups of two or three pictures of one set, their order a function of the epoch; a rest of one is left."""

    def plan(epoch: int) -> list[Sequence[Group]]:
        draw, groups = random.Random(epoch), []
        for part in SETS:
            order = draw.sample(part, len(part))
            groups += [order[:2], *(order[at : at + 3] for at in range(2, len(order) - 1, 3))]
        draw.shuffle(groups)
        keys: list[Group] = [[(epoch, index) for index in group] for group in groups]
        return [keys[at : at + joint] for at in range(0, len(keys), joint)]

    return plan


USES: dict[str, dict[str, Any]] = {
    "pairs": {"objective": fidelity},
    "channels": {"objective": three, "rule": lengths_alike},
    "certainty": {"objective": certain},
}


def train(base: str, adapter: str, output: Path, use: str, joint: int, steps: int) -> None:
    model = PeftModel.from_pretrained(GRMPForImageQualityAssessment.from_pretrained(base), adapter, is_trainable=True)
    settings = {"optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant", "num_train_epochs": 2}
    with tempfile.TemporaryDirectory() as folder:
        args = GRMPTrainingArguments(
            folder, use_cpu=True, save_strategy="no", gradient_accumulation_steps=steps, disable_tqdm=True, **settings
        )
        sets = ConcatDataset([Pictures(len(part), seed) for seed, part in enumerate(SETS, start=1)])
        GRMPTrainer(model, args, train_dataset=sets, plan=within_sets(joint), **USES[use]).train()
    if args.process_index == 0:
        save_file({n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}, output)


if __name__ == "__main__":
    train(*sys.argv[1:3], Path(sys.argv[3]), sys.argv[4], *map(int, sys.argv[5:]))
    PartialState().destroy_process_group()  # its threads would now and then abort the interpreter as it ends
