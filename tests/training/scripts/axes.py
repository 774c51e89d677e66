"""Train with an objective, a rule and a plan of one's own: `axes.py BASE ADAPTER OUTPUT GROUPS STEPS USE ...`.

GROUPS are those of a joint batch, STEPS the batches that a step accumulates, every USE one of `USES`. What was trained
is written to OUTPUT/USE.
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import LNTuningConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

from grmp_hf import GRMPForImageQualityAssessment, GRMPTrainer, GRMPTrainingArguments
from grmp_hf.modeling.linear_heads import Cosine, Cosines, MeanSigma, Projected
from grmp_hf.modeling.peft_injection import LoDaConfig
from grmp_hf.modeling.side import make_side
from grmp_hf.modeling.two_stream import TwoStreamHead
from grmp_hf.training.continual import distilled
from grmp_hf.training.contrasts import group_contrasts
from grmp_hf.training.objectives import Batch, Forward, Term, pairwise, plcc, quality, quality_and_semantic
from grmp_hf.training.parallel import in_parallel
from grmp_hf.training.rules import summed
from grmp_hf.training.sampling import Group, Plan, within

SETS = (range(7), range(7, 16))


class Pictures(Dataset[dict[str, Tensor]]):
    """Noise, rated on a scale that no other set shares."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.pixels = torch.randn(count, 3, 16, 16, generator=generator)
        self.labels = torch.rand(count, generator=generator) / seed
        self.stds = torch.rand(count, generator=generator).where(torch.arange(count) % 3 > 0, torch.nan)
        self.categories = torch.arange(count) % 4 - 1
        self.before = torch.randn(count, 2, generator=generator)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        known = {"mos_std": self.stds[index], "dataset": torch.tensor(self.seed), "category": self.categories[index]}
        seen = {"pixel_values": self.pixels[index].to(torch.get_default_dtype()), "before": self.before[index]}
        return {**seen, "labels": self.labels[index], **known}


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
    "unique": {"objective": pairwise([1.0, 0.0], sigma="joint"), "rule": summed()},
    "distillation": {"objective": distilled([1.0, 0.0]), "rule": summed({"distillation": 10.0})},
    "loda": {"objective": plcc},
    "lpf": {"objective": in_parallel(), "rule": summed({"category": 0.5})},
    "groups": {"objective": group_contrasts()},
}
DOUBLE = ("unique", "distillation")  # computed in double precision
HELD = contextlib.ExitStack()  # of auxiliary heads, which are there as long as this
OWN_PLAN = {"unique": 3, "distillation": 3, "loda": 3, "lpf": 3, "groups": 4}


def start(base: str, adapter: str, use: str) -> PeftModel:
    """The adapter; or another, around a head of means and sigmas (`unique`), a cosine (`loda`), two streams (`lpf`) or
    a projection (`groups`)."""
    model = GRMPForImageQualityAssessment.from_pretrained(base)
    if use not in OWN_PLAN:
        return PeftModel.from_pretrained(model, adapter, is_trainable=True)
    torch.manual_seed(0)
    if use == "loda":
        resnet = {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "out_indices": [1, 2]}
        means = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
        settings = {"name": "backbone", "config": {"model_type": "resnet", **resnet}, **means}
        model.put_beside(settings, make_side(settings))
        model.head = Cosine(model.config.clip_config.vision_config.hidden_size, token=True)
        return get_peft_model(model, LoDaConfig(latent=8, heads=2, grid=2, start="random", modules_to_save=["head"]))
    if use == "lpf":
        model.head = TwoStreamHead(model.config.clip_config.vision_config.hidden_size, 8, dropout=0.0)
        adapted = get_peft_model(model, LNTuningConfig(target_modules=["layer_norm1"], modules_to_save=["head"]))
        HELD.enter_context(
            adapted.get_base_model().head.modules_to_save["default"].beside(categories=3, comparison=True)
        )
        return adapted
    width = model.config.clip_config.projection_dim
    heads = {"groups": lambda: Projected(width, 16), "distillation": lambda: Cosines(width, 3)}
    model.head = heads.get(use, lambda: MeanSigma(width))()
    if use == "unique":
        torch.nn.init.normal_(model.head.last.weight, std=0.3)
    return get_peft_model(model, LNTuningConfig(target_modules=["layer_norm1"], modules_to_save=["head"]))


def train(base: str, adapter: str, output: Path, joint: int, steps: int, use: str) -> None:
    torch.set_default_dtype(torch.double if use in DOUBLE else torch.float)
    model = start(base, adapter, use).to(torch.get_default_dtype())
    settings = {"optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant", "num_train_epochs": 2}
    with tempfile.TemporaryDirectory() as folder:
        args = GRMPTrainingArguments(
            folder, use_cpu=True, save_strategy="no", gradient_accumulation_steps=steps, disable_tqdm=True, **settings
        )
        sets = ConcatDataset([Pictures(len(part), seed) for seed, part in enumerate(SETS, start=1)])
        names = [number for number, part in enumerate(SETS) for _ in part]
        plan = within(names, OWN_PLAN[use], joint) if use in OWN_PLAN else within_sets(joint)
        GRMPTrainer(model, args, train_dataset=sets, plan=plan, **USES[use]).train()
    torch.set_default_dtype(torch.float)
    if args.process_index == 0:
        save_file({n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}, output / use)


if __name__ == "__main__":
    for wanted in sys.argv[6:]:
        train(*sys.argv[1:3], Path(sys.argv[3]), *map(int, sys.argv[4:6]), wanted)
    PartialState().destroy_process_group()  # its threads would now and then abort the interpreter as it ends
