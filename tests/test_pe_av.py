"""PE-AV whole: text, sound, video and both, against transformers' own model on the same random weights."""

import numpy as np
import pytest
import torch
from conftest import write_video
from PIL import Image
from safetensors.torch import load_file, save_file
from test_clip_encoders import lively, tokenizer  # noqa: F401  fixture
from transformers import PeAudioVideoConfig, PeAudioVideoModel, PeVideoVideoProcessor

from unialign_gen.aligner import Aligner, Part
from unialign_gen.data.corpus import Sample
from unialign_gen.data.decode import prepare
from unialign_gen.data.extract_config import locate
from unialign_gen.encoders import load_encoder, save_encoder
from unialign_gen.encoders.registry import NOWHERE
from unialign_gen.errors import InputError
from unialign_gen.media import Clip

SIDE = 16


def save_pe_av(folder, tokenizer, ratios=(2, 4)):  # noqa: F811
    """A folder as the hub has it, with a tiny model, one token of sound for as many samples as the product of `ratios`."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16}
    codec = {"encoder_hidden_size": 4, "downsampling_ratios": list(ratios), "codebook_dim": 6}
    text = {"hidden_size": 20, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 49408}
    text |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    vision = {"architecture": "vit_pe_core_tiny_patch16_384", "num_classes": 8, "do_pooling": True, "global_pool": "map"}
    vision["model_args"] = {"img_size": SIDE, "embed_dim": 32, "depth": 1, "num_heads": 2, "ref_feat_shape": (1, 1)}
    both = sizes | {"audio_config": sizes | {"dac_config": codec}, "video_config": sizes | {"vision_config": vision}}
    model = lively(PeAudioVideoModel(PeAudioVideoConfig(text_config=text, audio_video_config=both)))
    model.save_pretrained(folder)
    way = {"do_resize": True, "do_rescale": True, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    PeVideoVideoProcessor(size={"height": SIDE, "width": SIDE}, **way).save_pretrained(folder)
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def published(tmp_path_factory, tokenizer):  # noqa: F811
    """The folder, and the model in it."""
    folder = tmp_path_factory.mktemp("pe-av")
    save_pe_av(folder, tokenizer)
    return folder, PeAudioVideoModel.from_pretrained(folder).eval()


def clips():
    dice = np.random.default_rng(0)
    frames = [[Image.fromarray(dice.integers(0, 255, (20, 24, 3), np.uint8)) for _ in range(4)] for _ in range(2)]
    noise = torch.randn(2, 401, generator=torch.Generator().manual_seed(0))
    return [Clip(shown, sound[:length]) for shown, sound, length in zip(frames, noise, (401, 200), strict=True)]


@pytest.mark.parametrize("modality", ["audio", "text", "video", "audio_video"])
def test_every_modality_is_transformers_own(published, tmp_path, modality):
    folder, model = published
    encoder = load_encoder(NOWHERE, None, {"encoder": f"pe_av:{folder}", "modality": modality})
    given = {"text": ["a dog", "two cats and a bird"], "audio": [c.sound for c in clips()]}.get(modality, clips())
    prepared = encoder.prepare(given)
    assert torch.equal(encoder.collate([encoder.prepare([one]) for one in given]).nan_to_num(), prepared.nan_to_num())
    features = encoder(prepared)
    sounds = load_encoder(NOWHERE, None, {"encoder": f"pe_av:{folder}", "modality": "audio"}).prepare(
        [c.sound for c in clips()]
    )
    shown = model_pixels(folder)
    with torch.no_grad():
        whole = model(
            input_ids=torch.ones(2, 3, dtype=torch.long) if modality != "text" else prepared[:, 0],
            attention_mask=None if modality != "text" else prepared[:, 1],
            input_values=sounds.nan_to_num().unsqueeze(1),
            pixel_values_videos=shown.contiguous(),
            padding_mask=~sounds.isnan(),
        )
    name = "text_audio" if modality == "text" else modality
    assert torch.allclose(features, whole[f"{name}_embeds"], atol=1e-4)
    save_encoder(encoder, tmp_path / "saved")
    again = load_encoder(tmp_path / "saved")
    assert torch.equal(again(again.prepare(given)), features)


def model_pixels(folder):
    processor = PeVideoVideoProcessor.from_pretrained(folder)
    arrays = [np.stack([np.asarray(f) for f in clip.frames]) for clip in clips()]
    return processor(videos=arrays, do_sample_frames=False, return_tensors="pt")["pixel_values_videos"]


def test_a_text_has_an_embedding_for_each_of_the_others(published):
    folder, model = published
    read = {
        kind: load_encoder(NOWHERE, None, {"encoder": f"pe_av:{folder}", "modality": "text", "against": kind})
        for kind in ("audio", "video", "audio_video")
    }
    tokens = read["audio"].prepare(["a dog"])
    with torch.no_grad():
        theirs = model.get_text_audio_video_embeds(tokens[:, 0], tokens[:, 1])
    assert torch.allclose(read["audio_video"](tokens), theirs, atol=1e-5)
    found = [encoder(tokens) for encoder in read.values()]
    assert min(float((found[i] - found[j]).norm()) for i, j in ((0, 1), (0, 2), (1, 2))) > 1e-2


def test_a_part_is_found_under_whichever_name_the_file_has_it(published, tmp_path):
    folder, _ = published
    state = load_file(folder / "model.safetensors")
    inner, outer = (
        "audio_video_encoder.embedder.",
        {"audio_model.audio_encoder.": "audio_encoder.", "video_model.video_encoder.": "video_encoder."},
    )
    for way in ("outer", "inner"):
        place = tmp_path / way
        place.mkdir()
        for path in folder.iterdir():
            if path.name != "model.safetensors":
                (place / path.name).write_bytes(path.read_bytes())
        renamed = {}
        for name, value in state.items():
            for mine, theirs in outer.items():
                if way == "inner" and name.startswith(mine):
                    name = inner + theirs + name.removeprefix(mine)
                elif way == "outer" and name.startswith(inner + theirs):
                    name = mine + name.removeprefix(inner + theirs)
            renamed[name] = value
        save_file(renamed, place / "model.safetensors")
        encoder = load_encoder(NOWHERE, None, {"encoder": f"pe_av:{place}", "modality": "audio_video"})
        whole = load_encoder(NOWHERE, None, {"encoder": f"pe_av:{folder}", "modality": "audio_video"})
        assert torch.equal(encoder(encoder.prepare(clips())), whole(whole.prepare(clips())))


def test_a_video_as_a_prompt_is_read_whole(published):
    folder, _ = published
    aligner = Aligner(20, ())
    encoder = load_encoder(NOWHERE, None, {"encoder": f"pe_av:{folder}", "modality": "video"})
    aligner.add_part("video", Part(encoder, torch.nn.Identity()))
    frames = np.stack([np.asarray(f) for f in clips()[0].frames])
    z = aligner.embed("video", [frames])
    assert z.shape == (1, 20)
    assert torch.allclose(z.norm(dim=1), torch.ones(1), atol=1e-5)


@pytest.mark.parametrize("modality", ["video", "audio_video"])
def test_a_corpus_is_extracted_by_whole_clips(published, tmp_path, modality):
    folder, _ = published
    write_video(tmp_path / "clip.mp4", seconds=1.0)
    described = locate(modality, f"pe_av:{folder}")
    assert described["modality"] == modality
    encoder = load_encoder(NOWHERE, None, described)
    extra = {} if modality == "video" else {modality: str(tmp_path / "clip.mp4")}
    found = prepare(Sample("a", video=str(tmp_path / "clip.mp4"), extra=extra), {modality: encoder}, 4, 60)
    assert not found.problems
    assert encoder(found.inputs[modality]).shape == (1, 20)


def test_what_is_wrong_is_one_line(published):
    folder, _ = published
    for config, says in (({"modality": "image"}, "PE-AV knows"), ({"modality": "text", "against": "smell"}, "PE-AV knows")):
        with pytest.raises(InputError, match=says):
            load_encoder(NOWHERE, None, {"encoder": f"pe_av:{folder}", **config})
    encoder = load_encoder(NOWHERE, None, {"encoder": f"pe_av:{folder}", "modality": "audio_video"})
    silent = clips()
    silent[1].sound = None
    with pytest.raises(InputError, match="no sound"):
        encoder.prepare(silent)
    odd = clips()
    odd[1].frames.pop()
    with pytest.raises(InputError, match="number of frames"):
        encoder.prepare(odd)
