"""What all tests share: quiet offline libraries, tiny random CLIPs, and folders that a variable has to name."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

# Set before torch is imported, and inherited by every script that a test starts: tiny models are fastest on one thread,
# results then do not depend on the number of cores, and no test may reach a network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# With several threads MKL's last digit depends on where in memory a tensor lies, unless it is asked to repeat itself.
os.environ.setdefault("MKL_CBWR", "AUTO")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import CLIPConfig, CLIPModel

    from grmp_hf.features import FeatureStore
    from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
    from grmp_hf.scoring import Scorer


def folder_from(variable: str, what: str) -> Path:
    """The folder that an environment variable names: not set is a skip that says so, set but wrong is a failure."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set: it names the folder of {what}")
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"{variable} should name the folder of {what}, but {folder} is not a folder", pytrace=False)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _short_collections() -> None:
    """Garbage is looked for among new objects alone: a Trainer does so after each run, and libraries are large."""
    gc.collect()
    gc.freeze()


class Said(NamedTuple):
    """What a process has printed."""

    out: str
    errors: str


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Said]]:
    """`elsewhere(script, *arguments, code=0)`: run it in a new process with as many threads, in which nothing of ours
    is yet; it must end with the code.

    Text that is no path is the script itself. Other libraries are there already, which saves seconds.
    """
    if not hasattr(os, "fork"):
        pytest.skip("processes are not forked here")
    import torch

    folder, tests = tmp_path_factory.mktemp("elsewhere"), Path(__file__).parent
    server = subprocess.Popen(
        [sys.executable, str(tests / "scripts" / "forking.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), os.environ.get("PYTHONPATH", "")])},
    )

    def run(script: str | Path, *arguments: object, code: int = 0) -> Said:
        assert server.stdin is not None and server.stdout is not None
        if isinstance(script, str):
            (folder / "code.py").write_text(script, encoding="utf-8")
            script = folder / "code.py"
        server.stdin.write(json.dumps([torch.get_num_threads(), str(script), *map(str, arguments)]) + "\n")
        server.stdin.flush()
        ended = int(server.stdout.readline())
        said = Said(*((folder / name).read_text("utf-8") for name in ("out.txt", "errors.txt")))
        assert ended == code, said.errors[-2000:]
        return said

    yield run
    server.communicate()


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


@pytest.fixture(scope="session")
def make_scorer() -> Callable[..., GRMPForImageQualityAssessment]:
    """`make_scorer(seed, vision={...}, text={...}, **config)`: a small random zero-shot scorer with 64 tokens.

    Image 16, patch 4 (16 patches), widths 24 and 16, 3 layers each, joint width 12; all weights random, also norms and
    biases, so that nothing can be left out unnoticed.
    """
    import torch
    from transformers import CLIPConfig

    from grmp_hf.modeling.configuration_grmp import GRMPConfig
    from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment

    def make(
        seed: int = 0, *, vision: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **config: Any
    ) -> GRMPForImageQualityAssessment:
        tower: dict[str, Any] = {"num_hidden_layers": 3, "num_attention_heads": 4}
        sizes = {"hidden_size": 24, "intermediate_size": 48, "image_size": 16, "patch_size": 4}
        words = {"hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": 16, "vocab_size": 64}
        ids = {"bos_token_id": 62, "eos_token_id": 63, "pad_token_id": 63}
        clip = CLIPConfig(
            vision_config={**tower, **sizes, **(vision or {})},
            text_config={**tower, **words, **ids, **(text or {})},
            projection_dim=12,
        )
        anchors = {
            "quality_input_ids": [[62, 7, 7, 7, 7, word, 30, 31, 63] for word in (11, 12)],
            "semantic_anchors": ["a photo of a b", "a photo of a c d", "a photo of an e"],
            "semantic_input_ids": [[62, 1, 2, 3, 1, 4, 63], [62, 1, 2, 3, 1, 5, 6, 63], [62, 1, 2, 3, 8, 9, 63]],
            "placeholder_token_id": 7,
        }
        torch.manual_seed(seed)
        model = GRMPForImageQualityAssessment(GRMPConfig(clip_config=clip, **{**anchors, **config}))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=1.0 if "embedding" in name else parameter.shape[-1] ** -0.5)
                elif parameter.dim() == 1:
                    parameter.normal_(std=0.1).add_(float("norm" in name and name.endswith("weight")))
            model.clip.logit_scale.fill_(2.3)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def side_settings() -> dict[str, Any]:
    """Settings of a small ResNet with two stages as a side network."""
    sizes = {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "out_features": ["stage1", "stage2"]}
    means = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    return {"name": "backbone", "config": {"model_type": "resnet", **sizes}, **means}


@pytest.fixture
def make_sided(
    make_scorer: Callable[..., GRMPForImageQualityAssessment], side_settings: dict[str, Any]
) -> Callable[..., GRMPForImageQualityAssessment]:
    """`make_sided(side=5, **options)`: `make_scorer(**options)` with the small ResNet beside it, made from a seed."""
    import torch

    from grmp_hf.modeling.side import make_side

    def make(side: int = 5, **options: Any) -> GRMPForImageQualityAssessment:
        model = make_scorer(**options)
        torch.manual_seed(side)
        network = make_side(side_settings)
        for name, value in network.named_buffers():
            if name in ("mean", "spread"):  # NaN, which equals nothing
                value.fill_(float(name == "spread"))
            elif name.endswith("running_mean"):
                value.normal_(std=0.1)
        model.put_beside(side_settings, network)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def make_adapted(
    make_scorer: Callable[..., GRMPForImageQualityAssessment],
) -> Callable[..., PeftModel]:
    """`make_adapted(**options)`: `make_scorer()` with random prompts (4 text, 5 visual) in evaluation mode."""
    import torch
    from peft import get_peft_model

    from grmp_hf.modeling.peft_prompts import GRMPPromptConfig

    def make(base: GRMPForImageQualityAssessment | None = None, *, seed: int = 1, **options: Any) -> PeftModel:
        base = make_scorer() if base is None else base
        torch.manual_seed(seed)
        model = get_peft_model(base, GRMPPromptConfig(**{"visual_prompts": 5, "prompt_dropout": 0.0, **options}))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".grmp_" in name:
                    parameter.normal_(std=0.5).add_(float(name.endswith("norm.weight")))
        return model.eval()

    return make


@pytest.fixture(scope="session")
def golden(golden_folder: Path) -> dict[str, Tensor]:
    """Tensors of the small reference model: `state.`, `in.`, `out.`, `grad.`, `after5.`, `prep.`, ..."""
    from safetensors.torch import load_file

    return load_file(golden_folder / "official_small.safetensors")


@pytest.fixture
def make_golden_model(golden: dict[str, Tensor]) -> Callable[[], PeftModel]:
    """`make_golden_model()`: the reference's student as a model of ours, in evaluation mode, without dropout."""
    student = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "golden.py"))["student"]
    return lambda: student(golden)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a plain CLIP of 32 pixels with three views, weights large enough to tell pictures apart."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor

    folder = tmp_path_factory.mktemp("clip")
    tower: dict[str, Any] = {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_size": 16,
        "intermediate_size": 32,
    }
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(text_config=tower, vision_config={**tower, "image_size": 32, "patch_size": 8}, projection_dim=8)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embedding" not in name:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
        model.logit_scale.fill_(1.0)
    model.save_pretrained(folder)
    views, weights = ("whole", "center", "bottom_right"), (0.5, 0.3, 0.2)
    GRMPImageProcessor(32, views, weights, shortest_edge_limit=64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def adapter_folder(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an adapter of `clip_folder`, not trained, on a scale from 1 to 5 stars, with one view."""
    import torch
    from peft import get_peft_model

    from grmp_hf.modeling.modeling_grmp import GRMPForImageQualityAssessment
    from grmp_hf.modeling.peft_prompts import GRMPPromptConfig
    from grmp_hf.record import Record

    folder = tmp_path_factory.mktemp("adapters") / "stars"
    torch.manual_seed(1)
    config = GRMPPromptConfig(text_prompts=2, visual_prompts=3)
    model = get_peft_model(GRMPForImageQualityAssessment.from_pretrained(clip_folder), config)
    stars = {"low": 1.0, "high": 5.0, "higher_is_better": True, "unit": "stars"}
    settings = {"size": 32, "views": ["center"], "view_weights": None, "shortest_edge_limit": 48}
    record = Record.of(model.active_peft_config)
    record = dataclasses.replace(record, base=str(clip_folder), preprocessing=settings, scale=stars)
    record.attach(model.active_peft_config)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Twelve pictures of different sizes and contents in the folder `photos`."""
    import numpy as np
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    paths = []
    for index in range(12):
        random = np.random.default_rng(index)
        coarse = random.integers(0, 256, (3 + index, 4 + index % 5, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((40 + 7 * index, 90 - 4 * index), Image.Resampling.BICUBIC)
        paths.append(folder / f"{index:02}.png")
        picture.save(paths[-1])
    return paths


def write_pictures(folder: Path, count: int, *, seed: int, low: float, high: float, test: int = 0) -> Path:
    """Pictures whose ratings fall with their noise; the last `test` of them are marked as test."""
    (folder / "images").mkdir(parents=True)
    lines = ["image,mos" + (",split" if test else "")]
    order = np.random.default_rng(seed).permutation(count)
    for index, rank in enumerate(order):
        random = np.random.default_rng([seed, index])
        base = 128 + 60 * np.sin(np.arange(48) / random.uniform(3, 9))[None, :, None]
        pixels = np.clip(base + random.normal(0, 4 * rank, (40, 48, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
        part = "" if not test else ",test" if index >= count - test else ",train"
        lines.append(f"{index}.png,{high - (high - low) * rank / (count - 1):.4f}{part}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def stars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty-six pictures rated from 1 to 5, twelve of them marked as test."""
    return write_pictures(tmp_path_factory.mktemp("sets") / "stars", 36, seed=1, low=1, high=5, test=12)


@pytest.fixture(scope="session")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pictures rated from 0 to 100, none marked."""
    return write_pictures(tmp_path_factory.mktemp("sets") / "points", 30, seed=2, low=0, high=100)


def adapted(ratings: Path, scale: tuple[float, float], folder: Path) -> Path:
    """The folder of an adapter of the default base, which reads its side network."""
    import grmp_hf

    recipe = dataclasses.replace(grmp_hf.FewShotRecipe.named("default"), steps=3, blocks=1, batch_size=4)
    table = grmp_hf.read_ratings(ratings, scale=scale)
    grmp_hf.adapt(grmp_hf.load(), table, shots=8, recipe=recipe).save(folder)
    return folder


@pytest.fixture(scope="session")
def points_adapter(points: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the default base with its side network, on a scale from 0 to 100."""
    return adapted(points, (0, 100), tmp_path_factory.mktemp("adapted") / "points")


@pytest.fixture(scope="session")
def stars_adapter(stars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one, on a scale from 1 to 5."""
    return adapted(stars, (1, 5), tmp_path_factory.mktemp("adapted") / "stars")


@pytest.fixture(scope="session")
def base(clip_folder: Path) -> Scorer:
    """The scorer of the small random CLIP."""
    import grmp_hf

    return grmp_hf.load(clip_folder)


@pytest.fixture
def store(base: Scorer, tmp_path: Path) -> FeatureStore:
    """An empty store of features."""
    from grmp_hf.features import FeatureStore

    return FeatureStore(tmp_path / "features", base)
