"""Several things in one picture: which prompts mean several, where they stand, and that each strip is denoised as its own."""

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

import unialign_gen
from unialign_gen.errors import InputError
from unialign_gen.pipelines.beside import Strips, drawn_beside, in_lines, outside, side_by_side
from unialign_gen.pipelines.phrases import Phrases, colour_of, phrases_of, related

FEW = {"num_inference_steps": 2, "upscale": 1}
HALVES = side_by_side([1, 1])


def test_masks_cover_every_place_once_and_are_as_wide_as_asked():
    latents = torch.zeros(2, 4, 16, 32)
    masks = Strips(torch.zeros(3, 2), side_by_side([1, 2, 1])).masks(latents)
    assert masks.shape == (3, 1, 16, 32)
    assert torch.allclose(masks.sum(0), torch.ones(1, 16, 32), atol=1e-6)
    assert masks.mean(2).sum((1, 2)).tolist() == pytest.approx([8, 16, 8], abs=0.1)
    assert float(masks[0, 0, 0, 0]) > 0.99
    assert float(masks[1, 0, 0, 16]) > 0.99
    down = Strips(torch.zeros(2, 2), side_by_side([1, 1], down=True)).masks(latents)
    assert float(down[0, 0, 0, 0]) > 0.99 > 0.01 > float(down[0, 0, -1, 0])
    lines = Strips(torch.zeros(3, 2), in_lines(3)).masks(latents)  # two above one, and room that is nobody's
    assert torch.allclose(lines.sum(0), torch.ones(1, 16, 32), atol=1e-6)
    assert lines[:, 0, [0, 0, 15], [0, 31, 16]].argmax(0).tolist() == [0, 1, 2]
    for count in (3, 5):  # of a large decoder, with room far from any
        large = Strips(torch.zeros(count, 2), in_lines(count)).masks(torch.zeros(1, 4, 128, 128))
        assert torch.allclose(large.sum(0), torch.ones(1, 128, 128), atol=1e-6)


@pytest.mark.parametrize(
    ("count", "box", "columns", "side"),
    [
        (2, (0.0, 0.0, 1.0, 1.0), 2, 0.5),
        (3, (0.0, 0.0, 1.0, 1.0), 2, 0.5),
        (4, (0.0, 0.0, 1.0, 1.0), 2, 0.5),
        (6, (0.0, 0.0, 1.0, 1.0), 3, 1 / 3),
        (2, (0.5, 0.0, 1.0, 1.0), 1, 0.5),  # beside something else
        (3, (0.0, 0.5, 1.0, 1.0), 3, 1 / 3),  # below something else
    ],
)
def test_things_of_a_kind_are_as_large_as_can_be_and_apart(count, box, columns, side):
    found = in_lines(count, box)
    assert len({left for left, *_ in found[:columns]}) == columns
    assert all(min(right - left, bottom - top) == pytest.approx(0.9 * side) for left, top, right, bottom in found)
    for a in found:
        assert box[0] <= a[0] < a[2] <= box[2]
        assert box[1] <= a[1] < a[3] <= box[3]
        assert all(a is b or a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1] for b in found)
    middle = sum(left + right for left, _, right, _ in found[-(count % columns or columns) :])
    assert middle / (count % columns or columns) == pytest.approx(box[0] + box[2])


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
    strips = Strips(two, HALVES)

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
    strips = [Strips(torch.zeros(2, 8), HALVES)]
    with pytest.raises(KeyError), drawn_beside(unet, strips, [torch.zeros(2, 8)]):
        raise KeyError
    assert "forward" not in vars(unet)


def test_things_are_set_in_their_strips_whole_and_in_the_middle():
    dark, light = torch.zeros(3, 8, 8), torch.ones(3, 8, 8)
    light[:, 2:6, 2:6] = 0
    page = Strips(torch.zeros(2, 2), HALVES).set_in(torch.stack([light, dark]))
    assert page.shape == (3, 8, 8)
    assert torch.allclose(page[:, :, 4:], torch.zeros(3, 8, 4), atol=1e-4)
    assert torch.allclose(page[:, [0, 1, 6, 7], :4], torch.ones(3, 4, 4), atol=1e-4)  # its ground goes on
    assert float(page[0, 3:5, 1:3].max()) < 0.3 < 0.9 < float(page[0, 2, 0])
    down = Strips(torch.zeros(2, 2), side_by_side([1, 3], down=True)).set_in(torch.stack([dark, light]))
    assert torch.allclose(down[:, :2], torch.zeros(3, 2, 8), atol=1e-4)
    assert float(down[0, 2].min()) > 0.99
    assert float((1 - down[0, 2:]).sum()) == pytest.approx(16 * 0.75**2, abs=0.5)
    three = Strips(torch.zeros(3, 2), in_lines(3)).set_in(torch.stack([dark, dark, light]))
    assert float(three[0, 4, 0]) < 0.01  # what no strip has is as the nearest one's edge
    assert float(three[0, 7, 0]) > 0.99
    assert float(three[0, 5, 3]) < 0.3 < 0.9 < float(three[0, 4, 2])
    thin = Strips(torch.zeros(2, 2), side_by_side([1, 1000]))  # too thin for a pixel
    assert torch.allclose(thin.set_in(torch.stack([dark, light])), light, atol=0.2)


