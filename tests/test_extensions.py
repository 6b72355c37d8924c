"""An encoder, an objective and a decoder from outside the package, each in one file, as CONTRIBUTING.md says."""

import importlib.util
import sys
from pathlib import Path

import torch

import unialign_gen

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


def module(name):
    """As `import name` in that folder."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


def test_a_decoder_in_one_file_draws_and_is_loaded_by_name_of_its_folder(starter, tmp_path):
    linear = module("linear_decoder")
    made = linear.LinearPipeline(starter.aligner, linear.Linear(256), starter.embed_scale)
    call = {"text": ["a red car", "a dog"], "seed": 0}
    pictures = made(**call).images
    assert [p.size for p in pictures] == [(16, 16)] * 2
    raw = made.decoder(made.embed(text=call["text"]) * starter.embed_scale.embed_norm)
    expected = ((raw / 2 + 0.5).clamp(0, 1) * 255).round()
    got = torch.stack([torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8).view(16, 16, 3) for p in pictures])
    assert torch.equal(got.permute(0, 3, 1, 2).float(), expected)
    made.save_pretrained(tmp_path / "mine")
    again = unialign_gen.load(tmp_path / "mine")
    assert type(again).__name__ == "LinearPipeline"
    assert again(**call).images[1].tobytes() == pictures[1].tobytes()


def test_an_objective_in_one_file_is_named_by_a_configuration():
    from unialign_gen.objectives import build

    objective = build(f"file:{EXAMPLES / 'pull_together.py'}:PullTogether", weight=2.0)
    z = torch.nn.functional.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    assert float(objective({"image": z, "text": z})) < 1e-6
    apart = objective({"image": z, "text": -z + 0.1 * z.roll(1, 0)}, {"text": torch.tensor([True, False, True, True, True])})
    assert float(apart) > 1
