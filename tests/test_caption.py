"""Captioning with small random models of transformers' own classes, kept in folders as on the hub."""

import json

import numpy as np
import pytest
import torch
import yaml
from conftest import write_video
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from typer.testing import CliRunner

from unialign_gen.cli import app
from unialign_gen.data import captions
from unialign_gen.data.captioner import Captioner
from unialign_gen.errors import InputError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "dog", "cat", "drum", "rain", "car", "plays", "red"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def bert_tokenizer(folder):
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return BertTokenizerFast(str(folder / "vocab.txt"))


def save_blip(folder):
    folder.mkdir()
    torch.manual_seed(0)
    text = {**SMALL, "vocab_size": len(WORDS), "bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(
        text_config={**text, "encoder_hidden_size": 16}, vision_config={**SMALL, "image_size": 32, "patch_size": 16}
    )
    BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), bert_tokenizer(folder)).save_pretrained(folder)
    return folder


def save_git(folder, frames=None):
    folder.mkdir()
    torch.manual_seed(0)
    vision = {**SMALL, "image_size": 32, "patch_size": 16}
    config = GitConfig(
        vision_config=vision, **SMALL, vocab_size=len(WORDS), bos_token_id=2, eos_token_id=3, num_image_with_embedding=frames
    )
    GitForCausalLM(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    pictures = CLIPImageProcessor(size=size, crop_size=size)
    GitProcessor(pictures, bert_tokenizer(folder)).save_pretrained(folder)
    return folder


def save_llava(folder):
    folder.mkdir()
    torch.manual_seed(0)
    names = ["<pad>", "<s>", "</s>", "<image>", "<unk>", *WORDS[5:], "describe", ":", "user", "assistant"]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(names)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    template = (
        "{% for m in messages %}user : {% for c in m['content'] %}{% if c['type'] == 'image' %}<image> "
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %} assistant :"
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**SMALL, image_size=32, patch_size=16),
        text_config=LlamaConfig(
            **SMALL, num_key_value_heads=2, vocab_size=len(names), bos_token_id=1, eos_token_id=2, pad_token_id=0
        ),
        image_token_index=3,
        vision_feature_select_strategy="default",
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    LlavaProcessor(
        CLIPImageProcessor(size=size, crop_size=size),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


def noise(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    return save_blip(tmp_path_factory.mktemp("models") / "blip")


def test_each_frame_has_transformers_own_caption(blip):
    clips = [[noise(0), noise(1)], [noise(2)]]
    model = BlipForConditionalGeneration.from_pretrained(blip).eval()
    processor = BlipProcessor.from_pretrained(blip)
    for prompt in (None, "a photo of"):
        expected = []
        for clip in clips:
            texts = []
            for frame in clip:
                inputs = processor(images=frame, text=prompt, return_tensors="pt")
                made = model.generate(**inputs, max_new_tokens=6, do_sample=False)
                texts.append(processor.decode(made[0], skip_special_tokens=True))
            expected.append(list(dict.fromkeys(texts)))
        found = Captioner(str(blip), prompt, tokens=6)(clips)
        assert found == expected
        assert all(t.startswith(prompt or "") for texts in found for t in texts)


def test_git_for_videos_sees_all_frames(tmp_path):
    folder = save_git(tmp_path / "git", frames=3)
    clip = [noise(i) for i in range(3)]
    model = GitForCausalLM.from_pretrained(folder).eval()
    pixels = GitProcessor.from_pretrained(folder).image_processor(images=clip, return_tensors="pt")["pixel_values"]
    tokens = model.generate(pixel_values=pixels[None], max_new_tokens=6, do_sample=False)
    expected = bert_tokenizer(folder).decode(tokens[0], skip_special_tokens=True)
    assert Captioner(str(folder), tokens=6)([clip, clip]) == [[expected], [expected]]


def test_git_for_pictures(tmp_path):
    found = Captioner(str(save_git(tmp_path / "git")), "a photo of", tokens=4)([[noise(0)]])
    assert found[0][0].startswith("a photo of")


def test_a_chat_model_answers_about_all_frames(tmp_path):
    captioner = Captioner(str(save_llava(tmp_path / "llava")), "describe the dog", tokens=5)
    clips = [[noise(0), noise(1)], [noise(2), noise(3)]]
    together = captioner(clips)
    assert together == [captioner([clip])[0] for clip in clips]
    assert all(len(texts) == 1 for texts in together)
    assert not any("describe" in t and "assistant" in t for texts in together for t in texts)


def test_what_is_no_captioner_is_one_line(tmp_path):
    for name in ("nowhere", str(tmp_path)):
        with pytest.raises(InputError, match="no captioning model") as error:
            Captioner(name)
        assert "\n" not in str(error.value)


def test_the_command(blip, tmp_path):
    write_video(tmp_path / "a_000000.mp4", 0.5)
    (tmp_path / "vggsound.csv").write_text("a,0,dog barking,test\n")
    out = tmp_path / "captions.jsonl"
    corpus = {"kind": "vggsound", "root": str(tmp_path), "split": "test", "captions": str(out)}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"corpus": corpus, "encoders": {"text": "starter"}}))
    arguments = ["caption", str(tmp_path / "c.yaml"), "--model", str(blip), "--out", str(out), "--prompt", "a photo of"]
    result = CliRunner().invoke(app, [*arguments, "--tokens", "4", "--frames", "2", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["captioned"] == 1
    assert captions.read(out)["a_000000"][0].startswith("a photo of")
    result = CliRunner().invoke(app, [*arguments[:-2], "--out", str(out.with_suffix(".txt"))])
    assert (result.exit_code, len(result.stderr.strip().splitlines())) == (2, 1)
