"""Networks and resizes against torch-fidelity, Pillow and transformers, with random weights; no weights are downloaded."""

from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from unialign_gen.errors import InputError
from unialign_gen.eval import extractors
from unialign_gen.eval.extractors import bicubic, channels, tf1
from unialign_gen.eval.features import cached, compare, extract, features_of, measure
from unialign_gen.eval.frechet import frechet_distance
from unialign_gen.eval.moments import FeatureSource, Moments
from unialign_gen.media.picture_sets import digest, open_pictures


def random_inception():
    """torch-fidelity's network with random weights; its constructor always loads some, here none."""
    with (
        mock.patch.object(feature_extractor_inceptionv3, "load_state_dict_from_url", return_value={}),
        mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict"),
    ):
        return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file laid out as the published one, random inside."""
    torch.manual_seed(0)
    net = random_inception()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):  # else features fade to nothing, and distances to rounding errors
            module.weight.data = 0.8 * torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.8, 1.6)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(net.state_dict(), path)
    return path


def to_pil(pixels):
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def pictures(folder: Path, count: int = 5, sizes=((40, 30), (64, 64), (330, 310))) -> list[Path]:
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for i in range(count):
        width, height = sizes[i % len(sizes)]
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return open_pictures(folder).pictures


def test_inception_is_torch_fidelitys_bit_for_bit(weights):
    theirs = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights))
    pixels = torch.randint(0, 256, (2, 3, 50, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(pixels)[0]
        ours = extractors.network(weights)(torch.stack([tf1(to_pil(p), extractors.SIDE) for p in pixels]))
    assert torch.equal(ours, expected)
    assert float(expected.std()) > 1e-3


def test_the_extractor_is_the_same_network_to_rounding(weights, tmp_path):
    theirs = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights))
    files = pictures(tmp_path / "set", 3)
    found = extract(extractors.load("inception", weights, "tf1"), files, batch=2)
    for file, row in zip(files, found, strict=True):
        expected = theirs(channels(Image.open(file))[None])[0][0]
        assert torch.allclose(row, expected, atol=2e-6, rtol=1e-5)


def test_bicubic_is_pillows_in_floating_point():
    """Channel by channel, clipped and not rounded; rounded it is what Pillow gives for bytes, but for its own rounding."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (400, 350, 3), dtype=np.uint8))
    ours = bicubic(picture, 299)
    for i, plane in enumerate(np.asarray(picture).transpose(2, 0, 1)):
        expected = Image.fromarray(plane.astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC)
        assert np.array_equal(ours[i], np.asarray(expected).clip(0, 255))
    dull = Image.fromarray(rng.integers(100, 156, (400, 350, 3), dtype=np.uint8))  # bytes are clipped between the two passes
    in_bytes = np.asarray(dull.resize((299, 299), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.abs(bicubic(dull, 299).numpy() - in_bytes).max() <= 1.51
    assert float((ours - ours.round()).abs().max()) > 0.1
    small = Image.new("RGB", (299, 299), (1, 2, 3))
    assert torch.equal(bicubic(small, 299), channels(small).float())


def test_without_weights_the_command_says_what_to_give(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InputError, match=r"no route.*--extractor.*not called FID"):
        extractors.load("inception")
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_file_in_torchs_cache_is_used(monkeypatch, tmp_path, weights):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / extractors.FILE).write_bytes(weights.read_bytes())
    assert extractors.load("inception").distance == "FID"


def test_wrong_weights_and_pickles_are_refused(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="no Inception"):
        extractors.load("inception", tmp_path / "other.pth")
    torch.save({"a": pictures}, tmp_path / "code.pth")
    with pytest.raises(InputError, match="refused"):
        extractors.load("inception", tmp_path / "code.pth")


def test_choices_are_checked():
    for arguments, words in (
        (("resnet",), "unknown extractor"),
        (("judge", None, "tf1"), "resize of its own"),
        (("inception", None, "area"), "unknown resize"),
        (("clip",), "give a folder"),
        (("dinov2", Path("/nowhere")), "no folder"),
        (("smell:anything",), "unknown encoder"),
    ):
        with pytest.raises(InputError, match=words):
            extractors.load(*arguments)


def test_only_inceptions_distance_is_fid(weights):
    names = {extractors.load("inception", weights).distance: 1, extractors.load("judge").distance: 1}
    assert [n for n in names if "FID" in n] == ["FID"]


def test_dinov2_is_transformers_class_token(tmp_path):
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    net = Dinov2Model(
        Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    ).eval()
    net.save_pretrained(tmp_path / "net")
    files = pictures(tmp_path / "set", 3)
    found = extract(extractors.load("dinov2", tmp_path / "net"), files)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = torch.stack([((bicubic(Image.open(f), 28) / 255).permute(1, 2, 0) - mean) / std for f in files]).permute(
        0, 3, 1, 2
    )
    with torch.no_grad():
        assert torch.allclose(found, net(pixels).pooler_output, atol=1e-5)


def test_clip_is_transformers_projection(tmp_path):
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    net = CLIPVisionModelWithProjection(CLIPVisionConfig(projection_dim=24, intermediate_size=64, **sizes)).eval()
    net.save_pretrained(tmp_path / "net")
    files = pictures(tmp_path / "set", 2, ((64, 64), (40, 40)))
    found = extract(extractors.load("clip", tmp_path / "net"), files)
    prepare = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, use_fast=False)
    with torch.no_grad():
        expected = net(prepare([Image.open(f) for f in files], return_tensors="pt")["pixel_values"]).image_embeds
    assert torch.allclose(found, expected, atol=2e-3)
    named = extractors.load(f"hf:{tmp_path / 'net'}")  # any encoder by its name
    assert torch.allclose(extract(named, files), found, atol=1e-5)
    assert named.distances[1].startswith("kernel distance (hf:")


