"""Third stage: train the student by the clock, with checkpoints and a running mean of the weights."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer

from .losses import CaptionIds, Weights, all_losses
from .sampling import ViewSampler
from .student import GRID, Heads, Sizes, build_student, start_from_dct
from .workers import average_gradients, run_workers, share_updates

MAX_SCALE = math.log(50.0)


@dataclass(frozen=True)
class Settings:
    """Optimisation; the defaults are the ones the shipped weights were made with."""

    minutes: float = 56.0
    workers: int = 2
    batch: int = 24
    """Pictures a step and worker."""
    learning_rate: float = 1.2e-3
    final_share: float = 0.02
    """Learning rate at the end, as a share."""
    weight_decay: float = 0.05
    warmup_steps: int = 100
    keep_share: float = 0.35
    """Share of the patches that enters the encoder before ``complete_from``."""
    complete_from: float = 0.85
    """Progress from which all patches are used."""
    average_decay: float = 0.998
    checkpoint_seconds: float = 180.0
    log_steps: int = 100
    seed: int = 0
    sizes: Sizes = field(default_factory=Sizes)
    weights: Weights = field(default_factory=Weights)


@dataclass
class Progress:
    """What a resumed run goes on from."""

    step: int = 0
    seconds: float = 0.0
    pictures: int = 0


class Trainer:
    """One worker's student, heads and optimisers; ``run`` trains until the minutes are spent."""

    def __init__(
        self, sampler: ViewSampler, tokenizer: CLIPTokenizer, settings: Settings, work: Path, rank: int
    ) -> None:
        torch.manual_seed(settings.seed)
        self.sampler, self.settings, self.work, self.rank = sampler, settings, work, rank
        self.model = build_student(tokenizer, settings.sizes)
        self.heads = Heads(settings.sizes, len(sampler.cell_scale.mean), len(sampler.head_scale.mean))
        start_from_dct(self.model, self._sample_patches())
        self.ids = CaptionIds(tokenizer)
        self.parameters = [*self.model.parameters(), *self.heads.parameters()]
        self.shards = self._shard_matrices()
        self.optimizers = self._optimizers()
        self.progress, self.last_seconds = Progress(), 0.0
        self.average = [parameter.detach().clone() for parameter in self.model.parameters()]
        self.generator = torch.Generator()

    def _sample_patches(self) -> Tensor:
        rng = np.random.default_rng(self.settings.seed)
        rows = self.sampler.draw(self.sampler.train_rows, 200, rng)
        return self.sampler.batch(rows, 40, rng).patches.flatten(0, 1)

    def _shard_matrices(self) -> list[list[nn.Parameter]]:
        """Matrices of the vision encoder, dealt out to the workers: each orthogonalises the updates of its own."""
        layers = self.model.vision_model.encoder.layers
        matrices = [parameter for parameter in layers.parameters() if parameter.ndim == 2]
        return [matrices[rank :: self.settings.workers] for rank in range(self.settings.workers)]

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for the vision encoder's matrices, AdamW for all else, decay on matrices only."""
        hidden = {id(parameter) for shard in self.shards for parameter in shard}
        decayed: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for name, parameter in [*self.model.named_parameters(), *self.heads.named_parameters()]:
            if id(parameter) not in hidden:
                (decayed if parameter.ndim >= 2 and "embedding" not in name else plain).append(parameter)
        rate, decay = self.settings.learning_rate, self.settings.weight_decay
        groups = [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
        own = self.shards[self.rank]
        return [
            torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True),
            torch.optim.Muon(own, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        ]

    def _share_done(self) -> float:
        return min(1.0, self.progress.seconds / (60 * self.settings.minutes))

    def _set_rate(self) -> None:
        """Warm-up by steps, cosine by time."""
        cosine = 0.5 * (1 + math.cos(math.pi * self._share_done()))
        share = self.settings.final_share + (1 - self.settings.final_share) * cosine
        share *= min(1.0, (self.progress.step + 1) / self.settings.warmup_steps)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = share * self.settings.learning_rate

    def _losses(self) -> dict[str, Tensor]:
        """Losses of this step's batch, which is a function of seed, step, rank and progress."""
        settings = self.settings
        rng = np.random.default_rng((settings.seed, self.progress.step, self.rank))
        self.generator.manual_seed(settings.seed * 1_000_003 + self.progress.step)
        places = GRID * GRID
        keep = round(places * settings.keep_share) if self._share_done() < settings.complete_from else places
        batch = self.sampler.batch(self.sampler.draw(self.sampler.train_rows, settings.batch, rng), keep, rng)
        with torch.autocast("cpu", torch.bfloat16):
            return all_losses(self.model, self.heads, batch, self.ids, self.generator)

    def step(self) -> dict[str, float]:
        """One update of all workers; returns this worker's losses."""
        start = time.monotonic()
        self._set_rate()
        losses = self._losses()
        weights = asdict(self.settings.weights)
        for parameter in self.parameters:
            parameter.grad = None
        torch.autograd.backward(torch.stack([weights[name] * loss for name, loss in losses.items()]).sum())
        self.progress.seconds += average_gradients(self.parameters, self.last_seconds, self.settings.workers)
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        share_updates(self.shards)
        self._after_step()
        self.last_seconds = time.monotonic() - start
        return {name: loss.item() for name, loss in losses.items()}

    @torch.no_grad()
    def _after_step(self) -> None:
        self.model.logit_scale.clamp_(max=MAX_SCALE)
        self.progress.step += 1
        self.progress.pictures += self.settings.batch * self.settings.workers
        decay = min(self.settings.average_decay, (1 + self.progress.step) / (10 + self.progress.step))
        torch._foreach_lerp_(self.average, list(self.model.parameters()), 1 - decay)

    def run(self) -> None:
        """Train until ``minutes`` are spent, resumed ones included; the first worker prints mean losses."""
        sums: dict[str, float] = {}
        saved = self.progress.seconds
        while self._share_done() < 1:
            for name, value in self.step().items():
                sums[name] = sums.get(name, 0.0) + value / self.settings.log_steps
            if self.progress.step % self.settings.log_steps == 0:
                self._report(sums)
                sums = {}
            if self.progress.seconds - saved > self.settings.checkpoint_seconds:
                self.save()
                saved = self.progress.seconds
        self.save()

    def _report(self, losses: dict[str, float]) -> None:
        if self.rank == 0:
            text = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
            print(f"step {self.progress.step} {self.progress.seconds:.0f} s {text}", flush=True)

    def save(self) -> None:
        """Write this worker's checkpoint by way of a temporary file; all workers call it after the same step."""
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": asdict(self.progress),
        }
        path = checkpoint_path(self.work, self.rank)
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(path)

    def resume(self) -> None:
        """Go on from this worker's checkpoint."""
        state: dict[str, Any] = torch.load(checkpoint_path(self.work, self.rank), weights_only=True)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.average = state["average"]
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        self.progress = Progress(**state["progress"])


