"""Heads: the trained part of a modality, from features of a frozen encoder to the shared embedding space.

`unialign_gen.heads.bridge` makes sound heads in closed form, `recognition` lets a head use what its encoder names.
"""

from .head import Head, encoder_beside, encoder_description, heads_in, load_head, save_head

__all__ = ["Head", "encoder_beside", "encoder_description", "heads_in", "load_head", "save_head"]
