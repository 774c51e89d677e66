"""Make our model and our PEFT method known to transformers and peft, without importing either before it is needed.

A library module that is already imported is told at once; one that is not is told right after it has been imported,
through a finder at the head of ``sys.meta_path``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from grmp_hf.embedded import EMBEDDED, embedded_folder

__all__ = ["register_when_imported"]

_SCORER_CONFIG = "scorer_config.json"
_CONFIGS = {
    "grmp": ("grmp_hf.modeling.configuration_grmp", "GRMPConfig"),
    "grmp_baked": ("grmp_hf.modeling.baked", "GRMPBakedConfig"),
    "grmp_baked_experts": ("grmp_hf.modeling.baked_experts", "GRMPBakedExpertsConfig"),
}


class _LazyConfigs(dict[str, Any]):
    """What was registered with ``AutoConfig`` by hand, with our configuration imported when it is looked up.

    The modules of transformers import each other in circles, so nothing of ours may be imported while one of them is.
    """

    def __getitem__(self, model_type: str) -> Any:
        if model_type in _CONFIGS and super().__getitem__(model_type) is None:
            module, name = _CONFIGS[model_type]
            self[model_type] = getattr(importlib.import_module(module), name)
            # These register themselves with the other Auto classes.
            importlib.import_module("grmp_hf.modeling.modeling_grmp")
            importlib.import_module("grmp_hf.modeling.image_processing_grmp")
        return super().__getitem__(model_type)


def _add_config(configuration_auto: ModuleType) -> None:
    mapping = configuration_auto.CONFIG_MAPPING
    missing = dict.fromkeys(name for name in _CONFIGS if name not in mapping._extra_content)
    if missing:
        mapping._extra_content = _LazyConfigs({**mapping._extra_content, **missing})


def _add_method(_: ModuleType) -> None:
    for method in ("peft_prompts", "peft_injection"):
        importlib.import_module(f"grmp_hf.modeling.{method}")


def _add_pipeline(_: ModuleType) -> None:
    importlib.import_module("grmp_hf.pipelines")


def _add_embedded(hub: ModuleType) -> None:
    """Let every loader of transformers find the base inside the package by its name, and never ask a hub for it.

    All of them look for files through two functions of one module, which has no hook for names; modules that have taken
    these functions from it already are given the new ones too.
    """
    if hasattr(hub.cached_files, "__wrapped__"):
        return
    found = {"cached_files": _wrap_cached_files(hub.cached_files), "resolve_revision": _wrap_revision(hub)}
    for module in [m for name, m in list(sys.modules.items()) if name.partition(".")[0] == "transformers"]:
        for name, function in found.items():
            if vars(module).get(name) is function.__wrapped__:
                setattr(module, name, function)


def _wrap_cached_files(cached_files: Callable[..., Any]) -> Any:
    @functools.wraps(cached_files)
    def find(path_or_repo_id: Any, filenames: list[str], **options: Any) -> Any:
        if path_or_repo_id != EMBEDDED:
            return cached_files(path_or_repo_id, filenames, **options)
        # A loader that knows nothing of the package takes a plain CLIP's configuration for another model's.
        names = [_SCORER_CONFIG if name == "config.json" else name for name in filenames]
        return cached_files(embedded_folder(), names, **options)

    return find


def _wrap_revision(hub: ModuleType) -> Any:
    @functools.wraps(hub.resolve_revision)
    def resolve(path_or_repo_id: Any, revision: str | None = None, **options: Any) -> Any:
        return revision if path_or_repo_id == EMBEDDED else resolve.__wrapped__(path_or_repo_id, revision, **options)

    return resolve


_LISTENERS: dict[str, Callable[[ModuleType], None]] = {
    "peft": _add_method,
    "transformers.utils.hub": _add_embedded,
    "transformers.models.auto.configuration_auto": _add_config,
    "transformers.pipelines": _add_pipeline,
}


class _Announcing(importlib.abc.Loader):
    """Loads a module with its own loader, then calls our listener."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _LISTENERS[module.__name__](module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that we listen for as the other finders do, and adds the listener."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _LISTENERS:
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next((found for finder in others if (found := finder.find_spec(fullname, path, target))), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Announcing(spec.loader)
        return spec


def register_when_imported() -> None:
    """Register now where the library is there already, else as soon as it is imported."""
    for library, listener in _LISTENERS.items():
        if library in sys.modules:
            listener(sys.modules[library])
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