def checkpoint_path(work: Path, rank: int) -> Path:
    """Where a worker keeps its state."""
    return work / f"checkpoint_{rank}.pt"


def train(sampler: ViewSampler, tokenizer: CLIPTokenizer, settings: Settings, work: Path) -> None:
    """Train in ``settings.workers`` processes, from the checkpoints in ``work`` where there are some."""

    def work_of(rank: int) -> None:
        trainer = Trainer(sampler, tokenizer, settings, work, rank)
        if checkpoint_path(work, rank).exists():
            trainer.resume()
            print(f"worker {rank} goes on after {trainer.progress.seconds:.0f} s", flush=True)
        trainer.run()

    run_workers(work, settings.workers, work_of)


def load_trained(tokenizer: CLIPTokenizer, sizes: Sizes, work: Path) -> tuple[CLIPModel, Heads, Progress]:
    """The student with the running mean of its weights, its heads and how far it came, from the first checkpoint."""
    state: dict[str, Any] = torch.load(checkpoint_path(work, 0), weights_only=True)
    model = build_student(tokenizer, sizes)
    with torch.no_grad():
        for parameter, mean in zip(model.parameters(), state["average"], strict=True):
            parameter.copy_(mean)
    stored = state["heads"]
    heads = Heads(sizes, len(stored["cells.bias"]), len(stored["head.bias"]))
    heads.load_state_dict(stored)
    return model.eval(), heads.eval(), Progress(**state["progress"])
