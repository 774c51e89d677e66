"""Run trainings in a process of their own: `train.py BASE ADAPTER OUTPUT RUNS`.

RUNS is JSON: a list of dictionaries with `pictures`, `crops` or `tasks` (how many), `processes` (how many must be at
work), optionally `double` (precision), `kill_after` (when to SIGKILL, as a share of the seconds that the last
undisturbed training took), `resume`, `broken` (a column in which the first picture has no number; what then ends the
training goes to OUTPUT/BROKEN-RANK), `apart` (in a forked process, whose exit code goes to OUTPUT/codes), `number`
(i if it is not given), and the rest for GRMPTrainingArguments. What run i has trained is written to
OUTPUT/i.safetensors. After a run that had to fail the next one begins, and the process ends with 1.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset

from grmp_hf import GRMPForImageQualityAssessment, GRMPTrainer, GRMPTrainingArguments
from grmp_hf.errors import GRMPError
from grmp_hf.training.episodes import EpisodeDataset
from grmp_hf.training.pictures import RatedPictures, random_crops


class Pictures(Dataset[dict[str, Tensor]]):
    """Noise with random labels."""

    def __init__(self, count: int, size: int) -> None:
        generator = torch.Generator().manual_seed(7)
        self.columns = {"pixel_values": torch.randn(count, 3, size, size, generator=generator)}
        self.columns["labels"] = torch.rand(count, generator=generator)

    def __len__(self) -> int:
        return len(self.columns["labels"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[index] for name, column in self.columns.items()}


def crops(count: int, size: int) -> RatedPictures:
    """Two crops of each picture, others in every epoch."""
    generator = torch.Generator().manual_seed(7)
    whole = torch.randint(0, 256, (count, 3, size + 4, size + 8), dtype=torch.uint8, generator=generator)
    quality, half = torch.rand(count, generator=generator), (0.5,) * 3
    return RatedPictures(whole.__getitem__, quality, half, half, crop=random_crops(size, 2), seed=3)


def episodes(tasks: int, size: int, dtype: torch.dtype) -> EpisodeDataset[int]:
    """Tasks of eight pictures of four references each, all of the same noise, a task in its own order of quality."""
    pictures = Pictures(8, size)

    def load(item: int, seed: int) -> dict[str, Tensor]:
        task, place = divmod(item, 8)
        labels = pictures.columns["labels"].roll(task)
        return {"pixel_values": pictures.columns["pixel_values"][place].to(dtype), "labels": labels[place].to(dtype)}

    items = {f"task {task}": range(8 * task, 8 * task + 8) for task in range(tasks)}
    return EpisodeDataset(items, load, reference_of=lambda item: item // 2, support=3, query=2, seed=5)


def train(base: str, adapter: str, output: Path, number: int, run: dict[str, Any]) -> bool:
    """Whether it came to its end; it does, or raises, unless something is broken."""
    pictures, tasks, processes = run.pop("pictures", None), run.pop("tasks", None), run.pop("processes", 1)
    dtype = torch.float64 if run.pop("double", False) else torch.float32
    cropped: int = run.pop("crops", 0)
    broken: str | None = run.pop("broken", None)
    kill_after, resume = run.pop("kill_after", None), run.pop("resume", False)
    model = PeftModel.from_pretrained(GRMPForImageQualityAssessment.from_pretrained(base), adapter, is_trainable=True)
    model = model.to(dtype)
    args = GRMPTrainingArguments(output_dir=str(output / str(number)), use_cpu=True, disable_tqdm=True, **run)
    size = model.get_base_model().config.clip_config.vision_config.image_size
    data: Dataset[Any] = (
        Pictures(pictures, size) if pictures else episodes(tasks, size, dtype) if tasks else crops(cropped, size)
    )
    trainer = GRMPTrainer(model, args, train_dataset=data)
    assert trainer.accelerator.num_processes == processes, trainer.accelerator.num_processes
    took = output / "took"
    if kill_after is not None:
        threading.Timer(kill_after * float(took.read_text()), os.kill, (os.getpid(), signal.SIGKILL)).start()
    began = time.monotonic()
    if broken is not None and isinstance(data, Pictures):
        scenes = len(model.get_base_model().config.semantic_input_ids)
        data.columns.setdefault(broken, torch.zeros(len(data), scenes))[0] = torch.nan
    try:
        trainer.train(resume_from_checkpoint=resume)
    except GRMPError as error:
        if broken is None:
            raise
        (output / f"{broken}-{args.process_index}").write_text(str(error), encoding="utf-8")
        return False
    if args.process_index == 0:
        if kill_after is None and not resume:
            took.write_text(str(time.monotonic() - began))
        trained = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        save_file(trained, output / f"{number}.safetensors")
    return True


def train_apart(base: str, adapter: str, output: Path, number: int, run: dict[str, Any]) -> None:
    child = os.fork()
    if child == 0:
        try:
            train(base, adapter, output, number, run)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    with open(output / "codes", "a") as file:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=file)


if __name__ == "__main__":
    gc.freeze()  # a Trainer looks for garbage when it ends
    ended = []
    for index, settings in enumerate(json.loads(sys.argv[4])):
        go = train_apart if settings.pop("apart", False) else train
        ended.append(go(sys.argv[1], sys.argv[2], Path(sys.argv[3]), settings.pop("number", index), settings))
    if torch.distributed.is_initialized():  # its threads would now and then abort the interpreter as it ends
        torch.distributed.destroy_process_group()
    sys.exit(False in ended)
