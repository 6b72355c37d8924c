"""Checkpoints that come with the package: weights, cards, samples, and the recipe that rebuilds them."""
