"""``GRMPImageProcessor``: from a picture to its fixed views.

A photograph's quality is in its detail, so a view can be a crop of native pixels. The same picture always gives the
same views. Letters in shapes: B pictures, V views.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoImageProcessor, BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import IMAGE_PROCESSOR_NAME

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.configuration_grmp import CLIP_MEAN, CLIP_STD, GRMPConfig, model_place
from grmp_hf.modeling.functional import count_tiles
from grmp_hf.modeling.view_settings import NAMES, check_names, check_numbers

__all__ = ["TILES", "GRMPImageProcessor", "authors_training_view", "denormalize", "normalize", "preprocessing_in"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_CROPS = {  # share of the free space left of and above the crop
    "center": (0.5, 0.5),
    "top_left": (0.0, 0.0),
    "top_right": (1.0, 0.0),
    "bottom_left": (0.0, 1.0),
    "bottom_right": (1.0, 1.0),
}
TILES = "tiles"
"""Views, the last ones, that hold the picture of a side network."""
VIEWS = ("whole", "stretched", *_CROPS, TILES)
_ORIENTATION_TAG = 0x0112

_LARGE = 2**24
"""Pixels up to which a picture may grow when it is enlarged; of a larger one, crops are made without the rest."""

_MARGIN = 20
"""The reference stores pictures 20 pixels larger than its crops (244 for 224)."""


def normalize(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """``(pixels / 255 - mean) / std`` for ``(..., 3, H, W)`` in 0..255, as float32."""
    shape = (3, 1, 1)
    return (pixels.float() / 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)


def denormalize(values: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels ``(..., 3, H, W)`` of 8 bits, in [0, 1], from values of :func:`normalize`, as float32."""
    shape = (3, 1, 1)
    pixels = values.float() * torch.tensor(std, device=values.device).view(shape)
    pixels = pixels + torch.tensor(mean, device=values.device).view(shape)
    return (pixels.clamp(0, 1) * 255).round() / 255


def authors_training_view(pixels: Tensor, seed: int, size: int = 224) -> Tensor:
    """The reference's training crop of a batch of stored pictures.

    Row and column are drawn once for the whole batch from 0..19; the batch is mirrored if the column is below 10.

    Args:
        pixels: ``(B, 3, size + 20, size + 20)`` uint8.
        seed: the reference uses (batches in an epoch) x epoch + batch index.
        size: of the crop.

    Returns:
        ``(B, 3, size, size)``, normalised with ImageNet's mean and deviation.

    Source: docs/method.md; the reference's ``train``.
    """
    row, column, _ = torch.randint(0, _MARGIN, (3,), generator=torch.Generator().manual_seed(seed)).tolist()
    crop = pixels[..., row : row + size, column : column + size]
    return normalize(crop.flip(-1) if column < 10 else crop, IMAGENET_MEAN, IMAGENET_STD)


