"""The ComfyUI node pack: imported as ComfyUI imports a folder, every node run on the starter."""

import importlib.util
import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parent.parent / "docs" / "examples" / "comfyui"


@pytest.fixture(scope="module")
def pack():
    """The module, under a name that is no identifier, as ComfyUI gives it."""
    name = str(FOLDER).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, FOLDER / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def run(pack, name, **given):
    """A node's outputs, called as ComfyUI calls it: by its own names, with the defaults of what is not given."""
    node = pack.NODE_CLASS_MAPPINGS[name]
    inputs = node.INPUT_TYPES()
    for key, (kind, *options) in inputs["required"].items():
        default = kind[0] if isinstance(kind, list) else options[0].get("default") if options else None
        given.setdefault(key, default)
    outputs = getattr(node(), node.FUNCTION)(**given)
    assert len(outputs) == len(node.RETURN_TYPES)
    return outputs[0]


def test_the_nodes_say_what_they_take(pack):
    assert set(pack.NODE_DISPLAY_NAME_MAPPINGS) == set(pack.NODE_CLASS_MAPPINGS)
    for node in pack.NODE_CLASS_MAPPINGS.values():
        inputs = node.INPUT_TYPES()
        names = [*inputs["required"], *inputs["optional"]]
        assert list(inspect.signature(getattr(node, node.FUNCTION)).parameters) == ["self", *names]
        assert node.CATEGORY
        assert node.DESCRIPTION


def test_from_prompts_to_pictures(pack, starter, caplog):
    model = run(pack, "UniAlignLoad")
    assert type(model) is type(starter)
    words = run(pack, "UniAlignEncode", model=model, text="a red car")
    assert torch.equal(words, starter.embed(text="a red car"))
    sound = {"waveform": torch.zeros(1, 2, 16000), "sample_rate": 16000}
    heard = run(pack, "UniAlignEncode", model=model, text=" ", audio=sound, prior_strength=0.0)
    assert "silent" in caplog.text
    pixels = torch.rand(1, 40, 60, 3, generator=torch.Generator().manual_seed(0))
    seen = run(pack, "UniAlignEncode", model=model, text="", image=pixels)
    assert torch.allclose(seen, starter.embed(image=np.asarray(pixels[0])), atol=1e-6)
    mixed = run(pack, "UniAlignMix", a=words, b=seen, weight_a=0.7, weight_b=-0.3)
    assert mixed.shape == (1, 256)
    assert torch.allclose(mixed.norm(dim=1), torch.ones(1))
    pictures = run(pack, "UniAlignDraw", model=model, embeds=words, seed=3, pictures=2, steps=1)
    options = {"seed": 3, "num_images_per_prompt": 2, "num_inference_steps": 1, "output_type": "np"}
    expected = starter(text="a red car", prior_temperature=0.0, **options).images  # embeddings are the prior's mean
    assert pictures.shape == (2, 512, 512, 3)
    assert np.allclose(pictures, expected, atol=1e-5)
    sent = run(pack, "UniAlignImageEmbeds", model=model, embeds=heard)
    assert torch.allclose(sent.image_embeds, heard * starter.embed_scale.embed_norm)
    assert sent["image_embeds"] is sent.image_embeds
