"""The patch embedding of a CLIP's vision tower, in full precision on every device."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PatchEmbedding", "exact_patches"]


class PatchEmbedding(nn.Conv2d):
    """A convolution whose stride is its kernel, as a product of matrices on GPUs.

    There, torch rounds convolutions to ten bits by default, which shows in the fourth digit of a score, and products of
    matrices not; the switch is one for the whole process, so it is left where its owner has it.
    """

    def forward(self, pixels: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, D, H / patch, W / patch)``."""
        found: Tensor = self.as_product(pixels) if pixels.is_cuda else super().forward(pixels)
        return found

    def as_product(self, pixels: Tensor) -> Tensor:
        """The same as a product of matrices."""
        (down, across), height, width = self.kernel_size, *pixels.shape[-2:]
        patches = F.unfold(pixels, self.kernel_size, stride=self.stride).transpose(1, 2)
        found = F.linear(patches, self.weight.flatten(1), self.bias).transpose(1, 2)
        return found.reshape(pixels.shape[0], -1, height // down, width // across)


def exact_patches(vision_model: nn.Module) -> None:
    """Let a CLIP's vision tower embed patches in full precision on every device, in place; its weights stay."""
    convolution = vision_model.get_submodule("embeddings.patch_embedding")
    if type(convolution) is nn.Conv2d:
        convolution.__class__ = PatchEmbedding
