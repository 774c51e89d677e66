"""Fold an adapter into a standalone scorer without a text tower: python examples/bake.py ADAPTER PICTURE OUTPUT"""

import dataclasses
import sys

import grmp_hf
from grmp_hf.modeling.baking import bake
from grmp_hf.saving import save

adapter, picture, output = sys.argv[1:]
scorer = grmp_hf.load(adapter=adapter)
baked = bake(scorer.model)
save(dataclasses.replace(scorer, model=baked), output)
print("adapter", scorer.score(picture).score)
print("baked", grmp_hf.load(output).score(picture).score)
