"""Make what explains scores of the embedded default: distortion and scene from its side network's features.

    pip install --no-deps -r modeling/requirements-tiny.txt
    python modeling/build_explainer.py --photos DIR [--work runs/explainer] [--out grmp_hf/assets/tiny]

Photographs are distorted with the package's own generator, and looked at by the side network; a logistic regression
learns the type of the distortion, or that there is none. The scene is that of the ImageNet class which the network
sees in the photograph before it is distorted (`modeling/tiny_clip`). No rating and no label of a person enters. Every
sixth photograph, in the order of names, is left for `benchmarks/bench_explain.py`.
"""

from __future__ import annotations

import argparse
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from tiny_clip.captions import SCENES
from tiny_clip.teacher import EfficientNetTeacher, Teacher, scene_probabilities

import grmp_hf
from grmp_hf.data.distortion_types import DISTORTION_TYPES, distortion_type
from grmp_hf.data.distortions import DISTORTIONS, LEVELS, distort
from grmp_hf.modeling.explaining import EXPLAINER, NONE, Probe, standardised
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor
from grmp_hf.pictures import read_picture

ROOT = Path(__file__).resolve().parent.parent
HELD_OUT = 6
"""One in so many photographs is held out: the last of each six."""
COPIES = 4
VALUES = (*DISTORTION_TYPES, NONE)
KINDS = {kind: [name for name in DISTORTIONS if distortion_type(name) == kind] for kind in DISTORTION_TYPES}
SEED = 20
MORE_OFTEN = math.log(len(DISTORTION_TYPES) / 2)
"""By which the logit of "none" is raised: two copies in thirteen have none, and half of the pictures are taken to."""

Pixels = NDArray[np.uint8]
Array = NDArray[Any]


class Fit(NamedTuple):
    """Groups of features, and the inverse strength of the penalty, chosen on train photographs."""

    groups: tuple[str, ...]
    strength: float


FITS = {"distortion": Fit(("mid", "statistics"), 0.03), "scene": Fit(("deep",), 0.001)}


def make_copy(photo: Image.Image, rng: np.random.Generator) -> tuple[Pixels, int]:
    """A photograph of 320 to 512 pixels on its longer side, distorted at any level or not, half of them as JPEG of good
    quality; and the index of the type among ``VALUES``. Types are equally likely, none twice as likely."""
    share = min(1.0, int(rng.integers(320, 513)) / max(photo.size))
    small = photo.resize([round(side * share) for side in photo.size], Image.Resampling.BICUBIC) if share < 1 else photo
    kind, pixels = (*VALUES, NONE)[rng.integers(len(VALUES) + 1)], np.asarray(small)
    if kind != NONE:
        name, level = rng.choice(KINDS[kind]), int(rng.choice(LEVELS))
        pixels = distort(pixels, str(name), level, seed=int(rng.integers(2**31)))
    if rng.random() < 0.5:
        stored = io.BytesIO()
        Image.fromarray(pixels).save(stored, "JPEG", quality=int(rng.integers(88, 98)))
        pixels = np.asarray(Image.open(stored).convert("RGB"))
    return pixels, VALUES.index(kind)


def find_scene(photo: Image.Image, teacher: Teacher) -> Array:
    """Scenes ``(1, 9)`` by what the teacher sees in a photograph at 224 pixels, the size that it was trained with."""
    whole = GRMPImageProcessor(224).pixels(photo).float()
    classes = teacher(whole).logits.softmax(-1).numpy()
    return scene_probabilities(classes, np.array([whole.mean() / 255], np.float32))


@torch.inference_mode()
def look(photos: list[Path], teacher: Teacher, copies: int) -> dict[str, Array]:
    """Of train photographs: ``side (n, F)`` of each copy, its type, its photograph, and scenes ``(n, 9)`` of that."""
    base, found = grmp_hf.load(), []
    processor, model = base.processor, cast(Any, base.model)
    for at, path in enumerate(photos):
        if at % HELD_OUT == HELD_OUT - 1:
            continue
        photo = read_picture(path)
        made = [make_copy(photo, np.random.default_rng([SEED, at, copy])) for copy in range(copies)]
        side = model.get_side(base.prepare(torch.stack([processor.pixels(pixels) for pixels, _ in made])))
        types, shown = np.array([kind for _, kind in made]), np.repeat(find_scene(photo, teacher), copies, 0)
        found.append({"side": side.numpy(), "type": types, "photo": np.full(copies, at), "scenes": shown})
        if at % 100 == 0:
            print(f"{at} of {len(photos)} photographs", flush=True)
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def fit(features: Array, labels: Array, count: int, strength: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight ``(A, F)`` and bias ``(A,)`` of a logistic regression; a value that no label has stays unlikely."""
    found = LogisticRegression(C=strength, max_iter=1000).fit(features, labels)
    weight, bias = np.zeros((count, features.shape[1])), np.full(count, -20.0)
    weight[found.classes_], bias[found.classes_] = found.coef_, found.intercept_
    return torch.from_numpy(weight).half(), torch.from_numpy(bias).half()


def build(photos: Path, work: Path, out: Path, teacher: Callable[[], Teacher], copies: int = COPIES) -> None:
    """Look at photographs, unless that is in the work folder, and fit both probes."""
    kept = work / "looked.npz"
    if not kept.is_file():
        work.mkdir(parents=True, exist_ok=True)
        files = sorted(path for path in photos.iterdir() if path.is_file())
        np.savez(kept, **cast(Any, look(files, teacher(), copies)))
    with np.load(kept) as stored:
        seen = {name: stored[name] for name in stored.files}
    side: Any = grmp_hf.load().model.side
    labels = {"distortion": (VALUES, seen["type"]), "scene": (SCENES, seen["scenes"].argmax(1))}
    features = torch.from_numpy(seen["side"])
    tensors, said = {}, {}
    for name, (values, column) in labels.items():
        groups, strength = FITS[name]
        phi = standardised(features, side, groups).numpy()
        inner = seen["photo"] // HELD_OUT % 5 == 4  # one in five train photographs, to see that the settings do
        probe = Probe(tuple(values), groups, *fit(phi[~inner], column[~inner], len(values), strength))
        right = (probe.logits(features, side).argmax(1).numpy() == column)[inner].mean()
        print(f"{name}: {right:.3f} of {inner.sum()} copies of other train photographs")
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = fit(phi, column, len(values), strength)
        if NONE in values:
            tensors[f"{name}.bias"][values.index(NONE)] += MORE_OFTEN
        said[name] = {"values": list(values), "groups": list(groups)}
    save_file(tensors, out / EXPLAINER, metadata={"axes": json.dumps(said)})
    print(f"{out / EXPLAINER}: {(out / EXPLAINER).stat().st_size:,} bytes")


def main() -> None:
    """Read the options and build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "explainer", help="for what was seen")
    parser.add_argument("--out", type=Path, default=ROOT / "grmp_hf" / "assets" / "tiny")
    args = parser.parse_args()
    torch.set_num_threads(1)
    build(args.photos, args.work, args.out, EfficientNetTeacher)


if __name__ == "__main__":
    main()
