"""Things beside each other in one picture: which prompts mean two, and that each strip is denoised as its own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel

import unialign_gen
from unialign_gen.errors import InputError
from unialign_gen.pipelines import EmbeddingPrior
from unialign_gen.pipelines.beside import Strips, drawn_beside, own

FEW = {"num_inference_steps": 2, "upscale": 1}


def test_masks_cover_every_place_once_and_are_as_wide_as_asked():
    latents = torch.zeros(2, 4, 16, 32)
    masks = Strips(torch.zeros(3, 2), (1.0, 2.0, 1.0)).masks(latents)
    assert masks.shape == (3, 1, 1, 32)
    assert torch.allclose(masks.sum(0), torch.ones(1, 1, 32), atol=1e-6)
    assert masks.sum((1, 2, 3)).tolist() == pytest.approx([8, 16, 8], abs=0.1)
    assert float(masks[0, 0, 0, 0]) > 0.99
    assert float(masks[1, 0, 0, 16]) > 0.99
    down = Strips(torch.zeros(2, 2), (1.0, 1.0), down=True).masks(latents)
    assert down.shape == (2, 1, 16, 1)
    assert float(down[0, 0, 0, 0]) > 0.99 > 0.01 > float(down[0, 0, -1, 0])


def kandinsky_unet():
    torch.manual_seed(0)
    blocks = {"down_block_types": ("SimpleCrossAttnDownBlock2D",), "up_block_types": ("SimpleCrossAttnUpBlock2D",)}
    kind = {"encoder_hid_dim": 8, "encoder_hid_dim_type": "image_proj", "addition_embed_type": "image"}
    sizes = {"block_out_channels": (32,), "layers_per_block": 1, "norm_num_groups": 8, "cross_attention_dim": 16}
    middle = {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "attention_head_dim": 8}
    return UNet2DConditionModel(sample_size=8, in_channels=4, out_channels=4, **blocks, **kind, **sizes, **middle).eval()


@torch.no_grad()
def test_each_strip_is_what_the_unet_makes_of_its_own_condition():
    """Against one call of the UNet for each strip, put together by hand; other rows stay as they are."""
    unet = kandinsky_unet()
    generator = torch.Generator().manual_seed(0)
    noisy, embeds, two = (torch.randn(shape, generator=generator) for shape in ((6, 4, 8, 8), (6, 8), (2, 8)))
    strips = Strips(two, (1.0, 1.0))

    def asked(embeds):
        return unet(noisy, torch.tensor(500), None, added_cond_kwargs={"image_embeds": embeds}, return_dict=False)[0]

    plain = asked(embeds)
    with drawn_beside(unet, [None, strips, None], [None, two, None]):  # rows 0 to 2 have no condition, as under guidance
        found = asked(embeds)
    left, right = (asked(embeds.index_copy(0, torch.tensor([4]), z[None]))[4] for z in two)
    masks = strips.masks(noisy)
    assert torch.allclose(found[4], left * masks[0] + right * masks[1], atol=1e-5)
    assert torch.allclose(found[[0, 1, 2, 3, 5]], plain[[0, 1, 2, 3, 5]], atol=1e-5)
    assert "forward" not in vars(unet)
    assert torch.equal(asked(embeds), plain)


def test_what_ends_early_leaves_the_unet_as_it_was():
    unet = kandinsky_unet()
    strips = [Strips(torch.zeros(2, 8), (1.0, 1.0))]
    with pytest.raises(KeyError), drawn_beside(unet, strips, [torch.zeros(2, 8)]):
        raise KeyError
    assert "forward" not in vars(unet)


def test_a_prior_tells_two_things_from_what_lies_between_them():
    """In a plane spanned by two things and a direction that says there are two."""
    prior = EmbeddingPrior(embed_dim=4, count=2, bandwidth=0.01, strength=1.0, pairs=2, likeliest=True, layouts=2)
    prior.points.copy_(torch.eye(4)[:2])
    prior.together.copy_(0.5 * torch.eye(4)[2:])
    whole = F.normalize(torch.tensor([1.0, 1.0, 0.0, 0.0]), dim=0)
    assert prior.two(torch.tensor([1.0, 0.0, 0.0, 0.0])) is None
    for layout, down in ((0, False), (1, True)):
        both, stacked = prior.two(F.normalize(whole + prior.together[layout], dim=0))
        assert stacked is down
        expected = F.normalize(own(prior.points, whole) + 0.8 * prior.together[layout], dim=1)
        assert torch.allclose(both[both[:, 0].argsort(descending=True)], expected, atol=1e-6)
    assert prior.two(whole + prior.together[0], strength=0.0) is None


@pytest.mark.parametrize("decoder", ["kandinsky", "stable-unclip"])
def test_words_for_two_things_and_inputs_beside_each_other_are_drawn_in_strips(starter, decoder):
    generate = starter if decoder == "kandinsky" else unialign_gen.load("starter", decoder=decoder)
    request = generate(text=["a penguin and a car", "a dog", "a sun above a boat"], seed=0, **FEW).request
    strips = generate.placed(request)[1]
    assert [None if s is None else s.down for s in strips] == [False, None, True]
    a, b = (np.asarray(generate(text=("a dog", "a car"), mix=m, seed=0, **FEW).images[0], int) for m in ("lerp", "beside"))
    assert np.abs(a - b).mean() > 3
    (strips,) = generate.placed(generate.encoded(ask(("a dog", "a car"), weights=[1, 3])))[1]
    assert strips.widths == (1.0, 3.0)


def ask(text, **options):
    from unialign_gen.request.arguments import ask

    return ask(text=text, mix="beside", seed=0, **options)


def test_alone_and_among_others_it_is_the_same_picture(starter):
    texts = ["a dog", "a penguin and a car", "a cat"]
    several = starter(text=texts, seed=[3, 4, 5], **FEW).images
    alone = starter(text=texts[1], seed=4, **FEW).images[0]
    assert np.abs(np.asarray(alone, int) - np.asarray(several[1], int)).max() <= 1
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    best = starter.best_of(2, text=texts[:2], generator=generators, **FEW)  # each its own two
    assert len(best.images) == 2
    with pytest.raises(InputError, match="3 generators for 4 candidates"):
        starter.best_of(2, text=texts[:2], generator=generators[:3], prior_temperature=0, **FEW)
    best = starter.best_of(2, text=texts[1], seed=4, **FEW)
    drawn = starter(text=texts[1], seed=4, num_images_per_prompt=2, **FEW).images[best.request.seed[0] - 4]
    assert np.abs(np.asarray(best.images[0], int) - np.asarray(drawn, int)).max() <= 1


def test_what_cannot_stand_beside_is_one_line(starter):
    for weights in ([1, -1], [1, 0]):
        with pytest.raises(InputError, match="are widths, all above 0"):
            starter(text=("a dog", "a cat"), mix="beside", weights=weights, **FEW)
    with pytest.raises(InputError, match="noise_level must be a whole number"):
        unialign_gen.load("starter", decoder="stable-unclip")(text="a penguin and a car", noise_level=1000, **FEW)
    with pytest.raises(InputError, match="an edit draws one point"):
        starter.edit(np.zeros((64, 64, 3), np.uint8), text=("a dog", "a cat"), mix="beside", num_inference_steps=2)
