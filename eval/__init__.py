"""Measurements: what a checkpoint's pictures show, and how sure one can be of it."""
