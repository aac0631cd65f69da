"""Training: losses, the optimiser of the paper's recipe, and one resumable loop."""
