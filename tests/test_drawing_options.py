"""What a request leaves to the seed, and how large its pictures are."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unialign_gen.errors import InputError
from unialign_gen.request.picture_settings import PictureSettings, parse

FEW = {"num_inference_steps": 1}


def test_the_priors_draw_is_each_pictures_own_and_the_same_for_its_seed(starter):
    mean = starter.embed(text="a dog", seed=3, prior_temperature=0)
    drawn = starter.embed(text=["a dog", "a dog", "a dog"], seed=[3, 5, 3], prior_temperature=0.5)
    assert torch.equal(drawn[0], drawn[2])
    assert not torch.allclose(drawn[0], drawn[1])
    assert torch.allclose(mean, starter.embed(text="a dog", prior_temperature=0))
    apart = (drawn[:2] @ mean.T).flatten()
    assert (apart < 0.999).all()
    warm = starter.embed(text="a dog", seed=3, prior_temperature=1.5)
    assert float((warm @ mean.T).squeeze()) < float(apart[0])  # a higher temperature goes further


def test_a_picture_of_several_is_drawn_alone_with_its_own_draw(starter):
    several = starter(text=["a dog", "a car"], seed=5, num_images_per_prompt=2, prior_temperature=1, **FEW)
    assert several.images[0].tobytes() != several.images[1].tobytes()
    third = several.request.picture(2)
    assert third.seed == 7
    again = starter.draw(third).images[0]
    assert np.abs(np.asarray(again).astype(int) - np.asarray(several.images[2])).max() <= 1
    kept = parse(PictureSettings(third).to_json()).request
    assert kept.prior_temperature == 1


def test_temperatures_that_cannot_be(starter):
    with pytest.raises(InputError, match="prior_temperature must be at least 0, got -1"):
        starter(text="a dog", prior_temperature=-1, **FEW)
    with pytest.raises(InputError, match="leave out prior_temperature"):
        starter(image_embeds=torch.zeros(1, 256), prior_temperature=1, **FEW)


@pytest.mark.parametrize("kind", ["pil", "np", "pt"])
def test_an_upscaler_enlarges_what_the_decoder_draws(enlarging, kind):
    options = {"text": "a red car", "seed": 1, "output_type": kind, **FEW}
    small = enlarging(**options, upscale=1).images
    plain = torch.as_tensor(np.array(small[0])).float() if kind != "pt" else small[0].permute(1, 2, 0)
    for scale in (2, 8, None):
        large = enlarging(**options, upscale=scale).images
        large = torch.as_tensor(np.array(large[0])).float() if kind != "pt" else large[0].permute(1, 2, 0)
        side = enlarging.sample_side * (scale or 8)
        assert large.shape == (side, side, 3)
        expected = F.interpolate(plain.permute(2, 0, 1)[None], size=(side, side), mode="nearest")[0].permute(1, 2, 0)
        assert (large - expected).abs().max() <= (1 if kind == "pil" else 1e-5)


def test_sizes_are_those_of_the_enlarged_picture(enlarging):
    picture = enlarging(text="a red car", seed=1, height=512, width=256, upscale=4, **FEW).images[0]
    assert picture.size == (256, 512)
    multiple = 8 * enlarging.size_multiple
    with pytest.raises(InputError, match=f"multiples of {multiple}, such as {multiple}, got {multiple + 8}"):
        enlarging(text="a red car", height=multiple + 8, **FEW)


def test_without_an_upscaler_nothing_is_enlarged(starter):
    if starter.upscaler is None:
        with pytest.raises(InputError, match="1 times as large at most, got upscale=4"):
            starter(text="a red car", upscale=4, **FEW)
    with pytest.raises(InputError, match="upscale must be"):
        starter(text="a red car", upscale=3, **FEW)
