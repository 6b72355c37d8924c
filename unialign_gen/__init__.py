"""Any prompt, text, audio, video, image or a weighted mix, to one point of an image-embedding space, to a picture.

import unialign_gen
generate = unialign_gen.load("starter")
generate(text="a barking dog", seed=0).images[0]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

__version__ = "0.1.0"
__all__ = ["InputError", "__version__", "load"]


def load(checkpoint: str = "starter", **options: Any) -> DiffusionPipeline:
    """The pipeline of a checkpoint, ready to be called with prompts.

    Args:
        checkpoint: `starter` (comes with the package), `stable-unclip` or `kandinsky` (published weights, see their cards),
            a folder that `save_pretrained` wrote, or a repository of the model hub that holds one (`OWNER/NAME[@REVISION]`).
        options: `dtype` (fp32 by default; `torch_dtype` is the same), `device`, `variant` of the weight files; `heads`, a
            training run's folder, whose heads take the place of the checkpoint's own; for the starter `decoder`
            (`kandinsky` or `stable-unclip`); for published weights `sources` (part to folder, file or repository) and
            `accept_license` (to use parts whose licence is not permissive).

    Raises:
        InputError: no such checkpoint, or one that cannot be read.
    """
    from .loading import load_pipeline

    return load_pipeline(checkpoint, **options)
