"""The recipe's command line in a process of a test; importing this imports none of it: the environment names its tables."""

import hashlib
import multiprocessing
import os
import sys


def recipe(words, networks):
    """The command line in this process, which has a group of its own, so that all of it can be killed.

    `networks`: the real ones, or none, so that whoever asks for one fails, or cheap ones, the pixels' or words' own mixture.
    """
    os.setpgid(0, 0)
    multiprocessing.current_process()._config["daemon"] = False  # so that it may have workers
    import torch
    import torch.nn.functional as F

    from unialign_gen.checkpoints.recipe import features
    from unialign_gen.checkpoints.recipe.__main__ import app

    def mixed(encoder, example):
        width = getattr(encoder, "dim", None) or encoder.part.dim
        mix = torch.randn(512, width, generator=torch.Generator().manual_seed(0)) / 512**0.5

        def run(x):
            if x.is_floating_point():
                return (F.adaptive_avg_pool1d(x.flatten(1)[:, None], 512)[:, 0] @ mix).numpy()
            return (F.one_hot(x[:, 0] % 512, 512).sum(1).float() @ mix).numpy()

        return run

    if networks == "none":
        features.fast = None
    elif networks == "cheap":
        features.fast = mixed
    sys.argv = ["recipe", *words]
    app()


def voices():
    """Writes a line for every spoken name: which sound it is, and a digest of its samples."""
    from unialign_gen.checkpoints.recipe import sounds

    for samples, row in sounds.spoken():
        sys.stdout.write(f"{row.id} {hashlib.sha256(samples.tobytes()).hexdigest()}\n")