def test_features_are_kept_and_made_anew_when_a_picture_changes(tmp_path):
    judge = extractors.load("judge")
    files = pictures(tmp_path / "set", 5)
    first = cached(judge, files, tmp_path / "kept" / "f.safetensors", batch=2)
    assert torch.equal(first, extract(judge, files, batch=2))

    def never(_):
        raise AssertionError("extracted again")

    blind = extractors.Extractor(judge.name, judge.resize, judge.prepare, never, judge.distance)
    assert torch.equal(cached(blind, files, tmp_path / "kept" / "f.safetensors"), first)
    Image.new("RGB", (30, 30), "red").save(files[1])
    with pytest.raises(AssertionError):
        cached(blind, files, tmp_path / "kept" / "f.safetensors")
    again = cached(judge, files, tmp_path / "kept" / "f.safetensors")
    assert not torch.equal(again[1], first[1])
    assert torch.allclose(again[2], first[2], atol=1e-5)
    (tmp_path / "kept" / "f.safetensors").write_bytes(b"cut off")
    assert torch.equal(cached(judge, files, tmp_path / "kept" / "f.safetensors"), again)


def test_statistics_of_a_folder_are_those_of_its_features(tmp_path):
    judge = extractors.load("judge")
    files = pictures(tmp_path / "set", 5)
    found = measure(judge, tmp_path / "set")
    x = extract(judge, files).double()
    assert torch.allclose(found.mean, x.mean(0), atol=1e-5)
    assert torch.allclose(found.cov, torch.cov(x.T), atol=1e-4)
    assert (found.n, found.source.extractor, found.source.pictures) == (5, judge.name, digest(files))


def test_pictures_are_known_by_their_content(tmp_path):
    """A picture without an ending counts, a text file does not and is said; a broken picture is said, or an error on demand."""
    judge, folder = extractors.load("judge"), tmp_path / "set"
    files = pictures(folder, 4)
    whole = extract(judge, files)
    files[1].rename(folder / "1_without_an_ending")
    (folder / "notes.txt").write_text("about these pictures")
    (folder / ".hidden.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="1 files are no pictures"):
        found, kept, left_out = features_of(judge, folder)
    assert torch.allclose(found, whole, atol=1e-5)
    assert (kept, left_out) == (digest([files[0], folder / "1_without_an_ending", *files[2:]]), 0)
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:900])
    with pytest.warns(UserWarning, match=r"1 pictures cannot be read.*2.png"):
        found, _, left_out = features_of(judge, folder)
    assert torch.allclose(found, whole[[0, 1, 3]], atol=1e-5)
    assert left_out == 1
    with pytest.raises(InputError, match=r"2.png"):
        features_of(judge, folder, strict=True)
    with pytest.raises(InputError, match=r"2.png"):
        measure(judge, folder, strict=True)
    for file in files:
        file.unlink(missing_ok=True)
    (folder / "1_without_an_ending").unlink()
    with pytest.raises(InputError, match="no pictures in"):
        features_of(judge, folder)


