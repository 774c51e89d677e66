"""``push``: the folder of an adapter or model -> the Hub; nothing heavy is imported for it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grmp_hf.cards import CARD, REPOSITORY, card_text
from grmp_hf.embedded import EMBEDDED
from grmp_hf.errors import GRMPError
from grmp_hf.places import hub_errors, is_hub_id
from grmp_hf.record import CONFIG_FILE, EXPERTS, EXPERTS_FILE, RECORD, Record, read_experts, read_settings

if TYPE_CHECKING:
    from huggingface_hub import HfApi

__all__ = ["push", "repository"]

_MODEL = "config.json"
_PUSHED = (
    "*.safetensors",
    "*config.json",
    f"*{RECORD}",
    EXPERTS_FILE,
    "*.safetensors.index.json",
    "tokenizer*",
    CARD,
    "metrics.json",
    "*.png",
)


def push(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    token: str | None = None,
    message: str = "Upload with grmp_hf",
) -> str:
    """Upload the folder of an adapter or model to the Hub: weights, settings, card and figures, no list of pictures.

    The card says the repository's own name where it said ``OWNER/NAME``. Checkpoints and hidden folders stay here.

    Args:
        folder: what :func:`grmp_hf.saving.save` or ``grmp-iqa adapt`` wrote.
        repo_id: "owner/name", or "name" alone for one of your own; made if it does not exist.
        private: who may see it; a repository that exists is never made public by this, nor used if it is public.
        revision: branch to commit to.
        token: else the one that the Hub's client has stored.
        message: of the commit.

    Returns:
        Address of the commit.

    Raises:
        GRMPError: nothing to push, a base that nobody else could load, no network, or no permission.
    """
    source = Path(folder)
    _check(source, repo_id)
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(token=token)
    with repository(api, repo_id, private=private) as name:
        operations = [CommitOperationAdd(file, _content(source / file, name)) for file in _names(source)]
        done = api.create_commit(name, operations, commit_message=message, revision=revision)
    return str(done.commit_url)


@contextmanager
def repository(api: HfApi, repo_id: str, *, private: bool, dataset: bool = False) -> Iterator[str]:
    """A repository to commit to in the block, made if it does not exist: its name, with the owner of a bare one.

    Raises:
        GRMPError: it is public although a private one was asked for; no network, or no permission, in the block too.
    """
    kind = {"repo_type": "dataset"} if dataset else {}
    ask = api.dataset_info if dataset else api.model_info
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True, **kind).repo_id
        if private and not ask(repo_id).private:
            raise GRMPError(
                f"Expected {repo_id!r} to be private, but it is public. Choose another name, or allow it: --public "
                "(private=False)."
            )
        yield repo_id
    except GRMPError:
        raise
    except hub_errors() as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise GRMPError(
            f"Could not push to {repo_id!r} ({reason}). Check the network, the name and your token (`hf auth login`)."
        ) from error


def _check(source: Path, repo_id: str) -> None:
    """Refuse what cannot be pushed, before anybody is asked."""
    if not any((source / name).is_file() for name in (CONFIG_FILE, _MODEL, EXPERTS_FILE)):
        raise GRMPError(
            f"Expected {CONFIG_FILE} or {_MODEL} in the folder {str(source)!r}, found neither. Save there first."
        )
    if not is_hub_id(repo_id if "/" in repo_id else f"me/{repo_id}"):
        raise GRMPError(f"Expected the name of a repository, owner/name, got {repo_id!r}. Use letters, digits, - . _")
    for expert in (read_experts(source) or {}).get("experts", ()):
        _check_base(source / EXPERTS / expert)
    if (source / CONFIG_FILE).is_file():
        _check_base(source)


def _check_base(source: Path) -> None:
    """Refuse an adapter of a base that nobody else could load."""
    recorded: str | None = read_settings(source, source.name).get("base_model_name_or_path")
    inside = recorded is not None and re.fullmatch(r"[\w-]+", recorded) and (source / recorded).is_dir()
    if recorded != EMBEDDED and not inside and not is_hub_id(recorded or ""):
        raise GRMPError(
            f"Expected an adapter of a base that others can load, got one of {recorded!r} on this machine. Push "
            f"the base first and write its id as base_model_name_or_path into {CONFIG_FILE}."
        )


def _names(source: Path) -> list[str]:
    """Files to upload, relative to the folder."""
    from huggingface_hub.utils import filter_repo_objects

    files = (path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file())
    kept = [name for name in files if not any(part.startswith((".", "checkpoint-")) for part in name.parts)]
    names = [name.as_posix() for name in kept if name != Path(CARD)]
    return [CARD, *filter_repo_objects(names, allow_patterns=list(_PUSHED))]


def _content(path: Path, repo_id: str) -> Any:
    """What is uploaded of a file: the file, or the text of a card or record."""
    if path.name == RECORD:  # with the base that the settings name by now, and no place on this machine
        return Record.load(path.parent).text().encode()
    return _card(path.parent, repo_id) if path.name == CARD else str(path)


def _card(folder: Path, repo_id: str) -> bytes:
    """The card of a folder with the repository's name; one of ours where there is none or one that nobody filled in."""
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
    except FileNotFoundError:
        text = ""
    if not text.strip() or "[More Information Needed]" in text:
        try:
            figures = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            figures = None
        text = card_text(folder, figures, picture="scatter.png" if (folder / "scatter.png").is_file() else None)
    return text.replace(REPOSITORY, repo_id).encode()
