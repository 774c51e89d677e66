"""Last stage: write the student as a plain CLIP directory in half precision."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import CLIPModel, CLIPTokenizer

from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor

from .student import IMAGE_MEAN, IMAGE_STD, SIDE

VIEWS = ("center", "top_left", "top_right", "bottom_left", "bottom_right")
VIEW_WEIGHTS = (0.6, 0.1, 0.1, 0.1, 0.1)
"""Native crops only: the detail that quality is in does not survive shrinking. Chosen on rated train pictures."""


def export(model: CLIPModel, tokenizer: CLIPTokenizer, directory: Path) -> None:
    """Write config, fp16 weights, tokenizer and views; a README beside them is left alone."""
    directory.mkdir(parents=True, exist_ok=True)
    model.to(dtype=torch.float16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    views = GRMPImageProcessor(SIDE, VIEWS, VIEW_WEIGHTS, image_mean=IMAGE_MEAN, image_std=IMAGE_STD)
    views.save_pretrained(directory)