def things(*texts, counts=None, down=False, ground=""):
    return Phrases(texts, counts or (1,) * len(texts), down, ground)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", None),
        ("a cat and a dog", things("a cat", "a dog")),
        ("a cat, a dog and a red car", things("a cat", "a dog", "a red car")),
        ("cat, dog, car", None),
        ("an apple next to a book", things("an apple", "a book")),
        ("A sun ABOVE a boat", things("A sun", "a boat", down=True)),
        ("a dog underneath a tree", things("a tree", "a dog", down=True)),
        ("a cat on top of a car", things("a cat", "a car", down=True)),
        ("a fish and a boat on a green background", things("a fish", "a boat", ground="on a green background")),
        ("a man and a dog on a beach", things("a man", "a dog on a beach")),
        ("sand", None),
        ("and a", None),
        ("a and b and c and d and e", None),
        (" a  cat,  and a\u200b dog, ", things("a cat", "a dog")),
        ("a cat on red and a dog on blue.", things("a cat on red", "a dog", ground="on blue")),
        ("a frog with a sky blue background", things("a frog", ground="on a sky blue background")),
        ("a star, yellow background", things("a star", ground="on a yellow background")),
        ("a red apple isolated on white", things("a red apple", ground="on white")),
        ("a fish on sky blue", things("a fish", ground="on sky blue")),
        ("a bear on snow", None),
        ("a black and white cat on blue", things("a black and white cat", ground="on blue")),
        ("a red and light blue parrot and a cat", things("a red and light blue parrot", "a cat")),
        ("a cat against a blurry background", None),
        ("a sun above a boat on light blue", things("a sun", "a boat", down=True, ground="on light blue")),
        ("a bird on dark green", things("a bird", ground="on dark green")),
        ("a bird on the white background", things("a bird", ground="on a white background")),
        ("a bird on grass", None),
        ("a cat on a mat on blue", things("a cat on a mat", ground="on blue")),
        ("a bird on a red and green background", None),
        ("a cat and a dog on grass", things("a cat on grass", "a dog on grass")),
        ("three red apples", things("a red apple", counts=(3,))),
        ("The Six balloons on blue", things("a balloon", counts=(6,), ground="on blue")),
        ("2 foxes in a forest", things("a fox in a forest", counts=(2,))),
        ("two men riding two horses", None),
        ("two mice and a cat", things("a mouse", "a cat", counts=(2, 1))),
        ("two suns above four boats", things("a sun", "a boat", counts=(2, 4), down=True)),
        ("four cats and three dogs", things("four cats", "three dogs")),  # too many to stand alone
        ("seven dogs", None),
        ("one dog", None),
        ("two", None),
        ("two tone car", None),
        ("a dog with two tails", None),
        ("two " + "s" * 100_000 + ")", None),
        ("a bird and a cat under a tree", None),
        ("a cat on top of a box and a dog under a table", None),
        ("a and " * 5000, None),
    ],
)
def test_a_text_is_parted_at_the_words_between_things(text, expected):
    assert phrases_of(text, {"fox", "cat", "mouse"}) == expected


@pytest.mark.parametrize(
    ("plural", "one"),
    [
        *(("cherries", "cherry"), ("cookies", "cookie"), ("boxes", "box"), ("horses", "horse"), ("buses", "bus")),
        *(("leaves", "leaf"), ("knives", "knife"), ("children", "child"), ("sheep", "sheep"), ("potatoes", "potato")),
        *(("gizmos", "gizmo"), ("grass", None), ("green", None)),
    ],
)
def test_what_a_plural_is_of(starter, plural, one):
    from unialign_gen.concepts import checkpoint_folder
    from unialign_gen.pipelines.named import understanding_in
    from unialign_gen.pipelines.phrases import singular

    assert singular(plural, understanding_in(checkpoint_folder(starter)).nouns) == one


