"""A rule that weighs channels by how fast their losses fall."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.training.gradients import Gradients

__all__ = ["DynamicWeights", "Watching"]


@runtime_checkable
class Watching(Protocol):
    """A rule that depends on the losses so far; a checkpoint holds its state, so that a resumed run is the same."""

    def watch(self, losses: Mapping[str, float], epoch: int) -> None:
        """Note the mean loss of each channel in a step, of the whole batch, before the rule is asked for the step."""

    def state_dict(self) -> dict[str, Any]:
        """All that it has noted, as JSON takes it."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what was noted; an empty state is that of the beginning."""


class DynamicWeights:
    """Dynamic weight average: the sum over channels of their gradients, those with a slow loss weighted more::

        w_i(e) = K exp(r_i / T) / sum_j exp(r_j / T),    r_i = L_i(e - 1) / L_i(e - 2)

    ``L_i(e)`` is the mean over the steps of epoch e in which channel i counted, K the number of channels. In the first
    two epochs all weights are 1; the ratio of a channel that did not count in either of the two epochs is 1.

    Args:
        temperature: T, finite and above 0.

    Raises:
        GRMPError: a temperature that is not.

    Source: Liu, Johns and Davison, "End-to-end multi-task learning with attention" (CVPR 2019); temperature 2 in LIQE
    (arXiv 2303.14968).
    """

    def __init__(self, temperature: float = 2.0) -> None:
        if not 0 < temperature < math.inf:
            raise GRMPError(f"Expected a temperature above 0, got {temperature}.")
        self.temperature, self.epoch = temperature, 0
        self._sums: dict[str, dict[int, tuple[float, int]]] = {}

    def watch(self, losses: Mapping[str, float], epoch: int) -> None:
        """See :class:`Watching`; ``epoch`` counts from 0."""
        self.epoch = epoch
        for channel, loss in losses.items():
            self._sums.setdefault(channel, {})
            total, steps = self._sums[channel].get(epoch, (0.0, 0))
            self._sums[channel][epoch] = (total + float(loss), steps + 1)
        for sums in self._sums.values():
            for old in [at for at in sums if at < epoch - 2]:
                del sums[old]

    def weights(self) -> dict[str, float]:
        """Of every channel that has counted so far, in the epoch at hand; they sum to the number of channels."""
        if self.epoch < 2:
            return dict.fromkeys(self._sums, 1.0)
        ratios = {channel: self._ratio(sums) / self.temperature for channel, sums in self._sums.items()}
        most = max(ratios.values(), default=0.0)
        shares = {channel: math.exp(ratio - most) for channel, ratio in ratios.items()}
        return {channel: len(shares) * share / sum(shares.values()) for channel, share in shares.items()}

    def _ratio(self, sums: Mapping[int, tuple[float, int]]) -> float:
        means = [sums[at][0] / sums[at][1] for at in (self.epoch - 1, self.epoch - 2) if at in sums]
        return means[0] / means[1] if len(means) == 2 and means[1] > 0 else 1.0

    def __call__(self, gradients: dict[str, Gradients], parameters: Mapping[str, Tensor]) -> Gradients:
        """The weighted sum; a channel that nothing counted for adds nothing."""
        weights = self.weights()
        parts = [(weights.get(channel, 1.0), part) for channel, part in gradients.items()]
        return {name: torch.stack([weight * part[name] for weight, part in parts]).sum(0) for name in parameters}

    def state_dict(self) -> dict[str, Any]:
        """See :class:`Watching`."""
        sums = {channel: [[at, *pair] for at, pair in sums.items()] for channel, sums in self._sums.items()}
        return {"epoch": self.epoch, "sums": sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See :class:`Watching`."""
        self.epoch = int(state.get("epoch", 0))
        self._sums = {
            channel: {at: (total, steps) for at, total, steps in rows}
            for channel, rows in state.get("sums", {}).items()
        }
