"""Values of settings, such as a recipe's: checked by the types of their fields, and by ranges that names share."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from grmp_hf.errors import GRMPError

__all__ = ["check_settings", "check_values"]

_PLAIN = (bool, int, float, str, type(None))
_FROM_0 = frozenset({"blocks", "epochs", "memory", "save_steps", "text_prompts", "views", "visual_prompts"})
_ABOVE_0 = frozenset({"inner_learning_rate", "semantic_temperature", "sigma"})
_SHARES = frozenset({"dropout", "held_out_share", "prompt_dropout", "warmup"})


def check_settings(settings: Any) -> None:
    """Raise for a field of a dataclass that cannot be; see :func:`check_values`."""
    check_values(type(settings), {field.name: getattr(settings, field.name) for field in fields(settings)})


def check_values(kind: type[Any], values: Mapping[str, Any], where: str = "") -> None:
    """Raise for values that a dataclass cannot have: of another type, no word of a set, or out of their range.

    Counts are at least 1, or what the mapping ``least`` of the class says; shares lie in [0, 1), and other numbers are
    finite and at least 0, or above it where the class names them in ``above_0``. Fields that are neither numbers nor
    words are passed over.

    Args:
        kind: the dataclass.
        values: of some of its fields, lists in the place of tuples allowed.
        where: they come from, for the message, such as " in 'recipe.yaml'".

    Raises:
        GRMPError: names the field, what it may be and what it is.
    """
    hints, least = get_type_hints(kind), getattr(kind, "least", {})
    for name, value in values.items():
        hint = hints[name]
        if not _is_plain(hint):
            continue
        if not _fits(value, hint):
            raise GRMPError(f"Expected {name} {_told(hint)}{where}, got {value!r}.{_remedy(value, hint)}")
        if isinstance(value, int | float) and not isinstance(value, bool):
            lowest = least.get(name, 0 if float in _parts(hint) or name in _FROM_0 else 1)
            _check_range(
                name, value, lowest, above_0=name in _ABOVE_0 or name in getattr(kind, "above_0", ()), where=where
            )


def _check_range(name: str, value: float, lowest: float, *, above_0: bool, where: str) -> None:
    if name in _SHARES:
        allowed, fits = "of at least 0 and below 1", 0 <= value < 1
    elif above_0:
        allowed, fits = "above 0", 0 < value < math.inf
    else:
        allowed, fits = f"of at least {lowest}", lowest <= value < math.inf
    if not fits:
        raise GRMPError(f"Expected {name} {allowed}{where}, got {value}.")


def _parts(hint: Any) -> tuple[Any, ...]:
    """The types that a union is one of, or the only one."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is_plain(hint: Any) -> bool:
    return all(get_origin(part) in (Literal, tuple) or part in _PLAIN for part in _parts(hint))


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type; True is no number, and 1 is no truth."""
    parts = _parts(hint)
    if len(parts) > 1:
        return any(_fits(value, part) for part in parts)
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple) and all(_fits(part, get_args(hint)[0]) for part in value)
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _told(hint: Any) -> str:
    """What a value may be, in words."""
    parts = _parts(hint)
    if any(get_origin(part) is Literal for part in parts):
        words = [word for part in parts for word in (("true", "false") if part is bool else get_args(part))]
        return f"out of {', '.join(words)}"
    return f"of type {hint.__name__ if isinstance(hint, type) and not get_args(hint) else hint}"


def _remedy(value: Any, hint: Any) -> str:
    return " YAML takes 1e-3 for a text: write 0.001." if hint is float and isinstance(value, str) else ""