@pytest.mark.parametrize(
    ("text", "things"),
    [
        ("a violin and a piano", 2),
        ("two red birds and a cat", 3),
        ("five ducks", 5),
        ("bow and arrow", None),  # the name of one thing
        ("a skull and crossbones", None),
        ("a heart with an arrow", None),
        ("a violet on white", 1),  # the flower, though it may be a colour
        ("a bow and a guitar", 2),
        ("a boat under a rainbow", 2),  # understood, by another name
        ("a black and white cat", None),
        ("a red and yellow flower", None),
        ("a green and red apple", None),
        ("rock and roll", None),
        ("a cat and a brgltz", None),
    ],
)
def test_what_is_named_is_known_and_no_property(starter, text, things):
    request = starter.encoded(ask(text))
    ((inputs, boxes, _),) = starter.inputs(request)
    assert (None if boxes is None else len(inputs)) == things
    assert boxes is None or len(boxes) == things


@pytest.mark.parametrize("options", [{}, {"prior_temperature": 0}])
def test_things_of_a_kind_are_as_many_as_asked_and_no_copies(starter, options):
    from unialign_gen.checkpoints.faithfulness import components

    picture = starter(text="four stars", seed=1, num_inference_steps=8, upscale=1, **options).images[0]
    assert components(picture) == 4
    corners = [np.asarray(picture.crop((x, y, x + 32, y + 32)), int) for y in (0, 32) for x in (0, 32)]
    assert min(np.abs(a - b).mean() for i, a in enumerate(corners) for b in corners[:i]) > 0.5
    assert [n.kind for n in starter(text="five unicorns", seed=0, **FEW).notes] == []  # none is left out


def test_order_colours_and_notes_are_each_things_own(starter):
    out = starter(text="a red penguin and a blue sousaphone", seed=0, num_inference_steps=10, upscale=1)
    assert [str(n) for n in out.notes if n.kind == "drawn as"] == [
        "drawn as: 'a blue sousaphone' is drawn as the nearest that this checkpoint knows: trumpet"
    ]
    left, right = (np.asarray(out.images[0].crop((a, 0, a + 32, 64)), float) for a in (0, 32))
    assert (left[..., 0] - left[..., 2]).mean() > 0 > (right[..., 0] - right[..., 2]).mean()


@pytest.mark.parametrize("decoder", ["kandinsky", "stable-unclip"])
def test_words_for_two_things_and_inputs_beside_each_other_are_drawn_in_strips(starter, decoder):
    generate = starter if decoder == "kandinsky" else unialign_gen.load("starter", decoder=decoder)
    request = generate(text=["a penguin and a car", "a dog", "a sun above a boat"], seed=0, **FEW).request
    strips = generate.placed(request, generate.inputs(request))[1]
    assert [None if s is None else s.boxes for s in strips] == [HALVES, None, side_by_side([1, 1], down=True)]
    a, b = (np.asarray(generate(text=("a dog", "a car"), mix=m, seed=0, **FEW).images[0], int) for m in ("lerp", "beside"))
    assert np.abs(a - b).mean() > 3
    request = generate.encoded(ask(("a dog", "a car"), weights=[1, 3]))
    (strips,) = generate.placed(request, generate.inputs(request))[1]
    assert strips.boxes == side_by_side([1, 3])


def ask(text, **options):
    from unialign_gen.request.arguments import ask

    return ask(text=text, mix="beside", seed=0, **options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a girl holding an umbrella", things("a girl", "an umbrella")),
        ("two monkeys eating a banana", things("a monkey", "a banana", counts=(2, 1))),
        ("a man riding a horse", things("a man", "a horse", down=True)),
        ("a cat sleeping on a chair", things("a cat", "a chair", down=True)),
        ("A bear with three balloons on blue.", things("A bear", "a balloon", counts=(1, 3), ground="on blue")),
        ("a dog on a red background", None),
        ("a frying pan", None),
        ("a king with a sword", things("a king", "a sword")),
        ("a city during the night", None),
        ("a man wearing a hat riding a horse", None),
        ("two men riding two horses", things("a man", "a horse", counts=(2, 2), down=True)),
        ("four dogs with four balls", None),
    ],
)
def test_who_does_what_with_what(text, expected):
    assert related(text) == expected


