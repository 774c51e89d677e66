"""Score with transformers' pipeline: python examples/pipeline.py MODEL PICTURE..."""

import sys

from transformers import pipeline

import grmp_hf  # noqa: F401 (makes the task known; a base, an adapter or a baked scorer can be named)

model, *pictures = sys.argv[1:]
scores = pipeline("image-quality-assessment", model=model)
for picture, found in zip(pictures, scores(pictures, batch_size=8), strict=True):
    print(picture, found["score"], found["quality"])
