"""Are the distortions that `grmp-iqa score --explain` names those that a photograph has, and are its scenes steady?

    python benchmarks/bench_explain.py --data BIQ2021 --livec LIVEC

Photographs that `modeling/build_explainer.py` has left out, and some of LIVE Challenge, are distorted with each of the
25 types of the package's generator, a fifth of the photographs at each level, at their own size. Beside what
`--explain` says stand chance, the sentences of the embedded CLIP (the published words, and those that it was taught),
and logistic regressions fitted to the other photographs here, on what the CLIP and the side network say. What was
computed of the pictures is kept in runs/explain.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import CACHE, add_folder, make_parser, need_folder, write_result
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from transformers import CLIPTokenizer

import grmp_hf
from grmp_hf.data.distortion_types import DISTORTION_TYPES, distortion_type
from grmp_hf.data.distortions import DISTORTIONS, LEVELS, distort
from grmp_hf.embedded import embedded_folder
from grmp_hf.modeling.explaining import EXPLAINER, NONE, read_probes, standardised
from grmp_hf.modeling.functional import anchor_logits
from grmp_hf.modeling.templates import AXES, sentences
from grmp_hf.pictures import read_picture

HELD_OUT = 6  # as in modeling/build_explainer.py
DISTORTED = {"biq2021": 40, "livec": 15}
"""Photographs of which every type is made; all that are held out are judged as they are, too."""
UNTOUCHED = {"biq2021": 200, "livec": 100}
PUBLISHED = {"jpeg2000": "jpeg2000"}  # the whole name is longer than the embedded text tower
TAUGHT = {
    "jpeg": "a photo with compression artifacts.",
    "noise": "a photo with noise artifacts.",
    "blur": "a photo with blur artifacts.",
    "color": "a photo with wrong color artifacts.",
    "contrast": "a photo with low contrast artifacts.",
    "overexposure": "a photo with bright exposure artifacts.",
    "underexposure": "a photo with dark exposure artifacts.",
    "spatial": "a photo with low resolution artifacts.",
    "quantization": "a photo with banding artifacts.",
}
"""Captions of `modeling/tiny_clip`, each for the type that it is nearest to."""

Array = NDArray[Any]
Looked = dict[str, Array]


def held_out(data: Path, livec: Path) -> dict[str, list[Path]]:
    """Photographs that taught nothing, in a random order that is always the same."""
    files = sorted(path for path in (data / "unlabelled").iterdir() if path.is_file())
    other = sorted(path for path in (livec / "images").iterdir() if path.is_file())
    found = {"biq2021": files[HELD_OUT - 1 :: HELD_OUT], "livec": other}
    return {name: random.Random(0).sample(paths, len(paths)) for name, paths in found.items()}


def versions(photos: list[Path], distorted: int, untouched: int) -> list[tuple[int, str, int]]:
    """Photograph, kind of distortion and level (0: as it is) of each picture; levels fall evenly on kinds."""
    made = [(at, kind, LEVELS[(at + n) % 5]) for at in range(distorted) for n, kind in enumerate(DISTORTIONS)]
    return made + [(at, NONE, 0) for at in range(min(untouched, len(photos)))]


def look(base: Any, name: str, photos: list[Path]) -> Looked:
    """``embeds``, ``side``, photograph, index of the type and level of every version; kept."""
    plan = versions(photos, DISTORTED[name], UNTOUCHED[name])
    key = hashlib.sha256(repr([plan, [path.name for path in photos]]).encode()).hexdigest()[:12]
    kept = CACHE / "explain" / f"{name}-{key}.npz"
    if not kept.is_file():
        found: dict[str, list[Array]] = {"embeds": [], "side": []}
        for at, kind, level in plan:
            pixels = np.asarray(read_picture(photos[at]))
            if level:
                pixels = distort(pixels, kind, level, seed=at)
            output = base.outputs(base.processor.pixels(pixels)[None], side=True)
            found["embeds"].append(output.image_embeds.float().numpy())
            found["side"].append(output.side.float().numpy())
        kept.parent.mkdir(parents=True, exist_ok=True)
        arrays: Any = {column: np.concatenate(parts) for column, parts in found.items()}
        np.savez(kept, **arrays)
    with np.load(kept) as stored:
        columns = {column: stored[column] for column in stored.files}
    values = (*DISTORTION_TYPES, NONE)
    types = [values.index(kind if kind == NONE else distortion_type(kind)) for _, kind, _ in plan]
    kinds = np.array([kind for _, kind, _ in plan])
    places = {"photo": np.array([at for at, *_ in plan]), "level": np.array([level for *_, level in plan])}
    return {**columns, **places, "type": np.array(types), "kind": kinds}


def zero_shot(base: Any, seen: Looked, texts: dict[str, str], values: tuple[str, ...]) -> Array:
    """Probabilities ``(n, A)`` of values by one sentence each; a value without sentence has none."""
    tokenizer, model = CLIPTokenizer.from_pretrained(embedded_folder()), base.model
    with torch.inference_mode():
        embeds = model.get_text_embeds(tokenizer(list(texts.values()))["input_ids"])
        shares = anchor_logits(torch.from_numpy(seen["embeds"]), embeds, model.clip.logit_scale).softmax(1).numpy()
    found = np.zeros((len(shares), len(values)))
    found[:, [values.index(name) for name in texts]] = shares
    return found


def learnt(base: Any, seen: Looked, axis: str) -> Array:
    """Probabilities ``(n, A)`` that the package gives."""
    probe = read_probes(Path(embedded_folder()) / EXPLAINER)[axis]
    return probe.logits(torch.from_numpy(seen["side"]), base.model.side).softmax(1).numpy()


def fitted(features: Array, seen: Looked, strength: float) -> Array:
    """Types ``(n,)`` by five regressions, each of which a fifth of the photographs is left out of."""
    said, fold = np.zeros(len(features), int), seen["photo"] % 5
    for left in range(5):
        known = fold != left
        spread = features[known].std(0) + 1e-9
        scaled = (features - features[known].mean(0)) / spread
        model = LogisticRegression(C=strength, max_iter=1000, class_weight="balanced")
        said[~known] = model.fit(scaled[known], seen["type"][known]).predict(scaled[~known])
    return said


def recalls(said: Array, seen: Looked, of: Array) -> dict[str, float]:
    """Share of each type that is called so, among some pictures, and their mean."""
    each = {
        name: float((said[of & (seen["type"] == at)] == at).mean())
        for at, name in enumerate(DISTORTION_TYPES)
        if (of & (seen["type"] == at)).any()
    }
    return {**each, "mean": float(np.mean(list(each.values())))}


def rounded(figures: Any) -> Any:
    """Figures of three digits."""
    if isinstance(figures, dict):
        return {name: rounded(value) for name, value in figures.items()}
    return round(float(figures), 3)


def measure(base: Any, seen: Looked) -> dict[str, Any]:
    """All figures of one kind of photographs."""
    distorted, count = seen["level"] > 0, len(DISTORTION_TYPES)
    ours = learnt(base, seen, "distortion")
    published = {name: sentences({"distortion": [PUBLISHED.get(name, name)]})[0] for name in DISTORTION_TYPES}
    published["jpeg2000"] = "a photo with jpeg2000 artifacts"
    side = standardised(torch.from_numpy(seen["side"]), base.model.side, ("mid", "statistics")).numpy()
    among = {
        "explain": ours[:, :count].argmax(1),
        "sentences, published words": zero_shot(base, seen, published, DISTORTION_TYPES).argmax(1),
        "sentences, words it was taught": zero_shot(base, seen, TAUGHT, DISTORTION_TYPES).argmax(1),
    }
    mine = {name: column[distorted] for name, column in seen.items()}
    probes = {
        "regression here, embedding": fitted(seen["embeds"][distorted], mine, 0.1),
        "regression here, side network": fitted(side[distorted], mine, 0.1),
    }
    figures: dict[str, Any] = {"recall": {name: recalls(said, seen, distorted) for name, said in among.items()}}
    every = np.ones(int(distorted.sum()), bool)
    figures["recall"] |= {name: recalls(said, mine, every) for name, said in probes.items()}
    figures["by_level"] = {
        f"level {level}": {name: recalls(said, seen, seen["level"] == level)["mean"] for name, said in among.items()}
        for level in LEVELS
    }
    figures["by_kind"] = {
        kind: {"right": (among["explain"] == seen["type"])[seen["kind"] == kind].mean()} for kind in DISTORTIONS
    }
    names = (*DISTORTION_TYPES, NONE)
    figures["confusion"] = {
        name: {other: (ours.argmax(1)[seen["type"] == at] == to).mean() for to, other in enumerate(names)}
        for at, name in enumerate(names)
    }
    figures["sure"] = calibration(ours, seen["type"])
    figures["scenes"] = scenes(base, seen)
    counted: dict[str, Any] = rounded(figures)
    return {"pictures": len(seen["type"]), "photographs": len(set(seen["photo"])), **counted}


def calibration(shares: Array, types: Array) -> dict[str, Any]:
    """How likely the named types are said to be, and how often they are right, by thirds and overall."""
    top, right = shares.max(1), shares.argmax(1) == types
    parts = {"below .4": top < 0.4, ".4 to .7": (top >= 0.4) & (top < 0.7), "above .7": top >= 0.7, "all": top > 0}
    return {
        name: {"share": part.mean(), "said": top[part].mean(), "right": right[part].mean()}
        for name, part in parts.items()
    }


def scenes(base: Any, seen: Looked) -> dict[str, Any]:
    """How often a distorted photograph keeps the scene that it has as it is."""
    texts = {name: sentences({"scene": [name]})[0] for name in AXES["scene"]}
    found = {}
    for name, shares in (
        ("explain", learnt(base, seen, "scene")),
        ("sentences", zero_shot(base, seen, texts, AXES["scene"])),
    ):
        said = shares.argmax(1)
        first = {int(at): said[i] for i, at in enumerate(seen["photo"]) if seen["level"][i] == 0}
        distorted = seen["level"] > 0
        before = np.array([first[int(at)] for at in seen["photo"]])
        counts = np.bincount(said[seen["level"] == 0], minlength=9) / (seen["level"] == 0).sum()
        found[name] = {"kept": (said == before)[distorted].mean(), "most_frequent": counts.max()}
    return found


def main() -> None:
    """Measure and write the result."""
    parser = make_parser(__doc__)
    add_folder(parser, "--data", "GRMP_HF_TEST_BIQ2021", "BIQ2021")
    add_folder(parser, "--livec", "GRMP_HF_TEST_LIVEC", "the part of LIVE Challenge")
    args = parser.parse_args()
    places = held_out(*(need_folder(parser, getattr(args, name), f"--{name}") for name in ("data", "livec")))
    base = grmp_hf.load()
    result = {name: measure(base, look(base, name, photos)) for name, photos in places.items()}
    for name, figures in result.items():
        print(name, {method: row["mean"] for method, row in figures["recall"].items()}, figures["sure"]["all"])
    write_result("explain", {"chance": round(1 / len(DISTORTION_TYPES), 3), "worlds": result})


if __name__ == "__main__":
    main()
