"""What all tests share: quiet offline libraries, tiny random CLIPs, and folders that a variable has to name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Set before torch is imported, and inherited by every script that a test starts: tiny models are fastest on one thread,
# results then do not depend on the number of cores, and no test may reach a network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest

if TYPE_CHECKING:
    from transformers import CLIPConfig, CLIPModel


def folder_from(variable: str, what: str) -> Path:
    """The folder that an environment variable names: not set is a skip that says so, set but wrong is a failure."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: it names the folder of {what}")
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"{variable} should name the folder of {what}, but {folder} is not a folder", pytrace=False)
    return folder


@pytest.fixture(scope="session")
def biq2021_folder() -> Path:
    """Folder with labels.csv (image, mos, split, subset) and images/, photographs of BIQ2021 with human ratings."""
    return folder_from("GRMP_HF_TEST_BIQ2021", "BIQ2021 photographs with labels.csv")


@pytest.fixture(scope="session")
def labels_folder() -> Path:
    """Folder with the published label files of the benchmarks, one folder a data set, no pictures."""
    return folder_from("GRMP_HF_TEST_LABELS", "published label files")


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Folder with the safetensors files that the authors' own modules produced."""
    return folder_from("GRMP_HF_TEST_GOLDEN", "golden numbers from the authors' modules")


@pytest.fixture
def tiny_clip_config() -> CLIPConfig:
    """Two small towers with CLIP's own vocabulary: image 32, patch 8 (16 patches), widths 32 and 24, joint 16."""
    from transformers import CLIPConfig

    tower: dict[str, Any] = {"num_hidden_layers": 3, "num_attention_heads": 4, "attention_dropout": 0.0}
    return CLIPConfig(
        text_config={**tower, "hidden_size": 24, "intermediate_size": 48, "max_position_embeddings": 77},
        vision_config={**tower, "hidden_size": 32, "intermediate_size": 64, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )


@pytest.fixture
def make_tiny_clip(tiny_clip_config: CLIPConfig) -> Callable[[int], CLIPModel]:
    """`make_tiny_clip(seed)`: a tiny CLIP in evaluation mode whose weights are large enough to tell pictures apart."""
    import torch
    from transformers import CLIPModel

    def make(seed: int = 0) -> CLIPModel:
        torch.manual_seed(seed)
        model = CLIPModel(tiny_clip_config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1 and "embedding" not in name:
                    parameter.normal_(std=parameter.shape[-1] ** -0.5)
        return model.eval()

    return make
