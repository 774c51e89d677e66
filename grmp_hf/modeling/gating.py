"""Which expert judges a picture: distances to what has taught each of them, and weights from the distances.

A gate looks at the untouched base, so that what an expert learns changes no weight. Letters in shapes: B pictures, E
experts, K centres of an expert, D joint width.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from grmp_hf.errors import GRMPError
from grmp_hf.modeling.functional import unit_length
from grmp_hf.modeling.heads import Features

__all__ = [
    "CLUSTERS",
    "GATE_FILE",
    "TEMPERATURE",
    "Gate",
    "KMeansGate",
    "fit_centers",
    "gate_features",
    "nearest_alone",
    "nearest_center",
    "need_clustering",
    "oracle",
    "softmin",
]

Gate = Callable[[Features], Tensor]
"""What the untouched base says of B pictures -> weights ``(B, E)`` of the experts, rows summing to 1."""

CLUSTERS, TEMPERATURE = 128, 32.0
"""Centres of an expert at most, and the factor of the distances, as released."""

GATE_FILE = "gate.safetensors"
_RESTARTS, _ROUNDS = 20, 1000


def gate_features(features: Features) -> Tensor:
    """What a gate compares: the pooled embedding of each picture, of unit length, ``(B, D)``."""
    return unit_length(features.pooled().float())


def nearest_center(features: Tensor, centers: Tensor) -> Tensor:
    """Euclidean distance of each picture ``(B, D)`` to the nearest of some centres ``(K, D)``: ``(B,)``."""
    # Differences and not products: the same for a picture alone and among others, and exactly 0 at a centre.
    return torch.stack([(centers - picture).square().sum(-1).min().sqrt() for picture in features])


def softmin(distances: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Weights ``exp(-tau d_e) / sum_f exp(-tau d_f)``: the nearer an expert's pictures, the more it counts.

    Args:
        distances: ``(B, E)``.
        temperature: tau, finite and at least 0; 0 counts all alike.

    Returns:
        ``(B, E)``, rows summing to 1.

    Source: the gates of TSN-IQA (arXiv 2107.13429) and CL-BIQA (arXiv 2102.09717), as released.

    >>> [round(weight, 6) for weight in softmin(torch.tensor([[0.1, 0.2]], dtype=torch.float64))[0].tolist()]
    [0.960834, 0.039166]
    """
    return (-temperature * distances).softmax(-1)


def nearest_alone(distances: Tensor) -> Tensor:
    """All weight to the nearest expert, the first of equally near ones; shapes as for :func:`softmin`.

    >>> nearest_alone(torch.tensor([[0.2, 0.1, 0.1]]))
    tensor([[0., 1., 0.]])
    """
    return torch.zeros_like(distances).scatter(-1, distances.argmin(-1, keepdim=True), 1.0)


def oracle(expert: int, experts: int, pictures: int) -> Tensor:
    """The weights ``(B, E)`` of somebody who knows that all pictures are those of one expert.

    Args:
        expert: its number, from 0.
        experts: E.
        pictures: B.

    Raises:
        GRMPError: no such expert.
    """
    if not 0 <= expert < experts:
        raise GRMPError(f"Expected one of {experts} experts, numbered from 0, got {expert}.")
    return torch.eye(experts)[expert].expand(pictures, experts)


