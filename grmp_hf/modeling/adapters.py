"""What every kind of adapter shares: layers and tuners, and the model without it.

This file, :mod:`grmp_hf.modeling.brought_heads` and :mod:`grmp_hf.modeling.peft_prompts` are those that touch PEFT's
internals (tried with 0.21.2).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import peft
import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper, PeftType, register_peft_method
from safetensors import safe_open
from torch import Tensor, nn

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.modes import evaluating

__all__ = [
    "AdapterLayer",
    "AdapterTuner",
    "adapter_weights",
    "changes_embedding",
    "check_whole",
    "copy_base",
    "merged_copy",
    "put_apart",
    "register_method",
    "teacher_mode",
    "unload",
]

Model = TypeVar("Model", bound=nn.Module)


def copy_base(model: Model) -> Model:
    """A copy of a base whose modules and flags are its own and whose weights lie in the same memory.

    PEFT puts layers into the model that it is given and freezes its weights. Put into such a copy, they leave the base
    what it was, and any number of adapters can be learnt on one base without a second copy of its weights. What an
    adapter trains is its own: prompts, or the copies of modules that PEFT makes.

    Args:
        model: without an adapter.

    Raises:
        GRMPError: it carries an adapter, with which it is no base.
    """
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise GRMPError(
            "Expected a base without an adapter, got a model that carries one. Load the base again, or take it back "
            "with grmp_hf.modeling.adapters.unload(model)."
        )
    shared = {id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, shared | {id(buffer): buffer for buffer in model.buffers()})


class AdapterLayer(nn.Module, BaseTunerLayer):
    """Around a module of the base: one module for each adapter, of which one is active."""

    adapter_layer_names: tuple[str, ...]
    standalone = "grmp_hf.modeling.baking.bake() for a standalone scorer"
    """What to do instead of a merge, for messages."""
    base_layer: Any
    # From BaseTunerLayer, which has no types:
    active_adapters: Any
    disable_adapters: Any
    set_adapter: Any
    _active_adapter: Any
    _move_adapter_to_device_of_base_layer: Any

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self.frozen_peft_weight_names: dict[str, tuple[str, ...]] = {}

    def add(
        self, adapter_name: str, module: nn.Module | None, *, frozen: bool, device: torch.device | None = None
    ) -> None:
        """Hold the module of an adapter; None where it has none of this kind."""
        container = self.adapter_layer_names[0]
        if module is not None:
            getattr(self, container)[adapter_name] = module
            if frozen:
                self.frozen_peft_weight_names[adapter_name] = (container,)
            self._move_adapter_to_device_of_base_layer(adapter_name, device)
        self.set_adapter(self.active_adapters)

    @property
    def active_module(self) -> Any:
        """The module in use, or None."""
        if self.disable_adapters:
            return None
        if len(self.active_adapters) > 1:
            raise GRMPError(
                f"Expected one active adapter, got {self.active_adapters}. Adapters of this kind cannot be added up: "
                "use set_adapter(name)."
            )
        container = getattr(self, self.adapter_layer_names[0])
        return next((container[name] for name in self.active_adapters if name in container), None)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: such an adapter is no change of weights."""
        raise GRMPError(
            "An adapter of this kind cannot be merged into the base: it changes none of its weights. Use unload() to "
            f"get the base back, or {self.standalone}."
        )

    def _get_base_layer_device_and_dtype(self, base_layer: nn.Module) -> tuple[torch.device | None, torch.dtype | None]:
        weight = next(base_layer.parameters(), None)  # the readout has none
        return (None, None) if weight is None else (weight.device, weight.dtype)


class AdapterTuner(BaseTuner):
    """What methods of ours share: they know their base, load exactly, and give the base back untouched.

    Their layers keep modules under names that begin with the method's prefix: ``<prefix>text.<adapter>.<tensor>``.
    """

    model: Any

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict[str, Any]) -> PeftConfig:
        if model_config.get("model_type") not in self.target_module_mapping:
            raise GRMPError(
                f"Expected a GRMPForImageQualityAssessment, got a model of type {model_config.get('model_type')!r}. "
                "Load the CLIP with GRMPForImageQualityAssessment.from_pretrained first."
            )
        return super()._prepare_adapter_config(peft_config, model_config)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        # PEFT's own copies ``weight`` from the child, which an encoder does not have.
        setattr(parent, child_name, new_module)

    def _put_around(
        self, wrap: Callable[[nn.Module], AdapterLayer], target: nn.Module, name: str, parent: nn.Module
    ) -> AdapterLayer:
        """The layer of ours around a module, which a first adapter puts there."""
        if isinstance(target, AdapterLayer):
            return target
        layer = wrap(target)
        layer._active_adapter = self.active_adapters
        self._replace_module(parent, name, layer, target)
        return layer

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: PeftConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        remapped = super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)
        own = re.compile(rf"\.({cls.prefix}\w+|modules_to_save)\.{re.escape(adapter_name)}\.")
        _check_exact({name: weight for name, weight in model.state_dict().items() if own.search(name)}, remapped)
        return remapped  # type: ignore[no-any-return]

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        # PEFT's own looks for the name at the end, but ours are modules with modules inside.
        return re.sub(rf"(\.{cls.prefix}\w+)\.{re.escape(adapter_name)}(?=\.)", r"\1", key)

    def unload(self) -> Any:
        """The untouched base; see :func:`unload`."""
        _drop_copies(self.model)
        return super().unload()


