"""A frozen network beside a CLIP: its stages say what the joint embedding has lost of a picture's details.

Letters in shapes: B pictures, P side of the picture that it sees, C channels of a stage.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoBackbone, AutoConfig, AutoImageProcessor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.image_processing_grmp import IMAGENET_MEAN, IMAGENET_STD, denormalize, normalize
from grmp_hf.modeling.statistics import COUNT, picture_statistics

__all__ = [
    "SIDE_SETTINGS",
    "SIDE_WEIGHTS",
    "BackboneSide",
    "Block",
    "EfficientNetLite0",
    "EmbeddedSide",
    "Side",
    "Stage",
    "backbone_side",
    "look_aside",
    "make_side",
    "pooled",
    "read_side",
]


class Stage(NamedTuple):
    """Blocks of one width.

    Attributes:
        blocks: how many; the first one has the stride.
        kernel, stride: of the depthwise convolutions.
        channels: C, of the output.
    """

    blocks: int
    kernel: int
    stride: int
    channels: int


_STEM = 32
_STAGES = (
    Stage(1, 3, 1, 16),
    Stage(2, 3, 2, 24),
    Stage(2, 5, 2, 40),
    Stage(3, 3, 2, 80),
    Stage(3, 5, 1, 112),
    Stage(4, 5, 2, 192),
    Stage(1, 3, 1, 320),
)
_EXPANSION = 6  # of every stage but the first


class EfficientNetLite0(nn.Module):
    """The trunk of EfficientNet-Lite0, its normalisations folded into the convolutions.

    ``forward`` maps pixels ``(B, 3, P, P)`` in [0, 1], P a multiple of 32, to the last map of each stage.

    Source: Tan and Le, "EfficientNet" (ICML 2019), in the Lite form (no squeeze and excitation, ReLU6).
    """

    channels = tuple(stage.channels for stage in _STAGES)

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Convolution(3, _STEM, 3, 2)
        self.stages = nn.ModuleList()
        width = _STEM
        for at, stage in enumerate(_STAGES):
            blocks = nn.Sequential()
            for index in range(stage.blocks):
                stride = stage.stride if index == 0 else 1
                blocks.append(Block(width, stage.channels, stage.kernel, stride, _EXPANSION if at else 1))
                width = stage.channels
            self.stages.append(blocks)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """The last map of each stage."""
        return list(self._maps(pixels))

    def _maps(self, pixels: Tensor) -> Iterator[Tensor]:
        states = (pixels * 255 - 127) / 128
        states = F.relu6(self.stem(states.contiguous(memory_format=torch.channels_last)), inplace=True)
        for stage in self.stages:
            states = stage(states)
            yield states


class _Convolution(nn.Conv2d):
    """A convolution with TensorFlow's padding of maps whose sides the stride divides."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        total = kernel - stride
        super().__init__(inputs, outputs, kernel, stride, padding=0 if total % 2 else total // 2, groups=groups)
        self.before = [total // 2, total - total // 2] * 2 if total % 2 else None

    def forward(self, states: Tensor) -> Tensor:
        return super().forward(states if self.before is None else F.pad(states, self.before))


class Block(nn.Module):
    """An inverted residual: widen, look at neighbours, narrow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = _Convolution(inputs, inner, 1) if expansion > 1 else None
        self.depthwise = _Convolution(inner, inner, kernel, stride, groups=inner)
        self.project = _Convolution(inner, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, states: Tensor) -> Tensor:
        inner = states if self.expand is None else F.relu6(self.expand(states), inplace=True)
        found: Tensor = self.project(F.relu6(self.depthwise(inner), inplace=True))
        return states + found if self.residual else found


def pooled(states: Tensor) -> Tensor:
    """Mean and deviation ``(B, 2 C)`` of each channel of a map ``(B, C, H, W)``."""
    flat = states.flatten(2)
    mean = flat.mean(2)
    return torch.cat([mean, (flat - mean.unsqueeze(2)).square_().mean(2).sqrt()], 1)


class Side(nn.Module):
    """A frozen network beside the CLIP: pooled stages, and the hand-made statistics, which a readout may see.

    ``forward`` maps pixels ``(B, 3, P, P)`` in [0, 1] to features ``(B, F)``, one group after the other.

    Attributes:
        groups: name -> number of features; the last is ``"statistics"``.
        mean, spread: ``(F,)``, of the features of many photographs; NaN where nobody has looked at any.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, stages: Mapping[str, int]) -> None:
        super().__init__()
        self.groups = {**stages, "statistics": COUNT}
        for name in ("mean", "spread"):
            self.register_buffer(name, torch.full((sum(self.groups.values()),), float("nan")))

    def known(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Name of a group -> mean and deviation of its features among photographs; empty where nobody has looked."""
        if bool(self.mean.isnan().any()):
            return {}
        parts = (torch.split(values, [*self.groups.values()]) for values in (self.mean, self.spread))
        return dict(zip(self.groups, zip(*parts, strict=True), strict=True))

    @property
    def channels(self) -> list[int]:
        """C of each map of :meth:`stages`."""
        raise NotImplementedError

    def stages(self, pixels: Tensor) -> list[Tensor]:
        """Maps ``(B, C, ., .)``, in the order of the groups."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Side:
        """Stay in evaluation mode: it is frozen, and so are the statistics of its normalisations."""
        return super().train(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features ``(B, F)``."""
        found = [pooled(states).float() for states in self.stages(pixels)]
        return torch.cat([*found, picture_statistics(pixels.float())], 1)


class EmbeddedSide(Side):
    """EfficientNet-Lite0's last two stages (``deep``), and three of those before them (``mid``)."""

    def __init__(self) -> None:
        second, third, fifth, sixth, last = (2 * EfficientNetLite0.channels[at] for at in (1, 2, 4, 5, 6))
        super().__init__({"deep": sixth + last, "mid": second + third + fifth})
        self.trunk = EfficientNetLite0()

    @property
    def channels(self) -> list[int]:
        """Deep ones first."""
        return [self.trunk.channels[at] for at in (5, 6, 1, 2, 4)]

    def stages(self, pixels: Tensor) -> list[Tensor]:
        """Deep ones first."""
        _, second, third, _, fifth, sixth, last = self.trunk(pixels.to(self.trunk.stem.weight))
        return [sixth, last, second, third, fifth]


class BackboneSide(Side):
    """Any backbone that transformers knows; a group for each of its feature maps.

    Args:
        config: of an ``AutoBackbone``, as its dictionary.
        image_mean, image_std: with which the backbone wants its pixels.
    """

    def __init__(self, config: Mapping[str, Any], image_mean: Sequence[float], image_std: Sequence[float]) -> None:
        values = dict(config)
        backbone = AutoBackbone.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
        super().__init__({name: 2 * c for name, c in zip(backbone.out_features, backbone.channels, strict=True)})
        self.backbone, self.image_mean, self.image_std = backbone, list(image_mean), list(image_std)

    @property
    def channels(self) -> list[int]:
        """As the backbone gives them."""
        return list(self.backbone.channels)

    def stages(self, pixels: Tensor) -> list[Tensor]:
        """As the backbone gives them."""
        values = normalize(255 * pixels, self.image_mean, self.image_std)
        return list(self.backbone(values.to(next(self.backbone.parameters()))).feature_maps)


def look_aside(side: Side, config: Any) -> Callable[[Tensor], Tensor]:
    """A function from values ``(B, 3, P, P)`` of a model with this configuration to the side's features."""

    def look(values: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = side(denormalize(values, config.image_mean, config.image_std))
        return found

    return look


def backbone_side(source: str, **options: Any) -> tuple[dict[str, Any], BackboneSide]:
    """Settings and network of a backbone of transformers' as a side network, with its weights.

    Args:
        source: folder or Hub id; of a model for classification, all its stages are seen.
        options: of ``from_pretrained``.

    Raises:
        OSError, ValueError: there is none.
    """
    config = AutoConfig.from_pretrained(source, **options)
    stages = getattr(config, "stage_names", None)
    if stages is not None:
        config.out_features = list(stages[1:])
    kind: Any = type(AutoBackbone.from_config(config))  # AutoBackbone's own from_pretrained asks the Hub for folders
    backbone = kind.from_pretrained(source, config=config, **options)
    try:
        processor: Any = AutoImageProcessor.from_pretrained(source, **options)
        mean, std = list(processor.image_mean), list(processor.image_std)
    except (OSError, ValueError, AttributeError):
        mean, std = list(IMAGENET_MEAN), list(IMAGENET_STD)
    values = {key: value for key, value in json.loads(config.to_json_string(False)).items() if not key.startswith("_")}
    settings = {"name": "backbone", "source": source, "config": values, "image_mean": mean, "image_std": std}
    side = make_side(settings)
    assert isinstance(side, BackboneSide)
    side.backbone.load_state_dict(backbone.state_dict())
    return settings, side


SIDE_SETTINGS, SIDE_WEIGHTS = "side_config.json", "side.safetensors"
"""Files of a side network beside a plain CLIP."""


def read_side(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], Side] | None:
    """Settings and network of the side that lies beside a CLIP in a folder; None where there is none.

    Raises:
        GRMPError: its files are damaged, or do not fit together.
    """
    place = Path(folder)
    if not (place / SIDE_SETTINGS).is_file():
        return None
    try:
        settings = dict(json.loads((place / SIDE_SETTINGS).read_text(encoding="utf-8")))
        side = make_side(settings)
        side.load_state_dict(load_file(place / SIDE_WEIGHTS))
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise GRMPError(
            f"Expected a side network in {SIDE_SETTINGS} and {SIDE_WEIGHTS} of {str(place)!r}, got {error}. Copy the "
            "folder again."
        ) from error
    return settings, side


def make_side(settings: Mapping[str, Any]) -> Side:
    """The side network that a configuration describes, its weights not loaded.

    Args:
        settings: ``name``: ``"efficientnet_lite0"``, or ``"backbone"`` with ``config``, ``image_mean``, ``image_std``
            and the ``source`` of its weights.

    Raises:
        GRMPError: another name, or settings that do not fit.
    """
    values = dict(settings)
    name, _ = values.pop("name", None), values.pop("source", None)
    kind = {"efficientnet_lite0": EmbeddedSide, "backbone": BackboneSide}.get(name)
    if kind is None:
        raise GRMPError(f"Expected a side network efficientnet_lite0 or backbone, got {name!r}. Update grmp_hf.")
    try:
        side: Side = kind(**values)
    except (TypeError, KeyError, ValueError) as error:
        raise GRMPError(f"Expected settings of the side network {name!r}, got {values}: {error}.") from error
    return side.requires_grad_(False).eval()
