"""The model, its configuration and preprocessing, and the prompts as a PEFT method."""

import peft  # noqa: F401  # first: where it is imported our method is registered, which needs the modules below whole