def test_what_one_picture_would_leave_out_stands_beside_the_rest(starter):
    def drawn(text):
        ((row, boxes, _),) = starter.inputs(starter.encoded(ask(text)))
        return [prompt.value for prompt in row] if boxes else None

    assert drawn("a robot playing a guitar") == ["a robot", "a guitar"]
    assert drawn("a man riding a horse") == ["a man", "a horse"]
    assert drawn("a dog on a leash") is None  # which it takes for a dog
    assert drawn("a blorptang playing a guitar") is None
    assert drawn("a cow with a bell") == ["a cow", "a bell"]
    assert drawn("an envelope with an arrow") is None  # one picture has both
    both = starter.embed(text=["a man", "a horse"])
    whole = starter.embed(text="a man riding a horse")  # is one point still, near the horse, and says so
    assert [n.kind for n in whole.notes] == ["left out"]
    assert float(whole[0] @ both[1]) > 0.9 > float(whole[0] @ both[0])


def test_alone_and_among_others_it_is_the_same_picture(starter):
    texts = ["a dog", "a penguin and a car", "a cat"]
    several = starter(text=texts, seed=[3, 4, 5], **FEW).images
    alone = starter(text=texts[1], seed=4, **FEW).images[0]
    assert np.abs(np.asarray(alone, int) - np.asarray(several[1], int)).max() <= 1


def test_each_of_several_things_is_chosen_for_itself(starter):
    """Two of a kind are never one noise, whichever of their noises are chosen."""
    points = starter.embed(text=["a dog", "a dog", "a car"])
    few = {"mix": "beside", "seed": 4, **FEW}
    plain, best = (starter(embeds=tuple(points), best_of=n, **few).images[0] for n in (1, 5))
    thirds = [np.asarray(best.crop((171 * i, 0, 171 * i + 170, 512)), int) for i in range(3)]
    assert np.abs(thirds[0] - thirds[1]).max() > 100
    assert plain.tobytes() != best.tobytes()
    texts = ["a dog", "a penguin and a car"]
    noises = ([torch.Generator().manual_seed(seed) for seed in range(2)] for _ in range(2))
    drawn, again = (starter(text=texts, generator=own, best_of=2, **FEW).images for own in noises)
    assert [a.tobytes() for a in drawn] == [b.tobytes() for b in again]


def test_a_ground_of_a_colour_is_that_colour_and_the_thing_stays(starter):
    """Pixel by pixel: the thing as it is drawn alone, what a white thing encloses too; behind it the colour."""
    texts = ["a ghost", "a bird", "a cat and a car"]
    plain = starter(text=texts, seed=[0, 1, 2], num_inference_steps=8).images
    found = starter(text=[f"{text} on dark green" for text in texts], seed=[0, 1, 2], num_inference_steps=8)
    assert found.notes == []
    green = np.round([255 * part for part in colour_of("on dark green")])
    for picture, before in zip(found.images, plain, strict=True):
        picture, before = np.asarray(picture, int), np.asarray(before, int)
        assert np.abs(picture[[0, 0, -1, -1], [0, -1, 0, -1]] - green).max() <= 2
        ground, same = (np.abs(picture - other).max(-1) <= 12 for other in (green, before))
        assert ground.mean() > 0.2
        assert same.mean() > 0.1
        assert (ground | same).mean() > 0.93  # the rest is where a thing fades into its ground
    white = (np.asarray(plain[0]) > 200).all(-1) & (np.asarray(found.images[0]) > 200).all(-1)
    assert white[128:384, 128:384].mean() > 0.1
    request = starter.encoded(ask("a bird on blue"))
    assert [row[0].value for row, _, _ in starter.inputs(request, apart=False)] == ["a bird on blue"]  # one point says both


def test_a_text_to_steer_away_from_is_one_point(starter):
    """Of things and a ground nothing would be left of the weight."""
    request = starter.encoded(ask(["a cat and a dog", "a cat on blue"], weights={"text": -1}))
    assert [boxes for _, boxes, _ in starter.inputs(request)] == [None, None]


def test_what_a_thing_encloses_is_not_outside():
    same = torch.ones(1, 1, 128, 128)
    same[..., 32:96, 32:96] = 0
    same[..., 40:88, 40:88] = 1
    found = outside(same > 0)[0, 0]
    assert found[:31].min() == found[:, 97:].min() == 1
    assert found[36:92, 36:92].max() == 0
    same[..., 32:40, 60:70] = 1  # a gap
    assert outside(same > 0)[0, 0, 50, 64] == 1


