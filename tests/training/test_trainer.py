from __future__ import annotations

import itertools
import json
import math
import os
import random
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from peft import LNTuningConfig, LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset
from transformers import TrainerCallback, TrainingArguments

import grmp_hf
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.adapters import teacher_mode
from grmp_hf.modeling.functional import unit_length
from grmp_hf.modeling.heads import Features, GRMPOutput, Head, Text
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor
from grmp_hf.record import RECORD
from grmp_hf.training.arguments import GRMPTrainingArguments
from grmp_hf.training.gradients import Gradients
from grmp_hf.training.trainer import GRMPTrainer, last_complete_checkpoint

MakeAdapted = Callable[..., PeftModel]
Rounding = Callable[..., float]
SCRIPT = Path(__file__).parent / "scripts" / "train.py"
TRAIN = runpy.run_path(str(SCRIPT))["train"]
BLOCKS = ["layers.2", "final_layer_norm", "post_layernorm"]
FORWARD = 100 * torch.finfo(torch.float32).eps
"""What a forward pass may differ by where batches are cut otherwise: a hundred roundings in one direction."""

SGD = {"optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant", "weight_decay": 1e-4}


class Pictures(Dataset[dict[str, Tensor]]):
    """Noise with random labels."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(7)
        self.pixels = torch.randn(count, 3, 16, 16, generator=generator)
        self.labels = torch.rand(count, generator=generator)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.pixels[index], "labels": self.labels[index]}


def arguments(folder: Path, **options: Any) -> GRMPTrainingArguments:
    quiet = {"use_cpu": True, "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
    return GRMPTrainingArguments(output_dir=str(folder), **{**quiet, **options})


def trained(model: PeftModel) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def train(model: PeftModel, folder: Path, data: Dataset[Any], **options: Any) -> dict[str, Tensor]:
    GRMPTrainer(model, arguments(folder, **options), train_dataset=data).train()
    return trained(model)


def distance(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    assert left.keys() == right.keys()
    return max((left[name] - right[name]).abs().max().item() for name in left if left[name].numel())


SETTINGS: dict[str, dict[str, Any]] = {
    "prompts": {},
    "frozen visual prompts": {"freeze_visual_prompts": True},
    "blocks": {"modules_to_save": BLOCKS, "freeze_visual_prompts": True},
    "readout": {"visual_prompts": 0, "anchor_residuals": True, "calibrate": True},
}


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
def test_exactly_the_trained_tensors_move(make_adapted: MakeAdapted, tmp_path: Path, options: dict[str, Any]) -> None:
    model = make_adapted(**options)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    names = set(train(model, tmp_path, Pictures(6), max_steps=3, learning_rate=1e-2))
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]) == (name not in names or not weight.numel()), name


def test_constant_anchors_are_encoded_once_over_a_run(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    model, calls = make_adapted().train(), []
    model.get_base_model().clip.text_model.register_forward_hook(lambda *_: calls.append(1))
    train(model, tmp_path, Pictures(6), max_steps=10, per_device_train_batch_size=3, regularization_strength=1.0)
    assert len(calls) == 10 + 1 + 1  # the student's quality anchors at each step, the teacher's, scenes


class Cosine(Head):
    """Mean cosine between each view and a direction that is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.direction = torch.nn.Parameter(torch.ones(12))

    def forward(self, features: Features, text: Text) -> GRMPOutput:
        each = features.embeds @ unit_length(self.direction)
        return GRMPOutput(quality=((each * features.weights).sum(1) + 1) / 2)


