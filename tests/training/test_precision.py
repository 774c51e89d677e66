from __future__ import annotations

import pytest
import torch

from grmp_hf.training import precision
from grmp_hf.training.recipes import FewShotRecipe, PretrainRecipe

CPU = torch.device("cpu")


@pytest.mark.parametrize(("avx512", "amx", "native"), [(False, False, False), (True, False, True), (False, True, True)])
def test_auto_is_what_the_processor_says(
    avx512: bool, amx: bool, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert precision.settle_bf16("auto", CPU) is native
    assert FewShotRecipe(bf16="auto").settled(CPU).bf16 is native
    assert PretrainRecipe().settled(CPU).bf16 is native
    for wanted in (True, False):
        assert FewShotRecipe(bf16=wanted).settled(CPU).bf16 is wanted


def test_other_devices_are_asked_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    assert precision.native_bf16(torch.device("cuda"))
    assert not precision.native_bf16(torch.device("mps"))
