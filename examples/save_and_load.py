"""Save an adapter, load it by every door: python examples/save_and_load.py ADAPTER PICTURE OUTPUT"""

import sys

from peft import PeftModel
from transformers import AutoModelForImageClassification

import grmp_hf
from grmp_hf.data import decode_image
from grmp_hf.saving import save

adapter, picture, output = sys.argv[1:]
scorer = grmp_hf.load(adapter=adapter)
save(scorer, output)
print("grmp_hf", grmp_hf.load(adapter=output).score(picture).quality)

views = scorer.processor(decode_image(picture))  # {"pixel_values": (1, V, 3, S, S)}
base = grmp_hf.load().model  # the base that the adapter was made for
print("peft", PeftModel.from_pretrained(base, output)(**views).quality.tolist())
print("transformers", AutoModelForImageClassification.from_pretrained(output)(**views).quality.tolist())
