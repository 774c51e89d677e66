"""The model, its configuration and preprocessing, and the prompts as a PEFT method."""
