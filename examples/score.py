"""Score pictures: python examples/score.py PICTURE..."""

import sys

import grmp_hf

scorer = grmp_hf.load()  # the embedded model; load("openai/clip-vit-base-patch16") or load(adapter="my-adapter")
print(f"scores run from {scorer.unit}")
for rows in scorer.iter_scores(sys.argv[1:]):  # a picture that cannot be read is a row too
    for row in rows:
        print(row.path, row.status, row.score, row.message)
