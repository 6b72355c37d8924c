"""Frozen backbones, one a file. A tower turns prepared input into features; a head turns features into unit embeddings."""

from .registry import kinds, load_tower, register, save_tower

__all__ = ["kinds", "load_tower", "register", "save_tower"]
