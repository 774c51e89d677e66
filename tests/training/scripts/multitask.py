"""Learn quality, scene and distortion together: `multitask.py BASE OUTPUT GROUPS STEPS [EPOCHS]`.

GROUPS are those of a joint batch, STEPS the batches that a step accumulates. Checkpoints are kept beside OUTPUT, and a
run goes on from the last of them. What was trained is written to OUTPUT.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import PartialState
from peft import get_peft_model
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset

from grmp_hf import GRMPForImageQualityAssessment, GRMPPromptConfig, GRMPTrainer, GRMPTrainingArguments
from grmp_hf.modeling.configuration_grmp import axis_sizes
from grmp_hf.training.balancing import DynamicWeights
from grmp_hf.training.multitask import multitask
from grmp_hf.training.sampling import within

SETS = [0] * 7 + [1] * 9


class Pictures(Dataset[dict[str, Tensor]]):
    """Noise of two sets; a third of it has no scene, all of the second set no distortion."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randn(16, 3, 16, 16, generator=generator, dtype=torch.double)
        self.labels = torch.rand(16, generator=generator)
        self.scene = (torch.rand(16, 2, generator=generator) > 0.4).float()
        self.distortion = torch.eye(4)[torch.randint(4, (16,), generator=generator)]
        self.distortion[7:] = 0

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = {"pixel_values": self.pixels[index], "labels": self.labels[index], "dataset": torch.tensor(SETS[index])}
        return {**row, "scene": self.scene[index], "distortion": self.distortion[index]}


def train(base: str, output: Path, joint: int, steps: int, epochs: int = 4) -> DynamicWeights:
    torch.manual_seed(0)
    scorer = GRMPForImageQualityAssessment.from_pretrained(base)
    model = get_peft_model(scorer, GRMPPromptConfig(text_prompts=0, visual_prompts=2, prompt_dropout=0.0)).double()
    rule = DynamicWeights()
    args = GRMPTrainingArguments(
        str(output.with_suffix(".run")),
        use_cpu=True,
        save_strategy="steps",
        save_steps=3,
        gradient_accumulation_steps=steps,
        disable_tqdm=True,
        optim="sgd",
        learning_rate=0.5,
        lr_scheduler_type="constant",
        num_train_epochs=epochs,
    )
    objective, plan = multitask(axis_sizes(scorer.config)), within(SETS, 3, joint, seed=1)
    trainer = GRMPTrainer(model, args, train_dataset=Pictures(), objective=objective, rule=rule, plan=plan)
    trainer.train(resume_from_checkpoint=True)
    if args.process_index == 0:
        save_file({n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}, output)
    return rule


if __name__ == "__main__":
    train(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
    PartialState().destroy_process_group()  # its threads would now and then abort the interpreter as it ends
