"""A small network that sees how pictures are spoiled and not what they show: the low-level encoder (after GRepQ).

Letters in shapes: B pictures, P patches, C width of the network's last stage, d of its projection.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import CONFIG_NAME, ModelOutput

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.bases import check_loaded
from grmp_hf.modeling.image_processing_grmp import IMAGENET_MEAN, IMAGENET_STD, normalize

__all__ = ["RESNET18", "SMALL", "LowLevelConfig", "LowLevelEncoder", "LowLevelOutput", "load_encoder"]

RESNET18: Mapping[str, Any] = {
    "model_type": "resnet",
    "embedding_size": 64,
    "hidden_sizes": [64, 128, 256, 512],
    "depths": [2, 2, 2, 2],
    "layer_type": "basic",
}
"""The paper's network."""

SMALL: Mapping[str, Any] = {
    "model_type": "resnet",
    "embedding_size": 16,
    "hidden_sizes": [16, 32, 64, 128],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}
"""One that two cores can train: four blocks, a quarter of the widths."""

_TOGETHER = 64  # patches of one pass
_OUTPUTS = ("projected", "pooled")


class LowLevelConfig(PreTrainedConfig):
    """Configuration of a :class:`LowLevelEncoder`.

    Args:
        backbone: configuration of a model of transformers' that pools what it sees, with its ``model_type``, such as
            :data:`RESNET18` or :data:`SMALL` (None).
        hidden: width between both layers of the projection.
        width: d, of its end.
        image_mean, image_std: with which pixels are normalised.
        describes: what pictures are described by: ``"projected"`` (the paper's), or ``"pooled"``, before the
            projection.
        longest_edge: larger pictures are shrunk to it when they are described; 0 for never.

    Raises:
        GRMPError: a setting that cannot be.
    """

    model_type = "grmp_low_level"

    def __init__(
        self,
        backbone: Mapping[str, Any] | None = None,
        hidden: int = 512,
        width: int = 128,
        image_mean: Sequence[float] = IMAGENET_MEAN,
        image_std: Sequence[float] = IMAGENET_STD,
        describes: str = "projected",
        longest_edge: int = 1024,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backbone = dict(SMALL if backbone is None else backbone)
        self.hidden, self.width = hidden, width
        self.image_mean, self.image_std = list(image_mean), list(image_std)
        self.describes, self.longest_edge = describes, longest_edge
        if "model_type" not in self.backbone or min(hidden, width) < 1 or longest_edge < 0:
            raise GRMPError(
                "Expected a backbone with its model_type, hidden and width of at least 1 and longest_edge of at least "
                f"0, got {self.backbone}, {hidden}, {width} and {longest_edge}."
            )
        if describes not in _OUTPUTS:
            raise GRMPError(f"Expected describes out of {', '.join(_OUTPUTS)}, got {describes!r}.")


@dataclass
class LowLevelOutput(ModelOutput):
    """What the encoder says of pictures.

    Attributes:
        projected: ``(..., d)``.
        pooled: ``(..., C)``.
    """

    projected: Tensor | None = None
    pooled: Tensor | None = None


class LowLevelEncoder(PreTrainedModel):
    """A network from scratch, and a projection of what it pools: ``C -> hidden -> d``, ReLU between.

    Its normalisations use each batch's own statistics in training, so that several processes would not be one.

    Source: GRepQ (arXiv 2312.04838), there a ResNet-18 with 512 -> 512 -> 128.
    """

    config_class = LowLevelConfig
    main_input_name = "pixel_values"
    learns_statistics = True

    def __init__(self, config: LowLevelConfig) -> None:
        super().__init__(config)
        values = dict(config.backbone)
        try:
            self.backbone: Any = AutoModel.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
            channels = self.backbone.config.hidden_sizes[-1]
        except (ValueError, AttributeError, TypeError) as error:
            raise GRMPError(
                f"Expected a convolutional model that transformers knows as the backbone, got {config.backbone}: "
                f"{error}. Take such as grmp_hf.modeling.low_level.RESNET18."
            ) from error
        self.projection = nn.Sequential(
            nn.Linear(channels, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.width)
        )
        self.post_init()

    def forward(self, pixel_values: Tensor) -> LowLevelOutput:
        """What is seen of normalised pictures ``(..., 3, H, W)``."""
        shape = pixel_values.shape[:-3]
        pooled = self.backbone(pixel_values.flatten(0, -4)).pooler_output.flatten(1)
        projected = self.projection(pooled)
        return LowLevelOutput(projected=projected.view(*shape, -1), pooled=pooled.view(*shape, -1))

    def describe(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features ``(d,)`` or ``(C,)`` of a whole picture ``(H, W, 3)`` uint8, at its own size."""
        values = _as_values(picture[None], self.config)
        longest, limit = max(values.shape[-2:]), self.config.longest_edge
        if limit and longest > limit:
            size = [max(1, round(side * limit / longest)) for side in values.shape[-2:]]
            values = F.interpolate(values, size=size, mode="bilinear", antialias=True)
        found: NDArray[np.float32] = self._described(values)[0]
        return found

    def describe_patches(self, patches: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Features ``(P, d)`` or ``(P, C)`` of patches ``(P, S, S, 3)`` uint8."""
        parts = (patches[at : at + _TOGETHER] for at in range(0, len(patches), _TOGETHER))
        return np.concatenate([self._described(_as_values(part, self.config)) for part in parts]).astype(np.float64)

    def _described(self, values: Tensor) -> NDArray[np.float32]:
        if self.training:
            raise GRMPError("Expected an encoder in evaluation mode to describe pictures with. Call its eval().")
        with torch.inference_mode():
            found = self(values.to(self.device))[self.config.describes]
        return found.float().cpu().numpy()  # type: ignore[no-any-return]

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of all that decides about its features."""
        names = ("backbone", "hidden", "width", "image_mean", "image_std", "describes", "longest_edge")
        settings = {name: getattr(self.config, name) for name in names}
        found = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for name, value in sorted(self.state_dict().items()):
            found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()


def _as_values(pictures: NDArray[np.uint8], config: Any) -> Tensor:
    """Pictures ``(B, H, W, 3)`` uint8 as values ``(B, 3, H, W)``."""
    pixels = torch.tensor(pictures).permute(0, 3, 1, 2)
    return normalize(pixels, config.image_mean, config.image_std)


def load_encoder(folder: str | os.PathLike[str]) -> LowLevelEncoder:
    """The encoder that ``save_pretrained`` wrote into a folder, in evaluation mode.

    Raises:
        GRMPError: there is none, or its files are damaged or do not fit together.
    """
    place = os.fspath(folder)
    try:
        if not os.path.isfile(os.path.join(place, CONFIG_NAME)):
            raise OSError(f"no {CONFIG_NAME} there.")
        encoder, info = LowLevelEncoder.from_pretrained(place, output_loading_info=True, ignore_mismatched_sizes=True)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise GRMPError(
            f"Expected a low-level encoder in {place!r}, got: {str(error).partition(chr(10))[0]} Name the folder that "
            "training/grepq.py low has written."
        ) from error
    check_loaded(info, f"a low-level encoder in {place!r}")
    found: LowLevelEncoder = encoder.eval()
    return found
