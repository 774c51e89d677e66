"""The Trainer: gradients of batches, the gradient rule, and what is needed to be right on several processes."""
