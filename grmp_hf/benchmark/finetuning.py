"""Full fine-tuning: the whole vision tower and a linear head, as image regression is commonly done."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import CLIPForImageClassification, PrinterCallback, Trainer, TrainingArguments

from grmp_hf.benchmark.looking import Looking
from grmp_hf.benchmark.watching import Fitted, Observer, Watcher, as_arrays
from grmp_hf.errors import GRMPError
from grmp_hf.features import Pictures, first_views
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor, normalize
from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
from grmp_hf.scoring import Scorer
from grmp_hf.scratch import scratch_folder
from grmp_hf.training.aside import aside
from grmp_hf.training.checking import check_settings
from grmp_hf.training.precision import BF16, settle_bf16

__all__ = ["FullFineTuning"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FullFineTuning:
    """transformers' `CLIPForImageClassification` with one output, started from the base's vision tower.

    The loss is the mean square error of standardised quality. Defaults are those of AutoTrain's image regression but
    for the number of epochs; of each picture the first views are seen, each with the picture's label, and a prediction
    is their mean with the base's weights.

    Attributes:
        name: in the results.
        base: a scorer without adapter.
        epochs: over the shots.
        learning_rate: of AdamW, after a linear warm-up; it falls linearly to 0.
        batch_size: views of a step.
        warmup: share of the steps.
        views: how many of the base's views, the first ones.
        bf16: train under bfloat16 autocast; ``"auto"``: where the processor computes it natively.
    """

    above_0: ClassVar[tuple[str, ...]] = ("learning_rate",)
    least: ClassVar[Mapping[str, float]] = {"epochs": 1}

    name: str
    base: Scorer
    epochs: int = 10
    learning_rate: float = 5e-5
    batch_size: int = 8
    warmup: float = 0.1
    views: int = 1
    bf16: BF16 = False
    needs_shots = True
    trains_by_steps = True
    columns = ()

    def __post_init__(self) -> None:
        check_settings(self)
        first_views(self.base, self.views)

    def settings(self) -> dict[str, Any]:
        """Everything but name and base."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"method": "full_finetune", **{key: values[key] for key in values if key not in ("name", "base")}}

    def fit(self, shots: Pictures, quality: Floats, *, seed: int, observer: Observer | None = None) -> Fitted:
        """Train a copy of the tower and a new head on the shots' views."""
        centre, spread = float(quality.mean()), float(quality.std())
        if spread == 0:
            raise GRMPError(f"Expected pictures with different ratings, got {len(quality)} that are all alike")
        pixels = torch.cat(list(self._look(shots)))
        labels = torch.tensor((quality - centre) / spread, dtype=torch.float32)
        describe = functools.partial(self._describe, centre, spread)
        callbacks = [] if observer is None else [Watcher(observer, describe)]
        return describe(self._train(_Views(pixels, labels, self._look.seen.processor), seed, callbacks))

    @functools.cached_property
    def _look(self) -> Looking:
        return Looking(first_views(self.base, self.views).without_tiles())

    @aside()
    def _train(self, data: _Views, seed: int, callbacks: list[Any]) -> nn.Module:
        torch.manual_seed(seed)  # of the head
        model: nn.Module = _tower_with_head(cast(GRMPForImageQualityAssessment, self.base.model))
        with scratch_folder() as folder:
            arguments = TrainingArguments(
                output_dir=str(folder),
                num_train_epochs=self.epochs,
                per_device_train_batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                warmup_steps=self.warmup,
                lr_scheduler_type="linear",
                optim="adamw_torch",
                bf16=settle_bf16(self.bf16, next(model.parameters()).device),
                seed=seed,
                use_cpu=next(model.parameters()).device.type == "cpu",
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=False,
            )
            trainer = Trainer(model, arguments, train_dataset=data, callbacks=callbacks)
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        return model

    def _describe(self, centre: float, spread: float, model: nn.Module) -> Fitted:
        def predict(pictures: Pictures) -> Floats:
            scorer = dataclasses.replace(self._look.seen, model=model.eval())
            found = [_pooled(scorer, pixels) for pixels in self._look(pictures)]
            return centre + spread * np.concatenate(found)

        def learnt() -> dict[str, NDArray[Any]]:
            return {**as_arrays(model.state_dict()), "quality": np.array([centre, spread])}

        return Fitted(predict, learnt)


class _Views(Dataset[dict[str, Tensor]]):
    """Every view of every shot, with the label of its picture.

    Args:
        pixels: uint8 ``(n, V, 3, S, S)``.
        labels: ``(n,)``.
        processor: says how they are normalised.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, processor: GRMPImageProcessor) -> None:
        self.pixels, self.labels = pixels.flatten(0, 1), labels.repeat_interleave(pixels.shape[1])
        self.mean: Sequence[float] = processor.image_mean
        self.std: Sequence[float] = processor.image_std

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": normalize(self.pixels[index], self.mean, self.std), "labels": self.labels[index]}


def _tower_with_head(base: GRMPForImageQualityAssessment) -> Any:
    config = copy.deepcopy(base.config.clip_config)
    config.num_labels, config.problem_type = 1, "regression"
    model = CLIPForImageClassification(config)
    model.vision_model.load_state_dict(base.clip.vision_model.state_dict())
    return model.to(base.device)


def _pooled(scorer: Scorer, pixels: Tensor) -> Floats:
    """Predictions ``(B,)`` of views ``(B, V, 3, S, S)``, their mean with the views' weights."""
    with torch.inference_mode():
        logits = scorer.model(pixel_values=scorer.prepare(pixels).flatten(0, 1)).logits
    values: Floats = logits.double().cpu().numpy().reshape(pixels.shape[:2])
    pooled: Floats = values @ np.array(scorer.processor.view_weights)
    return pooled
