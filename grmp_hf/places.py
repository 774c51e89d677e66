"""Names of models, adapters and data sets: which may be asked of the Hub, and whether the Hub can be asked at all."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grmp_hf.embedded import EMBEDDED
from grmp_hf.errors import GRMPError

__all__ = [
    "asking_nobody",
    "cached_only",
    "check_data",
    "check_place",
    "hub_errors",
    "is_hub_id",
    "is_public_id",
    "spelling",
]

_WORD = r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?"
_HUB_ID = re.compile(rf"{_WORD}/{_WORD}", re.ASCII)
_FILE = re.compile(r"\.(bin|ckpt|csv|gz|json|jsonl|md|onnx|parquet|pth?|py|safetensors|tar|tsv|txt|ya?ml|zip)$", re.I)
_PROBE_SECONDS = 10.0
_DIFFUSION, _LOW_LEVEL = "diffusion_scorer.json", "grmp_low_level"  # their own modules are heavy
_OF_ADAPTERS = ("adapter_config.json", "experts.json")
_BAKED = ("grmp_baked", "grmp_baked_experts")


def is_hub_id(name: str) -> bool:
    """Whether a name can be that of a repository, and has not the look of a path.

    >>> is_hub_id("openai/clip-vit-base-patch16"), is_hub_id("Qwen/Qwen2.5"), is_hub_id("runs/best.pt")
    (True, True, False)
    >>> [is_hub_id(name) for name in ("./a/b", "a/b/c", "a", "~/a", "C:\\\\a", "a/b/", "/a/b")]
    [False, False, False, False, False, False, False]
    """
    return bool(_HUB_ID.fullmatch(name)) and not _FILE.search(name) and "--" not in name and ".." not in name


def is_public_id(name: str) -> bool:
    """Whether a name can be that of a repository that others find: not the base inside the package."""
    return name != EMBEDDED and is_hub_id(name)


def check_place(name: str, what: str) -> None:
    """Refuse a name that is no folder here and is never asked of the Hub.

    Args:
        name: of a model or an adapter.
        what: how to call it in a message.

    Raises:
        GRMPError: it has the look of a path, is a file, or a folder of another kind of ours.
    """
    if name in ("default", EMBEDDED):
        return
    if os.path.isdir(name):
        _check_kind(Path(name), what)
        return
    if os.path.exists(name):
        raise GRMPError(f"{what}: expected a folder or a Hub id (owner/name), got the file {name!r}; name its folder.")
    if not is_hub_id(name):
        raise GRMPError(f"{what}: {name!r} is no folder here and no Hub id (owner/name). {spelling(name)}")


def _check_kind(folder: Path, what: str) -> None:
    """Refuse what this package saves and something else of it loads."""
    if (folder / _DIFFUSION).is_file():
        raise GRMPError(
            f"{what}: {str(folder)!r} holds a diffusion scorer; score with "
            f"grmp_hf.diffusion.scorer.as_scorer(DiffusionScorer.from_pretrained({str(folder)!r}))."
        )
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):  # nothing of the kind: whoever loads it says so
        return
    if kind == _LOW_LEVEL:
        raise GRMPError(
            f"{what}: {str(folder)!r} holds a low-level encoder, which scores nothing by itself; name it in a "
            f"configuration of grmp-iqa benchmark, {{method: grepq, low_level: {folder}}}."
        )
    if what.removeprefix("--") == "adapter" and not any((folder / name).exists() for name in _OF_ADAPTERS):
        held = "a baked scorer, with its adapter inside" if kind in _BAKED else f"a model of type {kind!r} alone"
        raise GRMPError(
            f"{what}: expected an adapter, got {str(folder)!r}, which holds {held}; name it with --model, or model=."
        )


def check_data(name: str) -> None:
    """Refuse the name of a table or data set that is nothing here and is never asked of the Hub.

    Raises:
        GRMPError: it is nothing here, and has the look of a path.
    """
    if not os.path.exists(name) and not is_hub_id(name):
        raise GRMPError(f"{name}: no such file or folder (data sets of the Hub are named owner/name). {spelling(name)}")


def spelling(name: str) -> str:
    """Advice about a name that led nowhere: the file or folder here that it nearly is, where there is one.

    >>> spelling("no/such/place"), spelling(".")
    ('Check the spelling.', 'Look at what is there.')
    """
    if os.path.exists(name):
        return "Look at what is there."
    path = Path(name).expanduser()
    if path.exists():  # a shell leaves a quoted ~ as it is
        return f"Did you mean {str(path)!r}?"
    try:
        others = [other for other in os.listdir(path.parent) if other != path.name]  # a link may lead nowhere
        close = difflib.get_close_matches(path.name, others, n=1, cutoff=0.75)
    except OSError:
        close = []
    return f"Did you mean {str(path.parent / close[0])!r}?" if close else "Check the spelling."


def hub_errors() -> tuple[type[Exception], ...]:
    """What the Hub's client raises: its own errors, and those of the library that it sends requests with."""
    return (ValueError, RuntimeError, *_network_errors())


def cached_only(name: str, revision: str | None = None, *, offline: bool = False, dataset: bool = False) -> bool:
    """Whether a repository's files can come from the cache alone: one question, where the clients retry for a minute.

    Args:
        name: "owner/name"; a folder's files are here anyway.
        revision: branch, tag or commit.
        offline: ask nobody.
        dataset: the repository is one of a data set.
    """
    if offline or os.path.isdir(name):
        return offline
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    ask = HfApi().dataset_info if dataset else HfApi().model_info
    try:
        ask(name, revision=revision, timeout=_PROBE_SECONDS)
    except HfHubHTTPError as error:  # an answer, if only that it does not exist
        return error.response is not None and error.response.status_code >= 500
    except _network_errors():
        return True
    return False


@contextmanager
def asking_nobody(needed: bool) -> Iterator[None]:
    """Where it is needed, the Hub's client sends nothing while the block lasts, not even its own questions.

    It is a switch of the whole process, for the command line alone.
    """
    if not needed:
        yield
        return
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _network_errors() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import HfHubHTTPError

    # Its base is the error of the client's own library, whose name differs between versions.
    return (OSError, *(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError"))
