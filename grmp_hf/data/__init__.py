"""Pictures and ratings: decoding, reading tables, splits. Of the package it needs errors and scratch folders alone."""

from grmp_hf.data.benchmarks import BENCHMARKS, BenchmarkSpec
from grmp_hf.data.certainty import relative_noise
from grmp_hf.data.columns import ImageSource, RatedTable, Row
from grmp_hf.data.images import IMAGE_ERROR_CODES, MAX_PIXELS, ImageError, decode_image, to_rgb
from grmp_hf.data.listing import find_images
from grmp_hf.data.pairs import read_pairs
from grmp_hf.data.paper_splits import paper_splits
from grmp_hf.data.readers import read_benchmark
from grmp_hf.data.scales import RatingScale, infer_scale
from grmp_hf.data.sources import decode_row, iter_images, read_ratings
from grmp_hf.data.splits import Split, draw_shots, fold_splits, official_split, random_split, split_rows

__all__ = [
    "BENCHMARKS",
    "IMAGE_ERROR_CODES",
    "MAX_PIXELS",
    "BenchmarkSpec",
    "ImageError",
    "ImageSource",
    "RatedTable",
    "RatingScale",
    "Row",
    "Split",
    "decode_image",
    "decode_row",
    "draw_shots",
    "find_images",
    "fold_splits",
    "infer_scale",
    "iter_images",
    "official_split",
    "paper_splits",
    "random_split",
    "read_benchmark",
    "read_pairs",
    "read_ratings",
    "relative_noise",
    "split_rows",
    "to_rgb",
]
