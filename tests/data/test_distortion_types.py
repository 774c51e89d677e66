from __future__ import annotations

import pytest

from grmp_hf.data.distortion_types import _KADID, _NAMES, _TID2013, DISTORTION_NAMES, DISTORTION_TYPES, distortion_type
from grmp_hf.data.distortions import DISTORTIONS
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.templates import AXES

PUBLISHED = {
    "jpeg2000 compression": "jpeg2000",
    "jpeg compression": "jpeg",
    "white noise": "noise",
    "fastfading": "jpeg2000",
    "shifting": "blur",
    "color quantization": "quantization",
    "sharpness": "contrast",
    "shifting the mean": "other",
    "realistic contrast change": "contrast",
}


def test_33_published_names_stand_for_eleven_types() -> None:
    names = [name for names in _NAMES.values() for name in names]
    assert len(names) == len(set(names)) == 33 and AXES["distortion"] == DISTORTION_TYPES
    assert {name: distortion_type(name) for name in PUBLISHED} == PUBLISHED
    assert {distortion_type(name) for name in names} == set(DISTORTION_TYPES)


def test_every_type_of_the_generator_is_that_of_kadid10k() -> None:
    by_number = [distortion_type(f"{number:02}", "kadid10k") for number in range(1, 26)]
    assert [distortion_type(kind) for kind in DISTORTIONS] == by_number == [distortion_type(name) for name in _KADID]
    assert by_number[3:6] == ["color", "blur", "quantization"] and by_number[23:] == ["contrast", "contrast"]


def test_numbers_are_read_by_data_set() -> None:
    assert len(_TID2013) == 24
    assert [distortion_type(n, "tid2013") for n in ("01", "08", "10", "18")] == ["noise", "blur", "jpeg", "color"]
    for number, data_set in (("0", "tid2013"), ("25", "tid2013"), ("26", "kadid10k"), ("3", None), ("3", "pipal")):
        with pytest.raises(GRMPError, match=f"Expected the name of a distortion, got '{number}'"):
            distortion_type(number, data_set)


@pytest.mark.parametrize("spelt", ["JPEG-2000", " jp2k ", "Jpeg2000", "jpeg2000_compression", "fast fading"])
def test_spelling_does_not_matter(spelt: str) -> None:
    assert distortion_type(spelt) == "jpeg2000"


def test_an_unknown_name_is_refused_with_the_near_ones() -> None:
    with pytest.raises(GRMPError, match=r"got 'gausian blurr' \(did you mean 'gaussian blur'"):
        distortion_type("gausian blurr")
    with pytest.raises(GRMPError, match=r"got 'zzz'\. Name one of the types jpeg2000, jpeg, noise"):
        distortion_type("zzz")
    assert all(name == name.lower() for name in DISTORTION_NAMES)