def test_what_has_no_ground_of_one_colour_stands_on_white():
    """A sky from blue to orange is whole in its strip, and above and below it is white, not the colour of its middle."""
    down = torch.linspace(0, 1, 64)
    sky = torch.stack([0.1 + 0.9 * down, torch.full((64,), 0.5), 1 - down])[:, :, None].expand(3, 64, 64)
    page = Strips(torch.zeros(2, 2), HALVES).set_in(torch.stack([sky, torch.ones(3, 64, 64)]))
    assert torch.allclose(page[:, :14, :30], torch.ones(3, 14, 30), atol=1e-3)
    assert torch.allclose(page[:, 17:47, :30], sky[:, 2:62:2, :30], atol=0.05)


def test_grounds_that_are_alike_become_one_and_no_frame_is_seen():
    """Blue, and a darker blue with a darker rim, are one ground; white beside blue stays white, and no thing changes."""
    blue, white = torch.tensor([0.3, 0.5, 0.9])[:, None, None].expand(3, 64, 64), torch.ones(3, 64, 64)
    darker = 0.9 * blue
    framed = darker.clone()
    framed[:, [0, -1]] *= 0.8
    page = Strips(torch.zeros(2, 2), HALVES).set_in(torch.stack([blue, framed]))
    assert torch.allclose(page, page[:, :1, :1].expand_as(page), atol=0.02)
    assert float(darker[2, 0, 0]) < float(page[2, 0, 0]) < 0.9
    page = Strips(torch.zeros(2, 2), HALVES).set_in(torch.stack([blue, white]))
    assert torch.allclose(page[:, :, :30], blue[:, :, :30], atol=1e-3)
    assert torch.allclose(page[:, :, 34:], white[:, :, 34:], atol=1e-3)
    black, thing = torch.zeros(3, 64, 64), torch.tensor([0.9, 0.6, 0.3])[:, None, None]
    black[:, 16:48, 16:48] = thing
    page = Strips(torch.zeros(2, 2), HALVES).set_in(torch.stack([black, black.clamp(min=0.1)]))
    assert torch.allclose(page[:, 26:38, [16, 48]], thing[..., 0, None].expand(3, 12, 2), atol=1e-3)


def test_things_are_drawn_alone_at_full_size_and_then_made_smaller(starter):
    """Against each thing drawn by itself from the same noise, made smaller by Pillow."""
    things, made = ("a cat", "a car"), []
    noise = torch.Generator().manual_seed(5)
    for thing in things:
        point = starter.embed(text=thing)[0]
        made.append(starter(embeds=point, generator=noise.clone_state(), num_inference_steps=2).images[0])
        noise = torch.Generator().manual_seed(int(torch.randint(1 << 62, (), generator=noise)))
    (pair,) = starter(text="a cat and a car", seed=5, prior_temperature=0, num_inference_steps=2).images
    for picture, left in zip(made, (0, 256), strict=True):
        small = np.asarray(picture.resize((256, 256), Image.Resampling.BICUBIC), int)[32:-32, 32:-32]
        found = np.asarray(pair.crop((left, 128, left + 256, 384)), int)[32:-32, 32:-32]
        assert np.abs(found - small).mean() <= 1  # but for the margin, and grounds that become one
        assert small.std() > 10


def test_a_callback_sees_every_step_and_can_stop(starter):
    seen = []

    def callback(pipe, step, timestep, tensors):
        seen.append((step, tuple(tensors["latents"].shape)))
        if len(seen) == 3:
            raise KeyboardInterrupt

    texts = ["a cat", "three cars"]
    starter(text=texts, seed=0, callback_on_step_end=callback, **FEW)
    assert seen == [(0, (2, 4, 16, 16)), (1, (2, 4, 16, 16))]
    with pytest.raises(KeyboardInterrupt):
        starter(text=texts[1], seed=0, callback_on_step_end=callback, **FEW)
    asked = {"text": texts, "seed": 0, **FEW}
    starter(callback_on_step_end=lambda *now: seen.append(now[3]), callback_on_step_end_tensor_inputs=[], **asked)
    assert seen[-1] == {}
    with pytest.raises(InputError, match="can have latents"):
        starter(callback_on_step_end=callback, callback_on_step_end_tensor_inputs=["image_embeds"], **asked)

    def inverted(pipe, step, timestep, tensors):
        return {"latents": -tensors["latents"]}

    second = unialign_gen.load("starter", decoder="stable-unclip")
    for generate in (starter, second):
        plain, changed = (generate(text=texts, seed=0, callback_on_step_end=c, **FEW).images for c in (None, inverted))
        parts = [(p.crop((32, 0, 64, 32)), q.crop((32, 0, 64, 32))) for p, q in zip(plain, changed, strict=True)]
        moved = [np.abs(np.asarray(p, int) - np.asarray(q, int)).mean() for p, q in parts]
        assert moved[0] > 5 * moved[1]  # the ground that all share moves a little