def unload(model: PeftModel) -> Any:
    """The untouched base of a model with adapters of any method; the model itself is of no use from then on.

    PEFT's own leaves trained copies of ``modules_to_save`` in the base. What was merged is taken out again to rounding.
    """
    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and module.merged:
            module.unmerge()
    _drop_copies(model.get_base_model())
    return model.unload()


def _drop_copies(base: nn.Module) -> None:
    """Put the original modules back in the place of PEFT's shells around them and their trained copies."""
    for key, module in list(base.named_modules()):
        if isinstance(module, AuxiliaryTrainingWrapper):
            parent, _, name = key.rpartition(".")
            setattr(base.get_submodule(parent), name, module.original_module)


def _check_exact(expected: dict[str, Tensor], got: dict[str, Tensor]) -> None:
    """Raise unless an adapter's file holds exactly the tensors that its config asks for."""
    missing, unexpected = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    resized = [
        f"{name} {tuple(got[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & got.keys())
        if got[name].shape != expected[name].shape
    ]
    if missing or unexpected or resized:
        raise GRMPError(
            f"Expected the {len(expected)} tensors of the adapter's config; missing: {missing or 'none'}, unexpected: "
            f"{unexpected or 'none'}, other sizes: {resized or 'none'}. The adapter's file is damaged or of another "
            "base."
        )


def check_whole(model: PeftModel, file: Path) -> PeftModel:
    """A model whose adapter was loaded; PEFT leaves weights that its file lacks as they began.

    Args:
        model: with the adapter "default", of any method.
        file: from which it was loaded.

    Raises:
        GRMPError: the file lacks some of its weights.
    """
    with safe_open(file, "pt") as found:
        got = set(found.keys())
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    if missing := sorted(expected.keys() - got):
        raise GRMPError(
            f"Expected the {len(expected)} tensors of the adapter's config in {file.name}, got {len(got)}, among which "
            f"{len(missing)} are missing ({missing[0]}, ...). Copy the file again; if the adapter was put around a "
            "model that had one already, learn it again on the base alone."
        )
    return model


@contextmanager
def put_apart(model: nn.Module) -> Iterator[None]:
    """Within this context LayerNorms that were merged are apart again, so that what is saved is what was learnt.

    PEFT merges one by putting it in the place of the base's, which is then what the adapter holds.
    """
    merged: Any = [layer for layer in model.modules() if isinstance(layer, LNTuningLayer) and layer.merged]
    try:
        for layer in merged:
            layer.unmerge()
        yield
    finally:
        for layer in merged:
            layer.merge()


@contextmanager
def teacher_mode(model: nn.Module) -> Iterator[None]:
    """Within this context the model is its untouched base: no adapter, evaluation mode, no gradient.

    Only flags of the layers are switched and put back, so no ``requires_grad`` changes (PEFT's own
    ``disable_adapter`` switches them on) and a graph built before can still be differentiated.
    """
    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    disabled = [layer._disable_adapters for layer in layers]
    try:
        for layer in layers:
            layer._disable_adapters = True
        with evaluating(model), torch.no_grad():
            yield
    finally:
        for layer, flag in zip(layers, disabled, strict=True):
            layer._disable_adapters = flag


def adapter_weights(model: nn.Module) -> set[int]:
    """Identities of the weights that the layers of adapters of any method have added to a model."""
    layers: Any = (layer for layer in model.modules() if isinstance(layer, BaseTunerLayer))
    kept = (getattr(layer, name) for layer in layers for name in layer.adapter_layer_names)
    return {id(weight) for container in kept for weight in container.parameters()}


def changes_embedding(model: Any) -> bool:
    """Whether the adapters that act in a model, whatever their method, change the embeddings of pictures.

    Args:
        model: a ``PeftModel``, or a ``GRMPForImageQualityAssessment``.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers: Any = (
        layer
        for part in (base.clip.vision_model, base.clip.visual_projection)
        for layer in part.modules()
        if isinstance(layer, BaseTunerLayer | AuxiliaryTrainingWrapper) and not layer._disable_adapters
    )
    return any(
        name in getattr(layer, container)
        for layer in layers
        for container in layer.adapter_layer_names
        for name in layer.active_adapters
    )


def merged_copy(module: nn.Module) -> nn.Module:
    """A copy of a module with the acting adapters of PEFT's own methods folded into its weights."""
    copied = copy.deepcopy(module)
    layers: Any = [m for m in copied.modules() if isinstance(m, BaseTunerLayer) and not isinstance(m, AdapterLayer)]
    for layer in layers:
        if not layer.disable_adapters:
            layer.merge()
        elif layer.merged:
            layer.unmerge()
    return copied


def register_method(name: str, config: type[PeftConfig], tuner: type[BaseTuner]) -> None:
    """Make a method known to PEFT under a name; harmless when it is known already.

    PEFT takes methods only whose name is a member of its closed enumeration, so the member is added first.

    Args:
        name: in small letters; configurations carry it in capitals as ``peft_type``.
        config: of its settings.
        tuner: puts an adapter of it around a model.
    """
    word = name.upper()
    if word not in PeftType.__members__:
        member = str.__new__(PeftType, word)
        member._name_, member._value_ = word, word
        PeftType._member_map_[word] = member
        PeftType._value2member_map_[word] = member
        PeftType._member_names_.append(word)
        type.__setattr__(PeftType, word, member)
    if PeftType[word] not in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING:
        register_peft_method(name=name, config_cls=config, model_cls=tuner)
