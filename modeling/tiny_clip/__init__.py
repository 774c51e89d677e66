"""Parts of the recipe behind ``modeling/build_tiny_clip.py``; not shipped with the package."""
