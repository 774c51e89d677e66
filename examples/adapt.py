"""Adapt the embedded model to a few ratings and save what was learnt: python examples/adapt.py RATINGS SHOTS OUTPUT"""

import sys

import grmp_hf

ratings, shots, output = sys.argv[1:]
table = grmp_hf.read_ratings(ratings)
scorer = grmp_hf.adapt(grmp_hf.load(), table, shots=int(shots))
scorer.save(output)
_, tested = scorer.taught.select(table)
print("SRCC", grmp_hf.srcc(scorer.score(row.image for row in tested).score, [row.mos for row in tested]))