class GRMPImageProcessor(BaseImageProcessor):
    """Turns RGB pictures into V normalised views of ``size`` pixels.

    Views, by name:

    ===========================  ======================================================================================
    ``whole``                    shorter side resized to ``size`` (bicubic, antialiased), centre crop: CLIP's own
    ``stretched``                ``size + 20`` square without regard to proportions, bicubic without antialiasing,
                                 offset (10, 10): the reference's test view
    ``center``, ``top_left``,    native pixels at a fixed place
    ``top_right``, ...
    ``tiles``                    last, for a base with a side network: the whole picture, shrunk until its longer side
                                 is at most ``side_size``, mirrored at its edges to a square of it; its pixels, in
                                 their order, fill as many views as they need
    ===========================  ======================================================================================

    Native crops see the picture after at most one shrink, to a shorter side of ``shortest_edge_limit``; a picture whose
    shorter side is below ``size`` is enlarged to it.

    Args:
        size: side of each view, the image size of the CLIP.
        views: V names.
        view_weights: summing to 1, with which the model averages the views, ``tiles`` apart; None for equal ones.
        shortest_edge_limit: largest shorter side that is not shrunk before native crops; None for no limit.
        side_size: side of the square that ``tiles`` hold, a multiple of 32; None for twelve sevenths of ``size``.
        image_mean: of the three channels; CLIP's by default.
        image_std: likewise.
    """

    model_input_names = ["pixel_values"]

    def __init__(
        self,
        size: int = 224,
        views: Sequence[str] = ("whole",),
        view_weights: Sequence[float] | None = None,
        shortest_edge_limit: int | None = 768,
        image_mean: Sequence[float] = CLIP_MEAN,
        image_std: Sequence[float] = CLIP_STD,
        side_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        check_names(kwargs)
        super().__init__(**kwargs)
        given = {"view_weights": view_weights, "shortest_edge_limit": shortest_edge_limit, "side_size": side_size}
        given = {name: value for name, value in given.items() if value is not None}
        check_numbers(size=size, image_mean=image_mean, image_std=image_std, **given)
        unknown = [view for view in views if view not in VIEWS] if isinstance(views, list | tuple) else [views]
        if unknown or not views:
            raise GRMPError(f"Expected views out of {', '.join(VIEWS)}, got {views}.")
        averaged = list(views[:-1] if views[-1] == TILES else views)
        if not averaged or TILES in averaged:
            raise GRMPError(f"Expected {TILES} once, after at least one other view, got {list(views)}.")
        if view_weights is not None and len(view_weights) != len(averaged):
            raise GRMPError(f"Expected one weight for each of the {len(averaged)} views, got {len(view_weights)}.")
        if shortest_edge_limit is not None and shortest_edge_limit < size:
            raise GRMPError(f"Expected shortest_edge_limit of at least the size {size}, got {shortest_edge_limit}.")
        self.size, self.views = int(size), list(views)
        self.view_weights = None if view_weights is None else list(view_weights)
        self.shortest_edge_limit = shortest_edge_limit
        self.image_mean, self.image_std = list(image_mean), list(image_std)
        self.side_size = max(32 * round(size * 3 / 56), 32) if side_size is None else int(side_size)
        if self.side_size < 32 or self.side_size % 32:
            raise GRMPError(f"Expected a side_size that is a multiple of 32, got {side_size}.")

    @classmethod
    def authors(cls, size: int = 224) -> GRMPImageProcessor:
        """The reference's test preprocessing (docs/method.md)."""
        return cls(size, views=("stretched",), image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD)

    @classmethod
    def get_image_processor_dict(cls, name: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the settings; those of a plain CLIP become its own preprocessing, one ``whole`` view."""
        values, rest = super().get_image_processor_dict(model_place(name), **kwargs)
        if values.get("image_processor_type") == cls.__name__:
            return values, rest
        size = values.get("crop_size", values.get("size", 224))
        if isinstance(size, dict):
            size = size.get("height", size.get("shortest_edge", 224))
        own = {"size": size, **{key: values[key] for key in ("image_mean", "image_std") if key in values}}
        return {**own, "shortest_edge_limit": max(size, 768) if isinstance(size, int) else None}, rest

    @property
    def has_tiles(self) -> bool:
        """Whether the last views are for a side network."""
        return self.views[-1] == TILES

    @property
    def count(self) -> int:
        """V, of the views that a picture becomes."""
        return len(self.views) + self.has_tiles * (count_tiles(self.side_size, self.size) - 1)

    def settings(self) -> dict[str, Any]:
        """Everything that decides about the pixels, as JSON values."""
        return {name: getattr(self, name) for name in NAMES if name != "side_size" or self.has_tiles}

    def preprocess(self, images: Any, return_tensors: str = "pt", **kwargs: Any) -> BatchFeature:
        """Views of one picture or a list of them.

        Args:
            images: RGB PIL images, which are turned as their orientation tag says, or uint8 arrays ``(H, W, 3)``.
                Other modes: ``grmp_hf.data.images.to_rgb`` first.
            return_tensors: only ``"pt"``.

        Returns:
            ``pixel_values``, float32: ``(B, V, 3, size, size)``, or ``(B, 3, size, size)`` for one view.

        Raises:
            GRMPError: something that is not an RGB picture.
        """
        if return_tensors != "pt" or kwargs:
            raise GRMPError(
                f"Expected return_tensors='pt' and no other option, got {return_tensors!r}, {sorted(kwargs)}."
            )
        batch = images if isinstance(images, list | tuple) else [images]
        pixels = torch.stack([self.pixels(image) for image in batch])
        values = normalize(pixels, self.image_mean, self.image_std)
        return BatchFeature({"pixel_values": values[:, 0] if self.count == 1 else values})

    def to_dict(self) -> dict[str, Any]:
        """Settings and the class's name, as they are saved."""
        return {**self.settings(), "image_processor_type": type(self).__name__}

    def pixels(self, image: Image.Image | np.ndarray[Any, Any]) -> Tensor:
        """The views ``(V, 3, size, size)`` of one picture before normalisation, uint8."""
        picture = _rgb(image)
        views = np.empty((self.count, 3, self.size, self.size), np.uint8)
        native, whole = self._native(picture), _Resized(picture, self.size)
        for at, view in enumerate(self.views):
            if view == TILES:
                views[at:] = _tiles(picture, self.side_size, self.size)
            elif view == "stretched":
                views[at] = _stretched(picture, self.size)
            else:
                place = (0.5, 0.5) if view == "whole" else _CROPS[view]
                views[at] = _planes((whole if view == "whole" else native).crop(self.size, place))
        return torch.from_numpy(views)

    def uncropped(self, image: Image.Image | np.ndarray[Any, Any]) -> Image.Image:
        """The picture from which the first view is cut: sides of at least ``size``; of a thin picture, the view alone.

        Training that cuts at other places of it sees pixels of the same kind as scoring does.
        """
        picture = _rgb(image)
        if self.views[0] == "stretched":
            return Image.fromarray(np.ascontiguousarray(_stored(picture, self.size).transpose(1, 2, 0)))
        resized = _Resized(picture, self.size) if self.views[0] == "whole" else self._native(picture)
        if resized.is_large:  # a thin one: its middle
            return resized.crop(self.size, (0.5, 0.5))
        return resized.picture

    def _native(self, picture: Image.Image) -> _Resized:
        shorter = min(picture.size)
        limit = self.shortest_edge_limit
        return _Resized(picture, self.size if shorter < self.size else min(shorter, limit or shorter))


def preprocessing_in(folder: Any) -> dict[str, Any] | None:
    """Settings of the preprocessing that lies in the folder of a model; None where there is none, or no folder."""
    if not (Path(folder) / IMAGE_PROCESSOR_NAME).is_file():
        return None
    try:
        processor: GRMPImageProcessor = GRMPImageProcessor.from_pretrained(folder)
    except OSError:  # damaged; whoever scores with it is told
        return None
    return processor.settings()


class _Resized:
    """A picture resized so that its shorter side has ``target`` pixels, made when it is first needed.

    Of a picture that would become large, such as a thin one, each crop is made alone: memory depends on the crop.
    """

    def __init__(self, source: Image.Image, target: int) -> None:
        width, height = source.size
        shorter = min(width, height)
        self.source = source
        self.size = (int(width * target / shorter), int(height * target / shorter))  # cut off as CLIP does
        self.is_large = math.prod(self.size) > max(_LARGE, width * height)

    @functools.cached_property
    def picture(self) -> Image.Image:
        same = self.size == self.source.size
        return self.source if same else self.source.resize(self.size, Image.Resampling.BICUBIC)

    def crop(self, size: int, place: tuple[float, float]) -> Image.Image:
        """A square of ``size`` pixels with a share ``place`` of the free space left of and above it."""
        left, top = (int((side - size) * share) for side, share in zip(self.size, place, strict=True))
        box = (left, top, left + size, top + size)
        if not self.is_large:
            return self.picture if self.size == (size, size) else self.picture.crop(box)
        across, down = (side / full for side, full in zip(self.source.size, self.size, strict=True))
        in_source = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
        return self.source.resize((size, size), Image.Resampling.BICUBIC, box=in_source)


def _rgb(image: Any) -> Image.Image:
    if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
        return Image.fromarray(image)
    if isinstance(image, Image.Image) and image.mode == "RGB":
        turned = image.getexif().get(_ORIENTATION_TAG, 1) in range(2, 9)
        return ImageOps.exif_transpose(image) if turned else image
    got = f"mode {image.mode}" if isinstance(image, Image.Image) else f"{type(image).__name__}"
    shape = f" {image.dtype} {image.shape}" if isinstance(image, np.ndarray) else ""
    raise GRMPError(
        f"Expected an RGB picture (PIL, or a uint8 array of shape (height, width, 3)), got {got}{shape}. "
        "Open files with grmp_hf.data.images.decode_image, or convert with grmp_hf.data.images.to_rgb."
    )


def _stored(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    """Pixels ``(3, size + 20, size + 20)`` of a picture as the reference stores it."""
    stored = size + _MARGIN
    if picture.size == (stored, stored):
        return _planes(picture)
    pixels = np.empty((3, stored, stored), np.uint8)
    for channel, plane in enumerate(picture.split()):  # one at a time: as floats they take four times the memory
        values = torch.from_numpy(np.asarray(plane).astype(np.float32))[None, None]
        resized = F.interpolate(values, (stored, stored), mode="bicubic", align_corners=False)
        pixels[channel] = resized[0, 0].round().clamp(0, 255).to(torch.uint8).numpy()
    return pixels


def _stretched(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    offset = _MARGIN // 2
    return _stored(picture, size)[:, offset : offset + size, offset : offset + size]


def _tiles(picture: Image.Image, side: int, size: int) -> NDArray[np.uint8]:
    """The whole picture, at most ``side`` wide and high, mirrored to a square of that side: ``(T, 3, size, size)``.

    Mirrored, it keeps its proportions and the statistics of its details.
    """
    share = min(1.0, side / max(picture.size))
    width, height = (max(1, round(length * share)) for length in picture.size)
    pixels = _planes(picture if share == 1 else picture.resize((width, height), Image.Resampling.BICUBIC))
    square = np.pad(pixels, [(0, 0), *((0, side - length) for length in pixels.shape[1:])], mode="symmetric")
    tiles = count_tiles(side, size)
    filled = np.zeros((3, tiles * size * size), np.uint8)
    filled[:, : side * side] = square.reshape(3, -1)
    return filled.reshape(3, tiles, size, size).transpose(1, 0, 2, 3)


def _planes(picture: Image.Image) -> NDArray[np.uint8]:
    """Pixels ``(3, H, W)`` of a picture, as it holds them."""
    return np.asarray(picture).transpose(2, 0, 1)


AutoImageProcessor.register(GRMPConfig, image_processor_classes={"pil": GRMPImageProcessor}, exist_ok=True)
