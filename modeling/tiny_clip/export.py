"""Last stage: write the student as a plain CLIP directory in half precision."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import CLIPModel, CLIPTokenizer

from .student import IMAGE_MEAN, IMAGE_STD, SIDE
from .tokenizer import save_tokenizer

CROPS = ("center", "top_left", "top_right", "bottom_left", "bottom_right")
VIEW_WEIGHTS = (0.6, 0.1, 0.1, 0.1, 0.1)


def preprocessing() -> dict[str, object]:
    """Five native crops with fixed weights: the views that say most about the quality of a photograph."""
    return {
        "image_processor_type": "GRMPImageProcessor",
        "crop_size": SIDE,
        "crops": list(CROPS),
        "view_weights": list(VIEW_WEIGHTS),
        "shortest_edge_limit": 768,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
    }


def export(model: CLIPModel, tokenizer: CLIPTokenizer, directory: Path) -> None:
    """Write config, fp16 weights, tokenizer and preprocessing; a README beside them is left alone."""
    directory.mkdir(parents=True, exist_ok=True)
    model.to(torch.float16).save_pretrained(directory)
    save_tokenizer(tokenizer, directory)
    (directory / "preprocessor_config.json").write_text(json.dumps(preprocessing(), indent=2) + "\n", encoding="utf-8")
