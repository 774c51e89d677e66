"""Quality from the prior of a latent diffusion model, after DP-IQA: the extra `diffusion`, which nothing else needs."""