def need_clustering() -> None:
    """Raise where there is nothing to find clusters with.

    Raises:
        GRMPError: scikit-learn is not installed.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise GRMPError(
            "Expected scikit-learn, which finds the centres of a gate, and it is not installed. Install the extra: "
            "pip install 'grmp_hf[experts]'. Scoring with experts that exist does not need it."
        )


def fit_centers(features: Tensor, clusters: int = CLUSTERS, *, seed: int = 0) -> Tensor:
    """The centres by which an expert's pictures are known: K-means, the best of twenty starts.

    Args:
        features: ``(n, D)``, of :func:`gate_features`, of the pictures that have taught it.
        clusters: K at most; of fewer pictures each one is a centre.
        seed: of the starts; the result is a function of the arguments.

    Returns:
        ``(min(K, n), D)`` float32.

    Raises:
        GRMPError: no pictures, features that are not finite, or scikit-learn is not installed.
    """
    if features.ndim != 2 or not len(features) or clusters < 1:
        raise GRMPError(
            f"Expected features of some pictures and at least one cluster, got {tuple(features.shape)} and {clusters}."
        )
    if not bool(features.isfinite().all()):
        wrong = int((~features.isfinite().all(1)).sum())
        raise GRMPError(
            f"Expected finite features, got others of {wrong} of {len(features)} pictures. Look for pictures or "
            "weights of the base that are not finite."
        )
    own = features.detach().float().cpu().contiguous()
    if len(own) <= clusters:
        return own
    need_clustering()
    from sklearn.cluster import KMeans

    found = KMeans(clusters, n_init=_RESTARTS, max_iter=_ROUNDS, random_state=seed, algorithm="lloyd")
    return torch.from_numpy(found.fit(own.double().numpy()).cluster_centers_).float()


@dataclass(frozen=True)
class KMeansGate:
    """A :data:`Gate` by distances to the nearest centre of each expert's pictures.

    Attributes:
        centers: name of an expert -> ``(K, D)``; the order is that of the weights.
        temperature: of :func:`softmin`.

    Raises:
        GRMPError: centres of different widths, or none; or a temperature that is not finite, or below 0.
    """

    centers: Mapping[str, Tensor]
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        shapes = {name: tuple(found.shape) for name, found in self.centers.items()}
        if not shapes or any(len(shape) != 2 or not shape[0] for shape in shapes.values()):
            raise GRMPError(f"Expected centres (K, D) of every expert, got {shapes or 'none'}. Make the gate again.")
        if len({shape[1] for shape in shapes.values()}) > 1 or not 0 <= self.temperature < math.inf:
            raise GRMPError(
                f"Expected centres of one width and a finite temperature of at least 0, got {shapes} and "
                f"{self.temperature}. Make the gate again, of one base."
            )

    @property
    def experts(self) -> tuple[str, ...]:
        """Names, in the order of the weights."""
        return tuple(self.centers)

    def __call__(self, features: Features) -> Tensor:
        """Weights ``(B, E)``."""
        return softmin(self.distances(features), self.temperature)

    def distances(self, features: Features) -> Tensor:
        """Distances ``(B, E)`` of pictures to the nearest centre of each expert."""
        own = gate_features(features)
        found = [nearest_center(own, centers.to(own)) for centers in self.centers.values()]
        return torch.stack(found, dim=-1)

    def of(self, names: Sequence[str]) -> KMeansGate:
        """The gate of some of the experts, in that order.

        Raises:
            GRMPError: it does not know one of them.
        """
        missing = [name for name in names if name not in self.centers]
        if missing:
            raise GRMPError(f"Expected experts out of {', '.join(self.centers)}, got {', '.join(missing)}.")
        return KMeansGate({name: self.centers[name] for name in names}, self.temperature)

    def save(self, folder: str | Path) -> None:
        """Write ``gate.safetensors``: the centres by the names of the experts, the temperature in its metadata."""
        tensors = {name: found.detach().float().cpu().contiguous() for name, found in self.centers.items()}
        save_file(tensors, Path(folder) / GATE_FILE, metadata={"temperature": repr(self.temperature)})

    @classmethod
    def load(cls, folder: str | Path, names: Sequence[str]) -> KMeansGate:
        """The gate in a folder, its experts in an order that is given: a file of tensors keeps none.

        Raises:
            GRMPError: no such file, a damaged one, or one of other experts.
        """
        path = Path(folder) / GATE_FILE
        try:
            with safe_open(path, "pt") as file:
                centers = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                temperature = float((file.metadata() or {})["temperature"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise GRMPError(f"Expected the centres of a gate in {str(path)!r}, got {error}. Copy it again.") from error
        if centers.keys() != set(names):
            raise GRMPError(
                f"Expected the centres of {', '.join(names)} in {str(path)!r}, got those of {', '.join(centers)}. Copy "
                "the folder again."
            )
        return cls({name: centers[name] for name in names}, temperature)
