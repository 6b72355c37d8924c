"""Which pictures of a thing a decoder draws so that the thing is seen: those a prior lets the seed choose among.

What a picture's embedding is drawn as says more of the embedding than of the noise that drawing begins with: two noises agree.
So each is drawn once, and looked at through the space's own encoder; the judge, who measures decoders, takes no part.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from unialign_gen.pipelines import EmbeddingPrior
from unialign_gen.pipelines.prior import FEWEST

from .files import progress

BATCH = 32
SHARE, MOST = 1 / 3, 8  # of a thing's pictures: with fewer more can be named, and they vary less
ALIKE = 0.7  # cosine of how two pictures differ from their thing, from which on the second is left out


@torch.no_grad()
def keep_drawable(prior: EmbeddingPrior, draw: Callable[[Tensor], list[Image.Image]], see: Callable[..., Tensor]) -> None:
    """Leaves in the prior, of each thing's pictures, the share whose drawings are most surely the thing to the prior itself; of
    two that are much alike the second goes, where enough are left. How near what is drawn lies to what was asked for is kept.

    Args:
        draw: a picture for each of some unit embeddings (n, d).
        see: pictures to unit embeddings (n, d).
    """
    if not prior.config["pictures"]:
        return
    shows = prior.shows  # (pictures,)
    apart = torch.linalg.solve(prior.whitening.T, prior.deviations.T).T
    asked = F.normalize(prior.points[shows] + prior.config["temperature"] * apart, dim=1)
    seen = torch.cat([see(draw(part)).float() for part in progress(asked.split(BATCH), desc="pictures of things")])
    surely = torch.stack([prior.log_weights(e).log_softmax(0)[thing] for e, thing in zip(seen, shows, strict=True)])
    best = torch.zeros(len(shows), dtype=torch.bool)
    for mine in (torch.where(shows == thing)[0] for thing in shows.unique()):
        order, count = mine[surely[mine].argsort(descending=True)], min(max(round(SHARE * len(mine)), FEWEST), MOST)
        axes, chosen = F.normalize(prior.deviations[order], dim=1), list[int]()
        alike = axes @ axes.T > ALIKE
        for n in range(len(order)):
            if len(chosen) < count and not alike[n, chosen].any():
                chosen.append(n)
        chosen += [n for n in range(len(order)) if n not in chosen][: max(FEWEST - len(chosen), 0)]
        best[order[chosen]] = True
    prior.shows, prior.deviations = shows[best], prior.deviations[best]
    prior.register_buffer("fidelity", (seen * asked).sum(1)[best])
    prior.register_to_config(pictures=len(prior.shows), fidelities=True)
