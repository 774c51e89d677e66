"""The Trainer: gradients of batches and episodes, the gradient rule, and what makes several processes equal one."""
