"""Frozen backbones, one a file. An encoder turns prepared input into features; a head turns features into unit embeddings."""

from .registry import kinds, load_encoder, register, save_encoder

__all__ = ["kinds", "load_encoder", "register", "save_encoder"]