@pytest.mark.parametrize("strength", [0.0, 5.0])
def test_another_head_is_trained_with_a_layer_norm_adapter_and_loaded_from_a_checkpoint(
    make_scorer: Callable[..., Any], tmp_path: Path, strength: float
) -> None:
    def make_base() -> Any:
        base = make_scorer()
        base.head = Cosine()
        return base

    data = Pictures(6)
    config = LNTuningConfig(target_modules=r".*vision_model.*layer_norm\d", modules_to_save=["head"])
    model = get_peft_model(make_base(), config)
    before = model(data.pixels, labels=data.labels).loss
    settings = {"max_steps": 10, "learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 10}
    train(model, tmp_path, data, **settings, regularization_strength=strength)
    with torch.no_grad():
        found = model.eval()(data.pixels, labels=data.labels)
    assert found.loss < 0.8 * before
    again = PeftModel.from_pretrained(make_base(), str(tmp_path / "checkpoint-10"))
    with torch.no_grad():
        assert torch.equal(again.eval()(data.pixels).quality, found.quality)


@pytest.mark.parametrize("options", [{}, {"modules_to_save": BLOCKS}], ids=["prompts", "blocks"])
@pytest.mark.parametrize(
    ("pictures", "whole", "batch_size", "accumulate"),
    [(16, 6, 1, 6), (16, 6, 2, 3), (16, 6, 3, 2), (6, 6, 4, 2), (14, 8, 4, 2)],
)
def test_accumulation_is_one_large_batch(
    make_adapted: MakeAdapted,
    tmp_path: Path,
    options: dict[str, Any],
    pictures: int,
    whole: int,
    batch_size: int,
    accumulate: int,
    rounding: Rounding,
) -> None:
    results = []
    for size, steps in ((whole, 1), (batch_size, accumulate)):
        settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": steps}
        results.append(
            train(make_adapted(**options), tmp_path, Pictures(pictures), num_train_epochs=2, **settings, **SGD)
        )
    steps = 2 * math.ceil(pictures / whole)
    assert distance(*results) <= rounding(results[0], steps)
    assert distance(results[0], trained(make_adapted(**options))) > 1e-3


def test_loss_of_a_step_is_the_mean_over_its_pictures(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    data, model = Pictures(6), make_adapted()
    expected = model(data.pixels, labels=data.labels).loss.item()
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 1}
    trainer = GRMPTrainer(model, arguments(tmp_path, **settings), train_dataset=data)
    assert trainer.train().training_loss == pytest.approx(expected, rel=FORWARD)


def test_training_again_after_an_interruption_counts_no_picture_twice(
    make_adapted: MakeAdapted, tmp_path: Path
) -> None:
    class Stop(TrainerCallback):
        def on_substep_end(self, *_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

    settings = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "max_steps": 1}
    once, again = (
        GRMPTrainer(make_adapted(), arguments(tmp_path, **settings), train_dataset=Pictures(6)) for _ in range(2)
    )
    once.train()
    again.add_callback(Stop)
    with pytest.raises(KeyboardInterrupt):
        again.train()
    again.remove_callback(Stop)
    again.train()
    assert distance(trained(once.model), trained(again.model)) == 0


def test_teacher_logits_of_the_batch_stand_for_the_teacher(
    make_adapted: MakeAdapted, tmp_path: Path, rounding: Rounding
) -> None:
    class WithTeacher(Pictures):
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {**super().__getitem__(index), "teacher_logits": self.teacher[index]}

    data, model = WithTeacher(6), make_adapted()
    with teacher_mode(model):
        data.teacher = model(data.pixels, output_semantic=True).semantic_logits
    given = train(model, tmp_path, data, max_steps=3, **SGD)
    assert distance(given, train(make_adapted(), tmp_path, Pictures(6), max_steps=3, **SGD)) <= rounding(given, 3)
    data.teacher = -data.teacher
    turned = train(make_adapted(), tmp_path, data, max_steps=3, **SGD)
    assert distance(given, turned) > 1e-5
    # without a rule they are passed over
    plain = train(make_adapted(), tmp_path, data, max_steps=3, regularization_strength=0.0, **SGD)
    same = train(make_adapted(), tmp_path, Pictures(6), max_steps=3, regularization_strength=0.0, **SGD)
    assert distance(plain, same) == 0
    trainer = GRMPTrainer(make_adapted(), arguments(tmp_path), train_dataset=data, eval_dataset=data)
    assert trainer.evaluate()["eval_loss"] > 0


def test_without_a_rule_it_is_transformers_own_trainer(
    make_adapted: MakeAdapted, tmp_path: Path, rounding: Rounding
) -> None:
    from transformers import Trainer

    settings = {"max_steps": 4, "per_device_train_batch_size": 6, "regularization_strength": 0.0, **SGD}
    ours = train(make_adapted(), tmp_path, Pictures(6), **settings)
    model = make_adapted()
    theirs = Trainer(model, arguments(tmp_path, **settings), train_dataset=Pictures(6))
    theirs.get_decay_parameter_names = lambda m: [n for n, _ in m.named_parameters()]
    theirs.train()
    assert distance(ours, trained(model)) <= rounding(ours, 4)


def test_gradient_checkpointing_trains_alike(make_adapted: MakeAdapted, tmp_path: Path, rounding: Rounding) -> None:
    options = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    plain = train(make_adapted(), tmp_path, Pictures(6), max_steps=3, **SGD)
    assert distance(train(make_adapted(), tmp_path, Pictures(6), max_steps=3, **options, **SGD), plain) <= rounding(
        plain, 3
    )


def test_half_precision_autocast_is_close(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    start = trained(make_adapted())
    full = train(make_adapted(), tmp_path, Pictures(6), max_steps=5, regularization_strength=1.0, **SGD)
    half = train(make_adapted(), tmp_path, Pictures(6), max_steps=5, regularization_strength=1.0, bf16=True, **SGD)
    changes = [torch.cat([(w[n] - start[n]).flatten() for n in start]) for w in (full, half)]
    assert 0 < (changes[0] - changes[1]).norm() < 0.1 * changes[0].norm()


def test_the_pull_leads_back_to_the_start(make_adapted: MakeAdapted, tmp_path: Path, rounding: Rounding) -> None:
    def nothing(_gradients: dict[str, Gradients], parameters: Mapping[str, Tensor]) -> Gradients:
        return {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}

    model = make_adapted(anchor_residuals=True, calibrate=True)
    start = trained(model)
    settings = {**SGD, "weight_decay": 0.0, "learning_rate": 0.1, "pull_to_start": 5.0, "max_steps": 1}
    trainer = GRMPTrainer(model, arguments(tmp_path, **settings), train_dataset=Pictures(4), rule=nothing)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(float(parameter.requires_grad))
    trainer.train()
    for name, weight in trained(model).items():
        pulled = 0.0 if name.endswith("offset") else 0.5
        torch.testing.assert_close(weight, start[name] + 1 - pulled, atol=rounding(start, 1), rtol=0)


class Stream(IterableDataset[dict[str, Tensor]]):
    """Pictures without a length."""

    def __iter__(self) -> Any:
        data = Pictures(8)
        yield from (data[index] for index in range(8))


def test_a_stream_trains_as_the_same_pictures_in_order(
    make_adapted: MakeAdapted, tmp_path: Path, rounding: Rounding
) -> None:
    settings = {"max_steps": 2, "per_device_train_batch_size": 4, **SGD}
    ours = train(make_adapted(), tmp_path, Stream(), **settings)
    expected = train(make_adapted(), tmp_path, Pictures(8), train_sampling_strategy="sequential", **settings)
    assert distance(ours, expected) <= rounding(ours, 2)


# What is refused -----------------------------------------------------------------------------------------------------


def distributed(kind: DistributedType) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(Accelerator, "distributed_type", property(lambda self: kind))


def two_processes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GRMPTrainingArguments, "world_size", property(lambda self: 2))


def two_gpus(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GRMPTrainingArguments, "n_gpu", property(lambda self: 2))


REFUSED: dict[str, tuple[Callable[[pytest.MonkeyPatch], None] | None, dict[str, Any], dict[str, Any], str]] = {
    "FSDP": (distributed(DistributedType.FSDP), {}, {}, "FSDP shards the gradients"),
    "DeepSpeed": (distributed(DistributedType.DEEPSPEED), {}, {}, "DeepSpeed owns the backward pass"),
    "DataParallel": (two_gpus, {}, {}, "Several GPUs in one process (DataParallel)"),
    "fp16": (None, {"fp16": True}, {}, "fp16 scales the loss"),
    "reentrant checkpointing": (
        None,
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
        {},
        "Reentrant checkpointing cannot give two gradients",
    ),
    "lomo": (None, {"optim": "adalomo"}, {}, "steps while it goes backward"),
    "stream over processes": (
        two_processes,
        {"max_steps": 2},
        {"train_dataset": Stream()},
        "cannot share an iterable data set",
    ),
}


@pytest.mark.parametrize(("patch", "options", "given", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_right_is_refused(
    make_adapted: MakeAdapted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    patch: Callable[[pytest.MonkeyPatch], None] | None,
    options: dict[str, Any],
    given: dict[str, Any],
    message: str,
) -> None:
    args = arguments(tmp_path, **options)
    if patch is not None:
        patch(monkeypatch)
    with pytest.raises(GRMPError, match=re.escape(message)):
        GRMPTrainer(make_adapted(), args, **{"train_dataset": Pictures(4), **given})


def test_plain_arguments_and_a_loss_of_ones_own_are_refused(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    with pytest.raises(GRMPError, match="Expected args of the type GRMPTrainingArguments, got TrainingArguments"):
        GRMPTrainer(make_adapted(), TrainingArguments(str(tmp_path)), train_dataset=Pictures(4))  # type: ignore[arg-type]

    class Own(GRMPTrainer):
        def compute_loss(self, *_: Any, **__: Any) -> Any:
            raise AssertionError

    with pytest.raises(GRMPError, match=r"compute_loss of Own would never be called.*Pass it as objective="):
        Own(make_adapted(), arguments(tmp_path), train_dataset=Pictures(4))


@pytest.mark.parametrize("config", [LoraConfig, LNTuningConfig])
def test_an_adapter_of_peft_s_own_methods_is_not_loaded_without_its_record(
    config: Any, make_scorer: Callable[..., Any], tmp_path: Path
) -> None:
    base = make_scorer()
    base.save_pretrained(tmp_path / "base")
    model = get_peft_model(base, config(target_modules=["layer_norm1"] if config is LNTuningConfig else ["q_proj"]))
    processor = GRMPImageProcessor(16, ["center"], shortest_edge_limit=20)
    trainer = GRMPTrainer(
        model, arguments(tmp_path, max_steps=1), train_dataset=Pictures(4), processing_class=processor
    )
    trainer.save_model(str(tmp_path / "mine"))
    assert grmp_hf.load(tmp_path / "base", adapter=tmp_path / "mine").processor.settings() == processor.settings()
    (tmp_path / "mine" / RECORD).unlink()
    with pytest.raises(GRMPError, match=r"Expected record\.json beside adapter_config\.json"):
        grmp_hf.load(tmp_path / "base", adapter=tmp_path / "mine")


def test_preprocessing_is_saved_with_the_adapter(
    make_adapted: MakeAdapted, make_scorer: Callable[..., Any], tmp_path: Path
) -> None:
    processor = GRMPImageProcessor(16, ["center", "whole"], [0.7, 0.3], shortest_edge_limit=20)
    base = make_scorer(view_weights=[0.7, 0.3])
    base.save_pretrained(tmp_path / "base")
    trainer = GRMPTrainer(
        make_adapted(base), arguments(tmp_path, max_steps=1), train_dataset=Pictures(4), processing_class=processor
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "mine"))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    with torch.inference_mode():
        expected = trainer.model.eval()(**processor(picture)).quality.item()
    loaded = grmp_hf.load(tmp_path / "base", adapter=tmp_path / "mine")
    assert loaded.processor.settings() == processor.settings()
    assert loaded.score(picture).quality.item() == pytest.approx(expected, rel=FORWARD)
    assert GRMPImageProcessor.from_pretrained(tmp_path / "mine").settings() == processor.settings()


def test_nothing_to_train_is_refused(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    with pytest.raises(GRMPError, match=r"Nothing is trained: .* is_trainable=True"):
        GRMPTrainer(make_adapted().requires_grad_(False), arguments(tmp_path), train_dataset=Pictures(4))


def test_weights_in_half_precision_are_never_trained(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    refused = r"got \d+ in float16, in which steps jump, .* the first. Call model\.float\(\)"
    given: dict[str, Any] = {"args": arguments(tmp_path, max_steps=1), "train_dataset": Pictures(4)}
    with pytest.raises(GRMPError, match=refused):
        GRMPTrainer(make_adapted().half(), **given)
    trainer = GRMPTrainer(make_adapted(), **given)
    trainer.model.half()  # as an evaluation with fp16_full_eval leaves it
    with pytest.raises(GRMPError, match=refused):
        trainer.train()
    trainer.model.float()
    trainer.train()
    frozen = make_adapted()
    for parameter in frozen.parameters():
        parameter.data = parameter.data if parameter.requires_grad else parameter.data.half()
    GRMPTrainer(frozen, **given)


# Several processes, and processes that die ---------------------------------------------------------------------------


TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def make_folders(make_adapted: MakeAdapted, make_scorer: Callable[..., Any], place: Path) -> list[str]:
    """A base, an adapter, and an empty folder; beside them an adapter with dropout."""
    make_scorer().save_pretrained(place / "base")
    make_adapted(prompt_dropout=0.1).save_pretrained(str(place / "dropout"), save_embedding_layers=False)
    make_adapted().save_pretrained(str(place / "adapter"), save_embedding_layers=False)
    (place / "out").mkdir()
    return [str(place / name) for name in ("base", "adapter", "out")]


@pytest.fixture
def folders(make_adapted: MakeAdapted, make_scorer: Callable[..., Any], tmp_path: Path) -> list[str]:
    return make_folders(make_adapted, make_scorer, tmp_path)


def start(launcher: list[str], folders: list[str], runs: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    root = str(SCRIPT.parents[3])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, *launcher, str(SCRIPT), *folders, json.dumps(runs)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=90 + 30 * len(runs), check=False
    )


COMMON: dict[str, Any] = {"num_train_epochs": 2, "save_strategy": "no", "logging_strategy": "no", **SGD}
META: dict[str, dict[str, Any]] = {
    "maml": {"double": True, "meta_algorithm": "maml"},
    "maml, rule": {"double": True, "meta_algorithm": "maml", "regularization_strength": 5.0},
    "fomaml": {"meta_algorithm": "fomaml"},
    "reptile": {"meta_algorithm": "reptile", "regularization_strength": 1.0},
}


WHOLE: dict[str, list[dict[str, Any]]] = {
    "tasks": [
        {"tasks": 4, "inner_steps": 2, "inner_learning_rate": 0.1, "regularization_strength": 0.0, **COMMON, **options}
        for options in META.values()
    ],
    "crops": [{"crops": 11, **COMMON}],
    "pictures": [
        {"pictures": pictures, "gradient_accumulation_steps": steps, **COMMON}
        for pictures, steps in ((11, 1), (9, 1), (9, 2), (11, 3))
    ],
}
"""What two processes do together: kind -> runs, whose joint batches are of four."""


@pytest.fixture(scope="module")
def of_two_processes(
    make_adapted: MakeAdapted, make_scorer: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Tensor]]]:
    """What two processes learn, each from parts of two: kind -> weights of every run."""
    folders = make_folders(make_adapted, make_scorer, tmp_path_factory.mktemp("two"))
    halves = {"per_device_train_batch_size": 2, "processes": 2}
    done = start(TWO, folders, [{**run, **halves} for runs in WHOLE.values() for run in runs])
    assert done.returncode == 0, done.stderr[-3000:]
    found = (load_file(Path(folders[2]) / f"{number}.safetensors") for number in itertools.count())
    return {kind: list(itertools.islice(found, len(runs))) for kind, runs in WHOLE.items()}


def learnt(folders: list[str], run: dict[str, Any], **options: Any) -> dict[str, Tensor]:
    """What one process learns."""
    TRAIN(*folders[:2], Path(folders[2]), 0, {**run, **options})
    return load_file(Path(folders[2]) / "0.safetensors")


def test_tasks_may_be_spread_over_processes_and_micro_batches(
    folders: list[str], of_two_processes: dict[str, Any], make_adapted: MakeAdapted, rounding: Rounding
) -> None:
    """Four tasks a step of one process, twice two of one process, and two of each of two processes."""
    for name, run, two in zip(META, WHOLE["tasks"], of_two_processes["tasks"], strict=True):
        alone = learnt(folders, run, per_device_train_batch_size=4)
        parts = learnt(folders, run, per_device_train_batch_size=2, gradient_accumulation_steps=2)
        bound = rounding(alone, 2 * 3)  # steps of the outer loop, each of two inner steps and its own
        assert [distance(alone, other) <= bound for other in (parts, two)] == [True, True], name
        assert distance(alone, trained(make_adapted())) > 1e-3


def test_crops_are_the_same_over_workers_micro_batches_and_processes(
    folders: list[str], of_two_processes: dict[str, Any]
) -> None:
    (run,), (two,) = WHOLE["crops"], of_two_processes["crops"]
    alone = learnt(folders, run, per_device_train_batch_size=4)
    assert distance(alone, learnt(folders, run, per_device_train_batch_size=4, dataloader_num_workers=2)) == 0
    parts = learnt(folders, run, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    assert max(distance(alone, parts), distance(alone, two)) <= 1e-6


def test_two_processes_are_one(
    of_two_processes: dict[str, Any], tmp_path: Path, make_adapted: MakeAdapted, rounding: Rounding
) -> None:
    """Joint batches of 4: 11 pictures end in parts of 2 and 1, 9 in parts of 1 and 0."""
    for run, two in zip(WHOLE["pictures"], of_two_processes["pictures"], strict=True):
        settings = {key: value for key, value in run.items() if key != "pictures"}
        alone = train(make_adapted(), tmp_path, Pictures(run["pictures"]), per_device_train_batch_size=4, **settings)
        assert distance(two, alone) <= rounding(alone, 2 * 6)


BROKEN = {"labels": "labels that are", "pixel_values": "quality loss", "teacher_logits": "semantic"}


def test_no_process_waits_for_one_that_fails(folders: list[str]) -> None:
    """One bad picture of four: both processes end, in the same step; neither waits when they train again."""
    run = {"pictures": 4, "processes": 2, "per_device_train_batch_size": 2, "max_steps": 1, **SGD}
    done = start(TWO, folders, [{**run, "broken": column} for column in BROKEN])
    assert done.returncode != 0 and not list(Path(folders[2]).glob("*.safetensors"))
    for column, message in BROKEN.items():
        ended = sorted(path.read_text() for path in Path(folders[2]).glob(f"{column}-*"))
        assert len(ended) == 2 and all("Expected" in text for text in ended), done.stderr[-3000:]
        assert message in ended[-1]


STAGES: dict[str, dict[str, Any]] = {
    "pictures": {"pictures": 11, "per_device_train_batch_size": 4},
    "fomaml": {"tasks": 3, "per_device_train_batch_size": 1, "inner_steps": 2},
    "authors": {"tasks": 3, "per_device_train_batch_size": 1, "meta_algorithm": "authors", "inner_optimizer": "adam"},
}


def interrupted(folders: list[str], moments: list[float], *stages: str) -> None:
    """Kill a run at each moment, a share of its time, resume it, and compare with the run that nobody disturbed."""
    folders[1] = str(Path(folders[1]).with_name("dropout"))
    common = {"num_train_epochs": 6, "save_steps": 1, "seed": 3, "learning_rate": 1e-2, "lr_scheduler_type": "cosine"}
    common |= {"save_total_limit": 2, "logging_strategy": "no", "apart": True}
    runs: list[dict[str, Any]] = []
    for first, stage in enumerate(stages):
        one = {**common, **STAGES[stage], "number": first * (1 + len(moments))}
        runs.append(one)
        for number, moment in enumerate(moments, start=one["number"] + 1):
            runs += [{**one, "number": number, "kill_after": moment}, {**one, "number": number, "resume": True}]
    done, output = start([], folders, runs), Path(folders[2])
    codes = [int(code) for code in (output / "codes").read_text().split()]
    ended = [code for code, run in zip(codes, runs, strict=True) if "kill_after" not in run]
    assert not any(ended), done.stderr[-3000:]
    assert codes.count(-signal.SIGKILL) >= len(stages) * len(moments) / 2
    results = [load_file(output / f"{number}.safetensors") for number in range(len(stages) * (1 + len(moments)))]
    for number, result in enumerate(results):
        expected = results[number - number % (1 + len(moments))]
        assert all(torch.equal(result[name], expected[name]) for name in expected), (number, moments)


def test_a_killed_run_goes_on_bit_for_bit(folders: list[str]) -> None:
    interrupted(folders, [random.uniform(0.1, 0.8)], "pictures", "fomaml")


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_goes_on_bit_for_bit_from_ten_moments(folders: list[str], stage: str) -> None:
    interrupted(folders, [random.uniform(0.02, 0.98) for _ in range(10)], stage)


def test_a_checkpoint_cut_off_while_it_was_written_is_passed_over(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    settings = {"per_device_train_batch_size": 4, "num_train_epochs": 3, "save_strategy": "steps", "save_steps": 2}
    expected = train(make_adapted(prompt_dropout=0.1), tmp_path, Pictures(8), **settings)
    checkpoints = {int(path.name.split("-")[1]): path for path in tmp_path.glob("checkpoint-*")}
    assert sorted(checkpoints) == [2, 4, 6]
    (checkpoints[6] / "trainer_state.json").unlink()
    (checkpoints[6] / "adapter_model.safetensors").write_bytes(b"cut off")
    state = checkpoints[4] / "trainer_state.json"
    state.write_text(state.read_text()[:50])
    assert last_complete_checkpoint(tmp_path) == checkpoints[2]
    model = make_adapted(prompt_dropout=0.1)
    trainer = GRMPTrainer(model, arguments(tmp_path, **settings), train_dataset=Pictures(8))
    trainer.train(resume_from_checkpoint=True)
    assert distance(trained(model), expected) == 0


def test_training_where_gradients_are_off(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    expected = train(make_adapted(), tmp_path / "on", Pictures(6), max_steps=2)
    with torch.no_grad():
        assert distance(train(make_adapted(), tmp_path / "off", Pictures(6), max_steps=2), expected) == 0
    with torch.inference_mode(), pytest.raises(GRMPError, match=r"outside torch.inference_mode"):
        GRMPTrainer(make_adapted(), arguments(tmp_path, max_steps=2), train_dataset=Pictures(6)).train()


def test_nothing_to_resume_is_a_fresh_start(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    (tmp_path / "checkpoint-last").mkdir()
    assert last_complete_checkpoint(tmp_path) is None
    model = make_adapted()
    GRMPTrainer(model, arguments(tmp_path, max_steps=2), train_dataset=Pictures(6)).train(resume_from_checkpoint=True)
    assert distance(trained(model), train(make_adapted(), tmp_path, Pictures(6), max_steps=2)) == 0


@pytest.mark.parametrize("labels", [[1.0, 5.0, 3.0], [0.2, float("nan"), 0.4], [-0.1, 0.5, 1.0]])
def test_ratings_are_refused_where_a_quality_is_expected(
    labels: list[float], make_adapted: MakeAdapted, tmp_path: Path
) -> None:
    data, model = Pictures(3), make_adapted()
    data.labels = torch.tensor(labels)
    before = trained(model)
    trainer = GRMPTrainer(model, arguments(tmp_path, max_steps=3), train_dataset=data, eval_dataset=data)
    for go in (trainer.train, trainer.evaluate):
        with pytest.raises(GRMPError, match=r"quality in \[0, 1\].*RatingScale.to_quality"):
            go()
    assert distance(before, trained(model)) == 0


def test_a_step_into_weights_that_are_no_numbers_is_refused(make_adapted: MakeAdapted, tmp_path: Path) -> None:
    data, model = Pictures(4), make_adapted()
    data.pixels[2, 0, 0, 0] = float("nan")
    before = trained(model)
    with pytest.raises(GRMPError, match="finite loss and gradient, got a quality loss of nan"):
        train(model, tmp_path, data, max_steps=2, **SGD)
    assert distance(before, trained(model)) == 0


@pytest.mark.parametrize("more", [{}, {"labels": "good"}])
def test_rows_without_labels_of_numbers_are_refused_by_name(
    more: dict[str, Any], make_adapted: MakeAdapted, tmp_path: Path
) -> None:
    rows: Any = [{"pixel_values": torch.zeros(3, 16, 16), **more} for _ in range(4)]
    with pytest.raises(GRMPError, match=r"Expected a column 'labels' of numbers in the rows that teach, got groups"):
        train(make_adapted(), tmp_path, rows)
