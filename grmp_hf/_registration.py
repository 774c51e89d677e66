"""Make our model and our PEFT method known to transformers and peft, without importing either before it is needed.

A library that is already imported is told at once; one that is not is told right after it has been imported, through a
finder at the head of ``sys.meta_path`` that leaves once it has done so.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

__all__ = ["register_when_imported"]

# library module -> the module of ours that registers itself there when it is imported
_LISTENERS = {
    "peft": "grmp_hf.modeling.peft_prompts",
    "transformers.models.auto.configuration_auto": "grmp_hf.modeling.configuration_grmp",
    "transformers.models.auto.image_processing_auto": "grmp_hf.modeling.auto",
    "transformers.models.auto.modeling_auto": "grmp_hf.modeling.auto",
    #"transformers.pipelines": "grmp_hf.pipelines",
}


class _Announcing(importlib.abc.Loader):
    """Loads a module with its own loader, then imports our listener."""

    def __init__(self, loader: importlib.abc.Loader, listener: str) -> None:
        self._loader, self._listener = loader, listener

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None:
            spec.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        importlib.import_module(self._listener)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules that we listen for as the other finders do, and adds the listener."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        listener = _LISTENERS.get(fullname)
        if listener is None:
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next((found for finder in others if (found := finder.find_spec(fullname, path, target))), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Announcing(spec.loader, listener)
        return spec


def register_when_imported() -> None:
    """Register now where the library is there already, else as soon as it is imported."""
    for library, listener in _LISTENERS.items():
        if library in sys.modules:
            importlib.import_module(listener)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