def test_features_of_a_folder_are_kept_between_calls(tmp_path):
    judge = extractors.load("judge")
    pictures(tmp_path / "set", 4)
    first, *_ = features_of(judge, tmp_path / "set", tmp_path / "cache")

    def never(_):
        raise AssertionError("extracted again")

    blind = extractors.Extractor(judge.name, judge.resize, judge.prepare, never, judge.distance)
    assert torch.equal(features_of(blind, tmp_path / "set", tmp_path / "cache")[0], first)
    other = extractors.Extractor(judge.name, "another resize", judge.prepare, never, judge.distance)
    with pytest.raises(AssertionError):
        features_of(other, tmp_path / "set", tmp_path / "cache")


def test_npz_of_other_programs_are_read(tmp_path):
    """mu and sigma of pytorch-fid, clean-fid and ADM; ADM's samples, arr_0."""
    mean, spread = torch.rand(2, 2048, generator=torch.Generator().manual_seed(0)).double()
    np.savez(tmp_path / "stats.npz", mu=mean.numpy(), sigma=np.diag(1 + spread.numpy()))
    found = Moments.load(tmp_path / "stats.npz")
    ours = Moments(mean + 1, torch.diag(1 + spread), 40, FeatureSource("inception-1a2b3c4d", "pillow bicubic 299"))
    assert frechet_distance(found, ours) == pytest.approx(2048)  # the means alone differ
    with pytest.raises(InputError, match="of Inception"):
        frechet_distance(found, replace(ours, source=FeatureSource("clip-1", "x")))
    np.savez(tmp_path / "narrow.npz", mu=np.zeros(3), sigma=np.eye(3))
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    (tmp_path / "bad.npz").write_bytes(b"PK")
    np.save(tmp_path / "code.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "code.npy").rename(tmp_path / "code.npz")
    for name in ("narrow", "other", "bad", "code", "missing"):
        with pytest.raises(InputError):
            Moments.load(tmp_path / f"{name}.npz")
    judge = extractors.load("judge")
    files = pictures(tmp_path / "set", 3, ((64, 64),))
    np.savez(tmp_path / "samples.npz", np.stack([np.asarray(Image.open(f)) for f in files]))
    assert torch.allclose(features_of(judge, tmp_path / "samples.npz")[0], extract(judge, files), atol=1e-6)
    same = compare(tmp_path / "samples.npz", tmp_path / "set", judge)
    assert same[judge.distance] < 1e-6
    assert (same["n"], same["n_reference"]) == (3, 3)


def test_a_folder_without_pictures_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match="no pictures"):
        open_pictures(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        open_pictures(tmp_path / "missing")


def test_kid_of_folders_is_torch_fidelitys(weights, tmp_path):
    """From files to a number, the same weights and the original's resize on both sides."""
    import torch_fidelity

    rng = np.random.default_rng(0)
    for name, lift in (("a", 0), ("b", 60)):
        (tmp_path / name).mkdir()
        for i in range(4):
            coarse = Image.fromarray(rng.integers(0, 196, (8, 8, 3), dtype=np.uint8) + np.uint8(lift))
            coarse.resize((64, 64)).save(tmp_path / name / f"{i}.png")
    theirs = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "a"),
        input2=str(tmp_path / "b"),
        kid=True,
        kid_subset_size=4,
        cuda=False,
        save_cpu_ram=True,
        verbose=False,
        cache=False,
        feature_extractor_weights_path=str(weights),
    )
    found = compare(tmp_path / "a", tmp_path / "b", extractors.load("inception", weights, "tf1"))
    assert found["KID"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert found["FID"] > 0
