"""Learn a head of two streams on tokens that are computed once (after LPF): python examples/lpf.py RATINGS OUTPUT

The tokens stay in OUTPUT-tokens, found by the content of each picture: a second run, on other labels, computes none.
"""

import dataclasses
import sys
from pathlib import Path

import torch

import grmp_hf
from grmp_hf.features import FeatureStore
from grmp_hf.training.shots import Columns
from grmp_hf.training.two_stream import TwoStreamRecipe, adapt_streams

ratings, output = sys.argv[1:]
table, base = grmp_hf.read_ratings(ratings), grmp_hf.load()
store = FeatureStore(Path(f"{output}-tokens"), base)
store.describe(table.rows, lambda what, share: print(f"{what}: {share:.0%}"), ["tokens"])
tokens = torch.from_numpy(store.pictures(table.rows, ["tokens"])["tokens"])
known = Columns({"labels": torch.tensor(table.quality, dtype=torch.float32), "tokens": tokens})
recipe = dataclasses.replace(TwoStreamRecipe.named("default"), steps=20)  # of 150, to be quick
model = adapt_streams(base.model, known, recipe=recipe, output_dir=f"{output}-run")
dataclasses.replace(base, model=model, scale=table.scale).save(output)
print(grmp_hf.load(adapter=output).score(table.rows[0].image).score)
