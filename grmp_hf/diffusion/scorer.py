"""A scorer on the prior of a diffusion model: prior, decoder, and the folder that both are kept in.

Letters in shapes: B pictures, S side of a picture, M channels and G side of the map of quality.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from grmp_hf.data.scales import RatingScale
from grmp_hf.diffusion.decoder import MultiScaleDecoder
from grmp_hf.diffusion.libraries import diffusers
from grmp_hf.diffusion.prior import DiffusionPrior
from grmp_hf.diffusion.sentences import sentence_bank
from grmp_hf.errors import GRMPError
from grmp_hf.modeling.heads import GRMPOutput
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor
from grmp_hf.saving import package_versions
from grmp_hf.scoring import Scorer

__all__ = ["SIZE", "DiffusionOutput", "DiffusionScorer", "as_scorer", "diffusion_processor"]

SIZE = 512
"""Side of the pictures that Stable Diffusion 1.5 has learnt from."""

SETTINGS, WEIGHTS = "diffusion_scorer.json", "diffusion_scorer.safetensors"
_PARTS = ("vae", "unet")


@dataclass
class DiffusionOutput(GRMPOutput):
    """What the scorer says.

    Attributes:
        quality_map: ``(B, M, G, G)``, at least 0: what the score is read from, and what a student learns.
    """

    quality_map: Tensor | None = None


class DiffusionScorer(nn.Module):
    """Quality as a decoder reads it from the maps of a diffusion model.

    The decoder's score lies on an open axis, ``mean``, which is learnt to be the quality itself; ``quality`` is its
    part within [0, 1].

    Args:
        prior: the provider of maps.
        decoder: for as many maps.

    Attributes:
        processor: makes the one view that it sees.
        scale: of the ratings that it has learnt from; None for 0 to 1.

    Source: DP-IQA (arXiv 2405.19996); where we differ stands in docs/decisions.md.
    """

    def __init__(self, prior: DiffusionPrior, decoder: MultiScaleDecoder) -> None:
        super().__init__()
        self.prior, self.decoder = prior, decoder
        self.processor = diffusion_processor()
        self.scale: RatingScale | None = None

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.decoder.parameters()).device

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> DiffusionOutput:
        """Score pictures ``(B, 3, S, S)``, or the only view ``(B, 1, 3, S, S)`` of each.

        Args:
            pixel_values: normalised by :func:`diffusion_processor`.
            labels: ``(B,)`` in [0, 1], for the mean squared error as ``loss``.

        Raises:
            GRMPError: several views.
        """
        if pixel_values.ndim == 5:
            if pixel_values.shape[1] != 1:
                raise GRMPError(
                    f"Expected one view of each picture, got {pixel_values.shape[1]}. Use diffusion_processor()."
                )
            pixel_values = pixel_values[:, 0]
        mean, quality_map = self.decoder(self.prior(pixel_values))
        loss = None if labels is None else (mean - labels.flatten().to(mean)).square().mean()
        return DiffusionOutput(loss=loss, quality=mean.clamp(0, 1), mean=mean, quality_map=quality_map)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write VAE and U-Net as diffusers does, each in a folder of its own, and the rest beside them.

        With it goes what :func:`as_scorer` was given: preprocessing and scale.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        for name in _PARTS:
            getattr(self.prior, name).save_pretrained(str(place / name))
        save_file(self._own(), place / WEIGHTS)
        score: Any = self.decoder.score
        decoder = {
            "grid": self.decoder.grid,
            "fused": self.decoder.fuse[0].out_channels,
            "narrowed": [layer.out_channels for layer in self.decoder.narrow if isinstance(layer, nn.Conv2d)],
            "hidden": score[0].out_features,
        }
        scale = None if self.scale is None else self.scale.to_dict()
        settings: dict[str, Any] = {"prior": self.prior.settings(), "decoder": decoder}
        settings |= {"preprocessing": self.processor.settings(), "scale": scale}
        (place / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def _own(self) -> dict[str, Tensor]:
        """All weights but those of VAE and U-Net."""
        others = tuple(f"prior.{name}." for name in _PARTS)
        return {name: value for name, value in self.state_dict().items() if not name.startswith(others)}

    @classmethod
    def from_pretrained(
        cls,
        place: str | os.PathLike[str],
        *,
        text: str | os.PathLike[str] | None = None,
        texts: Sequence[str] | None = None,
        decoder: dict[str, Any] | None = None,
        size: int | None = None,
        local_files_only: bool = False,
        **settings: Any,
    ) -> Self:
        """A scorer that was saved, or a new one around the parts of Stable Diffusion.

        Args:
            place: folder of :meth:`save_pretrained`; or folder or Hub id of a Stable Diffusion (``vae``, ``unet``,
                ``text_encoder``, ``tokenizer``), whose decoder and adapters begin at random.
            text: of a new one, folder or Hub id of a whole CLIP whose embeddings of the sentences are the condition,
                such as the ViT-L/14 that the authors take; None for the text encoder beside the U-Net.
            texts: of a new one, the sentences; see :func:`~grmp_hf.diffusion.sentences.sentence_bank`.
            decoder: of a new one, sizes of :class:`~grmp_hf.diffusion.decoder.MultiScaleDecoder`; its grid is the side
                of the latent if it is not named.
            size: of a new one, side of the pictures; :data:`SIZE` if None.
            local_files_only: never ask the network.
            settings: of a new one, as for :class:`~grmp_hf.diffusion.prior.DiffusionPrior`.

        Raises:
            GRMPError: diffusers is not installed, a part is missing or damaged, or there is no such setting.
        """
        if (Path(place) / SETTINGS).is_file():
            mine = {"text": text, "texts": texts, "decoder": decoder, "size": size}
            given = [name for name, value in mine.items() if value is not None]
            if given or settings:
                raise GRMPError(
                    f"Expected no settings for a scorer that was saved, got {', '.join([*given, *settings])}. It has "
                    "its own: leave them out."
                )
            return cls._saved(Path(place))
        _check_names(settings, DiffusionPrior, ("vae", "unet", "bank"), "settings")
        _check_names(decoder or {}, MultiScaleDecoder, ("channels",), "sizes of the decoder")
        vae, unet = _parts(place, local_files_only)
        prior = DiffusionPrior(vae, unet, _bank(place, text, texts, local_files_only), **settings)
        sizes = {"grid": (size or SIZE) // prior.reduction, **(decoder or {})}
        made = cls(prior, MultiScaleDecoder(prior.channels, **sizes))
        made.processor = diffusion_processor(size or SIZE)
        return made.eval()

    @classmethod
    def _saved(cls, folder: Path) -> Self:
        vae, unet = _parts(folder, True)
        try:
            settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
            own = load_file(folder / WEIGHTS)
            prior = DiffusionPrior(vae, unet, own["prior.bank"], **settings["prior"])
            made = cls(prior, MultiScaleDecoder(prior.channels, **settings["decoder"]))
            if "preprocessing" in settings:  # which earlier versions did not write
                made.processor = GRMPImageProcessor(**settings["preprocessing"])
                made.scale = None if settings["scale"] is None else RatingScale.from_dict(settings["scale"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise GRMPError(
                f"Expected a diffusion scorer in {str(folder)!r}, got {error}. Copy the folder again."
            ) from error
        expected = made._own()
        wrong = sorted(expected.keys() ^ own.keys())
        wrong += [name for name in expected.keys() & own.keys() if expected[name].shape != own[name].shape]
        if wrong:
            raise GRMPError(
                f"Expected exactly the weights of {SETTINGS} in {str(folder)!r}, got others: {', '.join(wrong[:3])}. "
                "Copy the folder again."
            )
        made.load_state_dict(own, strict=False)
        return made.eval()


def diffusion_processor(size: int = SIZE, view: str = "whole", *, signed: bool = False) -> GRMPImageProcessor:
    """The one view that a diffusion scorer sees.

    Args:
        size: its side.
        view: ``"whole"``: the centre of the picture, its shorter side ``size``; or ``"stretched"``: nearly all of it,
            squeezed to a square as the authors do.
        signed: pixels from -1 to 1, as Stable Diffusion's VAE has learnt them; else from 0 to 1, as the authors' code
            gives them to it.
    """
    shift = 0.5 if signed else 0.0
    return GRMPImageProcessor(size, (view,), image_mean=(shift,) * 3, image_std=(1 - shift,) * 3)


def as_scorer(
    model: DiffusionScorer, processor: GRMPImageProcessor | None = None, scale: RatingScale | None = None
) -> Scorer:
    """What scores files with a diffusion scorer; it is saved by ``model.save_pretrained``, with what is given here.

    Args:
        model: in evaluation mode.
        processor: such as :func:`diffusion_processor`; the model's own if None.
        scale: of the ratings that it has learnt from; the model's own if None.
    """
    model.processor, model.scale = processor or model.processor, scale or model.scale
    identity = {"model": "diffusion", "preprocessing": model.processor.settings(), "versions": package_versions()}
    return Scorer(model.eval(), model.processor, model.scale, identity)


def _check_names(given: Mapping[str, Any], kind: type[nn.Module], others: Sequence[str], what: str) -> None:
    """Raise for names that a part does not know, before anything large is loaded."""
    known = [name for name in inspect.signature(kind).parameters if name not in others]
    unknown = sorted(given.keys() - set(known))
    if unknown:
        raise GRMPError(f"Expected {what} out of {', '.join(known)}, got {', '.join(unknown)}. Check the spelling.")


def _parts(place: str | os.PathLike[str], local_files_only: bool) -> tuple[Any, Any]:
    library = diffusers()
    kinds = {"vae": library.AutoencoderKL, "unet": library.UNet2DConditionModel}
    try:
        found = [
            kind.from_pretrained(os.fspath(place), subfolder=name, local_files_only=local_files_only)
            for name, kind in kinds.items()
        ]
    except (OSError, ValueError, SafetensorError) as error:
        raise GRMPError(
            f"Expected the folders vae and unet of a Stable Diffusion in {os.fspath(place)!r}, got: "
            f"{str(error).strip().splitlines()[0]} Name such a folder, or a Hub id that can be reached."
        ) from error
    return found[0], found[1]


def _bank(
    place: str | os.PathLike[str],
    text: str | os.PathLike[str] | None,
    texts: Sequence[str] | None,
    local_files_only: bool,
) -> Tensor:
    options = {"local_files_only": local_files_only}
    weights = {**options, "dtype": torch.float32}
    try:
        if text is not None:
            tokenizer = CLIPTokenizer.from_pretrained(text, **options)
            return sentence_bank(CLIPModel.from_pretrained(text, **weights), tokenizer, texts)
        tokenizer = CLIPTokenizer.from_pretrained(place, subfolder="tokenizer", **options)
        encoder = CLIPTextModel.from_pretrained(place, subfolder="text_encoder", **weights)
        return sentence_bank(encoder, tokenizer, texts)
    except (OSError, ValueError) as error:
        raise GRMPError(
            f"Expected a CLIP for the sentences in {os.fspath(text or place)!r}, got: "
            f"{str(error).strip().splitlines()[0]} Name one: text=..."
        ) from error
