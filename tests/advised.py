"""Advice that is tried: what is refused, what is advised there, and that doing it succeeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from grmp_hf.errors import GRMPError


class Case(NamedTuple):
    """A call with a place to work in that is refused, a pattern of the advice, and a call that follows it."""

    provoked: Callable[[Any], Any]
    advice: str
    followed: Callable[[Any], Any]


def follow(case: Case, place: Any) -> None:
    """Provoke a refusal, find its advice, and follow it."""
    with pytest.raises(GRMPError, match=case.advice):
        case.provoked(place)
    case.followed(place)