def test_latents_of_several_things_are_those_of_the_picture(starter):
    alone = starter(text="a dog", seed=1, output_type="latent", **FEW).images
    latents, other = starter(text=["a cat and a car", "a dog"], seed=[0, 1], output_type="latent", **FEW).images.split(1)
    assert latents.shape == (1, 4, 16, 16)
    assert torch.allclose(other, alone, atol=1e-4)  # decoded for nobody
    (picture,) = starter(text="a cat and a car", seed=0, **FEW).images
    back = starter.movq.decode(latents, force_not_quantize=True).sample[0].permute(1, 2, 0) * 127.5 + 127.5
    assert (back.detach() - torch.tensor(np.asarray(picture, np.float32))).abs().mean() < 8


def test_pictures_of_one_generator_differ_and_those_of_ones_own_latents_are_theirs(starter):
    two = {"text": "a cat and a dog", "prior_temperature": 0, **FEW}
    a, b = starter(**two, num_images_per_prompt=2, generator=torch.Generator().manual_seed(0)).images
    assert np.abs(np.asarray(a, int) - np.asarray(b, int)).mean() > 3
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    first, second = (starter(**two, num_images_per_prompt=2, latents=latents).images for _ in range(2))
    assert [p.tobytes() for p in first] == [p.tobytes() for p in second]
    assert first[0].tobytes() != first[1].tobytes()
    (twins,) = starter(text="two cats", prior_temperature=0, latents=latents[:1], **FEW).images
    halves = [np.asarray(twins.crop((left, 0, left + 32, 64)), int) for left in (0, 32)]
    assert np.abs(halves[0] - halves[1]).mean() > 3  # of one's own latents too two of a kind differ


def test_unmoved_a_text_is_one_point_as_it_is_encoded(starter):
    text = "a dog near a car"
    assert torch.equal(starter.embed(text=text, prior_strength=0), starter.aligner.embed("text", [text]))
    assert starter.inputs(starter.encoded(ask(text)))[0][1] == HALVES


def test_what_cannot_stand_beside_is_one_line(starter):
    for weights in ([1, -1], [1, 0]):
        with pytest.raises(InputError, match="are widths, all above 0"):
            starter(text=("a dog", "a cat"), mix="beside", weights=weights, **FEW)
    second = unialign_gen.load("starter", decoder="stable-unclip")
    with pytest.raises(InputError, match="noise_level must be a whole number"):
        second(text="a penguin and a car", noise_level=1000, **FEW)
    with pytest.raises(InputError, match="1 values of decoder_prompt for 2 prompts"):
        second(text=["a cat and a dog", "a car and a tree"], decoder_prompt=["x"], **FEW)
    with pytest.raises(InputError, match="an edit draws one point"):
        starter.edit(np.zeros((64, 64, 3), np.uint8), text=("a dog", "a cat"), mix="beside", num_inference_steps=2)


def test_grounds_of_a_mix_are_mixed_and_each_of_several_things_has_its_own(starter):
    """The corners of the pictures, where nothing else is."""
    small = {"seed": 0, "upscale": 1, "num_inference_steps": 4}
    blue, yellow = (np.round([255 * part for part in colour_of(ground)]) for ground in ("on blue", "on yellow"))
    two = ("a cat on blue", "a dog on yellow")
    for asked, left, right in (
        ({"text": two, "weights": [1, 3]}, (blue + 3 * yellow) / 4, (blue + 3 * yellow) / 4),
        ({"text": two, "mix": "beside"}, blue, yellow),
        ({"text": "a cat on blue and a dog on yellow"}, blue, yellow),
        ({"text": ("a cat on blue", "a dog")}, blue, blue),
        ({"text": "a cat, with a blue background"}, blue, blue),
    ):
        pixels = np.asarray(starter(**asked, **small).images[0]).astype(float)
        np.testing.assert_allclose(pixels[1, 1], left, atol=3)
        np.testing.assert_allclose(pixels[1, -2], right, atol=3)
