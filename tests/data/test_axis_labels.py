from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from grmp_hf.data.axis_labels import axis_labels
from grmp_hf.data.columns import Row
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.templates import AXES


def row(scene: str | None = None, distortion: str | None = None, dataset: str | None = None) -> Row:
    return Row(Path("a.png"), "a.png", 3.0, 0.5, scene=scene, distortion=distortion, dataset=dataset)


def test_scenes_may_be_several_and_distortions_are_of_their_data_set() -> None:
    rows = [
        row("Night scene; Still-life", "gaussian_blur"),
        row("others", "10", "kadid10k"),
        row(None, "10", "tid2013"),
        row("night, cityscape"),
    ]
    found = axis_labels(rows, AXES)
    assert list(found) == ["scene", "distortion"]
    scenes = [[AXES["scene"][at] for at in np.flatnonzero(line)] for line in found["scene"]]
    assert scenes == [["night", "still_life"], ["others"], [], ["cityscape", "night"]]
    kinds = [[AXES["distortion"][at] for at in np.flatnonzero(line)] for line in found["distortion"]]
    assert kinds == [["blur"], ["jpeg"], ["jpeg"], []]
    turned = {"distortion": AXES["distortion"][::-1], "level": ("bad", "good")}
    assert np.array_equal(axis_labels(rows, turned)["distortion"], found["distortion"][:, ::-1])


def test_what_nobody_asked_for_is_masked_and_what_is_asked_for_has_to_be_there() -> None:
    assert axis_labels([row("ss01"), row("ss02")], AXES) == {}, "subsets of BIQ2021 are no scenes"
    assert list(axis_labels([row(None, "blur")], AXES)) == ["distortion"]
    with pytest.raises(GRMPError, match="Expected a column 'scene' that says something of at least one picture"):
        axis_labels([row(None, "blur")], AXES, ["scene"])
    with pytest.raises(GRMPError, match="column 'scene', 'ss01': Expected the name of a scene"):
        axis_labels([row("ss01")], AXES, ["scene"])
    with pytest.raises(GRMPError, match="Expected axes out of distortion, which this model tells apart, got scene"):
        axis_labels([row("night")], {"level": ["a"], "distortion": ["blur"]}, ["scene"])


def test_unknown_names_beside_known_ones_are_refused() -> None:
    with pytest.raises(GRMPError, match=r"column 'scene', 'nigt': .*got 'nigt' \(did you mean 'night'"):
        axis_labels([row("night"), row("nigt")], AXES)
    with pytest.raises(GRMPError, match=r"column 'distortion', 'noize': .*did you mean 'noise'"):
        axis_labels([row(distortion="blur"), row(distortion="noize")], AXES)
    with pytest.raises(GRMPError, match="Expected a distortion out of jpeg, got 'blur', which is blur"):
        axis_labels([row(distortion="blur"), row(distortion="jpeg")], {"distortion": ["jpeg"]})
