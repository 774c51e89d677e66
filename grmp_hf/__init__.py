"""Blind image quality assessment from very few ratings: soft prompts on a pre-trained CLIP.

Names are imported when they are first used. Importing the package registers the model with transformers' Auto classes
and the prompts as a PEFT method as soon as either library is asked for them.
"""
