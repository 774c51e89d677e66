"""Every text of the recipe: quality anchors, levels, distortions, scenes and ImageNet classes."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

PLACEHOLDER = "X"
QUALITY_ANCHORS = ("X X X X high quality.", "X X X X low quality.")
"""The two texts of zero-shot scoring; soft prompts later take the places of the four X."""

ALTERNATIVE_ANCHORS = (
    ("a photo of high quality.", "a photo of low quality."),
    ("high quality.", "low quality."),
    ("a good photo.", "a bad photo."),
)
LEVELS = ("bad", "poor", "fair", "good", "perfect")
LEVEL_CAPTIONS = tuple(f"a photo of {level} quality." for level in LEVELS)

SCENES = ("animal", "cityscape", "human", "indoor", "landscape", "night", "plant", "still_life", "others")
SCENE_CAPTIONS = tuple(f"a photo of a {scene}" for scene in SCENES)

DISTORTION_WORDS = {
    "none": "no",
    "blur": "blur",
    "motion": "motion blur",
    "low_resolution": "low resolution",
    "noise": "noise",
    "jpeg": "compression",
    "over": "bright exposure",
    "under": "dark exposure",
    "contrast": "low contrast",
    "banding": "banding",
    "haze": "haze",
    "colour": "wrong colour",
}
DISTORTIONS = tuple(DISTORTION_WORDS)
DISTORTION_CAPTIONS = tuple(f"a photo with {words} artifacts." for words in DISTORTION_WORDS.values())

SCENE_TABLE = Path(__file__).with_name("imagenet_scenes.tsv")


@cache
def imagenet_classes() -> tuple[tuple[str, int], ...]:
    """Name and scene index of the 1,000 ImageNet classes, in the order of the classifier's outputs.

    The table beside this file assigns the scenes by hand, class by class; names are the first lemma of each WordNet
    synset. No class shows "night" well: the handful of light sources in the table is helped by brightness in
    ``scene_probabilities``.
    """
    with SCENE_TABLE.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    if [int(row["class"]) for row in rows] != list(range(1000)):
        raise ValueError(f"{SCENE_TABLE.name}: expected the classes 0 to 999 in order")
    return tuple((row["name"], SCENES.index(row["scene"])) for row in rows)


def class_captions() -> tuple[str, ...]:
    """One caption an ImageNet class."""
    return tuple(f"a photo of a {name}" for name, _ in imagenet_classes())


def all_captions() -> list[str]:
    """Every text that the model is trained on; the tokenizer's corpus."""
    alternatives = [text for pair in ALTERNATIVE_ANCHORS for text in pair]
    return [*QUALITY_ANCHORS, *alternatives, *LEVEL_CAPTIONS, *SCENE_CAPTIONS, *DISTORTION_CAPTIONS, *class_captions()]
