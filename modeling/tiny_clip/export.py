"""Last stage: write the student as a plain CLIP directory in half precision."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import CLIPModel, CLIPTokenizer

from grmp_hf.modeling.configuration_grmp import GRMPConfig
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor

from .student import IMAGE_MEAN, IMAGE_STD, SIDE

VIEWS = ("center", "top_left", "top_right", "bottom_left", "bottom_right")
VIEW_WEIGHTS = (0.6, 0.1, 0.1, 0.1, 0.1)
"""Native crops only: the detail that quality is in does not survive shrinking. Chosen on rated train pictures."""


def export(model: CLIPModel, tokenizer: CLIPTokenizer, directory: Path) -> None:
    """Write config, fp16 weights, tokenizer, views and the scorer's config; a README beside them is left alone."""
    directory.mkdir(parents=True, exist_ok=True)
    model.to(dtype=torch.float16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    views = GRMPImageProcessor(SIDE, VIEWS, VIEW_WEIGHTS, image_mean=IMAGE_MEAN, image_std=IMAGE_STD)
    views.save_pretrained(directory)
    scorer = GRMPConfig.from_pretrained(directory).to_diff_dict()
    settings = {name: value for name, value in scorer.items() if name not in ("_name_or_path", "_commit_hash")}
    settings["architectures"] = ["GRMPForImageQualityAssessment"]
    (directory / "scorer_config.json").write_text(
        json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )
