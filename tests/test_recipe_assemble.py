"""The recipe's last stage at a tiny size: a checkpoint that loads, with everything that was put in."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F

import unialign_gen
from unialign_gen.checkpoints.recipe import assemble, autoencoder, decoders
from unialign_gen.concepts import ConceptTable, Understanding, concept_table
from unialign_gen.heads import load_head
from unialign_gen.loading import DECODERS, find, own_settings
from unialign_gen.pipelines import EmbeddingPrior


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkpoint of the shipped encoders and heads with tiny decoders, and what it was made of."""
    root, aligner = tmp_path_factory.mktemp("assemble"), find("starter") / "aligner"
    heads = {}
    for kind in ("image", "text", "audio"):
        shutil.copytree(aligner / kind, root / "encoders" / kind, ignore=shutil.ignore_patterns("head.*"))
        heads[kind] = load_head(aligner / kind)
    torch.manual_seed(0)
    folder = root / "decoders"
    autoencoder.build((8, 8, 8), 4).save_pretrained(folder / "movq")
    decoders.KandinskyDenoiser(256, 4, 16, 32).write(folder / "kandinsky")
    decoders.KandinskyDenoiser(256, 4, 16, 32).write(folder / "kandinsky-distilled")
    decoders.UnclipDenoiser(
        256, 4, 16, 32, decoders.tokenizer(folder / "stable-unclip" / "tokenizer", ["a dog", "a cat"]), [["a dog"], ["a cat"]]
    ).write(folder / "stable-unclip")
    points = F.normalize(torch.randn(5, 256), dim=1)
    prior = EmbeddingPrior(256, 5, 8.0, 0.6, colours=(3, 2), pictures=6)
    prior.deviations.copy_(torch.randn(6, 256))
    prior.points.copy_(points)
    prior.colour_axes.copy_(torch.eye(256)[:2])
    understanding = Understanding(list("abcde"), points, torch.eye(256), {"text": 0.5})
    table = ConceptTable(["dog", "cat"], points[:2], torch.eye(256))
    (root / "ATTRIBUTION.tsv").write_text("source\n")
    out = root / "starter"
    out.mkdir()
    (out / assemble.KEPT).write_text("the card")
    (out / "stale").write_text("of the one before")
    assemble.starter(root, folder, heads, table, prior, understanding, out)
    return out, prior, understanding


def test_it_takes_the_place_of_the_one_before_and_keeps_its_card(made):
    out, _, _ = made
    assert (out / assemble.KEPT).read_text() == "the card"
    assert not (out / "stale").exists()
    assert not out.with_suffix(".part").exists()
    assert (out / "ATTRIBUTION.tsv").exists()
    for file in out.rglob("*.json"):
        assert "name_or_path" not in file.read_text() or "tokenizer" in file.name, file
    assert json.loads((out / "model_index.json").read_text())["default_steps"] == assemble.STEPS


@pytest.mark.parametrize("decoder", DECODERS)
def test_it_draws_and_its_prior_and_limits_are_those_that_were_put_in(made, decoder):
    out, prior, understanding = made
    pipeline = unialign_gen.load(str(out if decoder == "kandinsky" else out / decoder))
    picture = pipeline(text="a dog", seed=0, num_inference_steps=2).images[0]
    assert min(picture.size) >= 64
    own = own_settings(out if decoder == "kandinsky" else out / decoder)
    assert own == ((4, 1, 2) if "distilled" in decoder else (12, 4, 1))
    assert [(out / decoder / part).exists() for part in ("movq", "aligner")] == [False, False]
    seen = F.normalize(torch.randn(3, 256, generator=torch.Generator().manual_seed(1)), dim=1)
    assert torch.allclose(pipeline.prior(seen), prior.float()(seen), atol=2e-3)
    assert pipeline.prior.config["pictures"] == len(pipeline.prior.shows) == 4  # of the six pictures of one thing
    if decoder == "kandinsky":
        assert concept_table(pipeline).names == ["dog", "cat"]
        again = Understanding.from_checkpoint(out)
        assert [one.nearest for one in again(seen, "text")] == [one.nearest for one in understanding(seen, "text")]
