"""Compression: JPEG 2000 and JPEG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from grmp_hf.data.distortions.pictures import Pixels

__all__ = ["jpeg", "jpeg2000"]


def jpeg2000(picture: Pixels, ratio: float, rng: np.random.Generator) -> Pixels:
    """Compress to one part in `ratio` of the bytes of the raw picture.

    Source: KADIS-700k, `imcompressjp2k`; the encoder is OpenJPEG here.
    """
    del rng
    return _compress(picture, "JPEG2000", irreversible=True, quality_mode="rates", quality_layers=[ratio])


def jpeg(picture: Pixels, quality: float, rng: np.random.Generator) -> Pixels:
    """Compress with a quality of the Independent JPEG Group's scale, 1 to 100.

    Source: KADIS-700k, `imcompressjpeg`.
    """
    del rng
    return _compress(picture, "JPEG", quality=round(quality))


def _compress(picture: Pixels, format: str, **options: object) -> Pixels:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format, **options)
    return np.asarray(Image.open(stream).convert("RGB"))
