"""The published decoders at full size, without their weights: shapes on the meta device against what others published.

Three kinds of statements, none of them ours: parameter counts that public repositories print, the exact sizes of published
weight files, and digests of published configurations. A `.safetensors` file's size is its data and a header with the name,
shape and place of every tensor, so a size that comes out to the byte means that the same names and shapes are in the file.
"""

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from test_stable_unclip import words
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from unialign_gen.aligner import Aligner
from unialign_gen.errors import InputError
from unialign_gen.loading import shipped_folder
from unialign_gen.loading.description import read
from unialign_gen.pipelines import EmbedScale, UniAlignKandinskyPipeline, UniAlignStableUnCLIPPipeline

SCRIPT = Path(__file__).resolve().parent.parent / "benchmarks" / "memory.py"
spec = importlib.util.spec_from_file_location("memory", SCRIPT)
memory = importlib.util.module_from_spec(spec)
spec.loader.exec_module(memory)
architecture, component_class, encoder_parts = memory.architecture, memory.component_class, memory.encoder_parts
on_meta, peak_bytes, table = memory.on_meta, memory.peak_bytes, memory.table
NAMES = ("stable-unclip", "kandinsky", "sdxl-vit-h", "sd15-vit-h", "animatediff-vit-h")


@pytest.fixture(scope="module")
def built():
    """Every component with parameters, by checkpoint and name, on the meta device."""
    return {
        (name, part): on_meta(component_class(entry), entry["config"])
        for name in NAMES
        for part, entry in architecture(name)["components"].items()
        if "parameters" in entry and (name, part) in COUNTS
    }


def shapes(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def count(model):
    return sum(p.numel() for p in model.parameters())


# SD 2.1's UNet, text encoder and the decoding half of its VAE as in buddy-compiler/buddy-mlir: examples/BuddyStableDiffusion/
# buddy-stable-diffusion-main.cpp; the class embedding of Stable unCLIP (2048 -> 1280 -> 1280) comes on top. Kandinsky's two as
# in the model card of kurtvalcorza/kandinsky-generation-pipeline; ai-forever/Kandinsky-2 rounds them to 1.22B and 67M.
COUNTS = {
    ("stable-unclip", "unet"): 865_910_724 + (2048 * 1280 + 1280) + (1280 * 1280 + 1280),
    ("stable-unclip", "vae"): 83_653_863,
    ("stable-unclip", "text_encoder"): 340_387_840,
    ("stable-unclip", "image_normalizer"): 2 * 1024,
    ("kandinsky", "unet"): 1_253_057_288,
    ("kandinsky", "movq"): 67_832_495,
    # public tables of SDXL's and Stable Diffusion 1.5's parts; diffusers' own documentation prints the latter's UNet. Of the
    # motion module no count was found in print: that is what diffusers' class has.
    ("sdxl-vit-h", "unet"): 2_567_463_684,
    ("sdxl-vit-h", "vae"): 83_653_863,
    ("sdxl-vit-h", "text_encoder"): 123_060_480,
    ("sdxl-vit-h", "text_encoder_2"): 694_659_840,
    ("sd15-vit-h", "unet"): 859_520_964,
    ("animatediff-vit-h", "motion_adapter"): 453_209_280,
}


def test_counts_are_the_published_ones(built):
    assert {key: count(model) for key, model in built.items()} == COUNTS
    for (name, part), model in built.items():
        entry = architecture(name)["components"][part]
        assert (entry["parameters"], entry["tensors"]) == (count(model), len(shapes(model)))
    vae = built["stable-unclip", "vae"]
    assert count(vae.decoder) + count(vae.post_quant_conv) == 49_490_199


def test_all_tensors_of_stable_unclip_together(built):
    # andreinknv/stable-diffusion.rs converts the five components with weights and counts 1834 tensors; the vision encoder is
    # one of them, and both CLIP files hold their position numbers, which are no weights
    decoder = sum(len(shapes(m)) for (name, _), m in built.items() if name == "stable-unclip")
    vision = transformers_vision(1280, 5120, 32, 16, 1024)
    assert decoder + len(shapes(vision)) + 2 == architecture("stable-unclip")["together"]["tensors"] == 1834


def transformers_vision(width, wide, layers, heads, dim):
    """A ViT/14 of CLIP in transformers' words, on the meta device."""
    sizes = {"hidden_size": width, "intermediate_size": wide, "num_hidden_layers": layers, "num_attention_heads": heads}
    with torch.device("meta"):
        return CLIPVisionModelWithProjection(
            CLIPVisionConfig(**sizes, projection_dim=dim, patch_size=14, image_size=224, hidden_act="gelu")
        )


def file_bytes(tensors, kind="F32", numbers=None, padded=False, metadata=True):
    """Size of a `.safetensors` file with these names and shapes, as PyTorch models are saved, sorted by name.

    `numbers` is the name and length of a row of 64 bit positions. Early versions of the format sort them among the others and
    do not pad the header; later ones put them first and pad it to 8 bytes.
    """
    rows = [({"F32": 4, "F16": 2}[kind], name, kind, list(shape)) for name, shape in tensors.items()]
    if numbers:
        rows.append((8, numbers[0], "I64", [1, numbers[1]]))
    header, place = {"__metadata__": {"format": "pt"}} if metadata else {}, 0
    for width, name, dtype, shape in sorted(rows, key=lambda r: (-r[0], r[1]) if padded else r[1]):
        end = place + width * torch.Size(shape).numel()
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [place, end]}
        place = end
    length = len(json.dumps(header, separators=(",", ":")))
    return 8 + length + (-length % 8 if padded else 0) + place


def old_attention(name):
    """The VAE's attention as it was called when Stable Diffusion 2.1 was published; diffusers renames it on loading."""
    if "attentions" in name:
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f".{new}.", f".{old}.")
    return name


def test_files_have_the_published_sizes_to_the_byte(built):
    # dimer-base-manifest.json of kurtvalcorza/kandinsky-generation-pipeline, which also gives the digests
    for part in ("unet", "movq"):
        published = architecture("kandinsky")["components"][part]["files"]["diffusion_pytorch_model.safetensors"]["bytes"]
        assert file_bytes(shapes(built["kandinsky", part]), padded=True) == published
    assert published == 271_380_364
    # Stable Diffusion 2.1 and 2, which Stable unCLIP continues: sizes that several repositories report of the hub's copies
    plain = {k: v for k, v in shapes(built["stable-unclip", "unet"]).items() if not k.startswith("class_embedding.")}
    assert file_bytes(plain) == 3_463_726_498
    vae = {old_attention(k): v for k, v in shapes(built["stable-unclip", "vae"]).items()}
    assert file_bytes(vae) == 334_643_276
    text = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in shapes(built["stable-unclip", "text_encoder"]).items()}
    assert file_bytes(text, numbers=("text_model.embeddings.position_ids", 77)) == 1_361_597_018
    # of Stable unCLIP itself the hub's pages show three digits
    assert f"{file_bytes(shapes(built['stable-unclip', 'unet'])) / 1e9:.2f}" == "3.48"
    assert f"{file_bytes(shapes(built['stable-unclip', 'image_normalizer'])) / 1e3:.2f}" == "8.36"


def test_adapters_and_their_bases_have_the_published_sizes_to_the_byte(built):
    # sizes of the files of h94/IP-Adapter, SDXL 1.0 and Stable Diffusion 1.5 that public download lists and manifests check
    for name, unet in (("sdxl-vit-h", "sdxl-vit-h"), ("sdxl-bigg", "sdxl-vit-h"), ("sd15-vit-h", "sd15-vit-h")):
        tensors = memory.adapter_shapes(built[unet, "unet"], architecture(name)["embed_dim"])
        stated = read(shipped_folder() / name)["decoder"]["parts"]["adapter"]["bytes"]["fp16"]
        assert file_bytes(tensors, "F16", padded=True, metadata=False) == stated
    assert stated == 44_642_768
    xl = shapes(built["sdxl-vit-h", "unet"])
    assert (file_bytes(xl, padded=True), file_bytes(xl, "F16", padded=True)) == (10_270_077_736, 5_135_149_760)


def test_full_size_adapters_take_the_embedding(built):
    from diffusers.models.embeddings import ImageProjection

    for name, key in (("sdxl-vit-h", "sdxl-vit-h"), ("sdxl-bigg", "sdxl-vit-h"), ("sd15-vit-h", "sd15-vit-h")):
        unet, width = built[key, "unet"], architecture(name)["embed_dim"]
        with torch.device("meta"):
            projection = ImageProjection(width, unet.config.cross_attention_dim, 4)
        named = {f"image_proj.{k.replace('image_embeds', 'proj')}": tuple(v.shape) for k, v in projection.state_dict().items()}
        wanted = memory.adapter_shapes(unet, width)
        assert named == {k: v for k, v in wanted.items() if k.startswith("image_proj.")}
        layers = sum(processor.endswith("attn2.processor") for processor in unet.attn_processors)
        assert sum(k.startswith("ip_adapter.") for k in wanted) == 2 * layers


def test_encoders_have_the_published_counts():
    # both sides and the temperature: 986,109,441 in public tables of CLIP models; ai-forever/Kandinsky-2 has 1.8B for bigG's
    # pictures; the file of BEATs fine-tuned on AudioSet, which has a classifier of 527 classes too, is listed with 363 MB
    large, largest = encoder_parts("stable-unclip"), encoder_parts("kandinsky")
    assert large["image"] + large["text"] + 1 == 986_109_441
    assert f"{largest['image'] / 1e9:.1f}" == "1.8"
    assert largest["beats"] == large["beats"] == 90_311_792
    assert f"{4 * (large['beats'] + 768 * 527 + 527) / 1e6:.0f}" == "363"


def test_kandinskys_image_encoder_is_the_published_one_to_the_byte():
    encoder = transformers_vision(1664, 8192, 48, 16, 1280)
    assert count(encoder) == encoder_parts("kandinsky")["image"]  # that of open_clip's model of this name
    tensors = {k: v for k, v in shapes(encoder).items() if not k.endswith("position_ids")}
    published = architecture("kandinsky")["image_encoder_file"]
    assert file_bytes(tensors, "F16", ("vision_model.embeddings.position_ids", 257), padded=True) == published["bytes"]
    assert len(tensors) + 1 == published["tensors"]


def digest(config):
    return hashlib.sha256((json.dumps(config, indent=2, sort_keys=True)).encode())


def test_kandinskys_configurations_are_the_published_files_to_the_byte():
    components = architecture("kandinsky")["components"]
    for part, end in (("unet", ""), ("movq", "\n")):
        found = digest(components[part]["config"])
        found.update(end.encode())
        assert found.hexdigest() == components[part]["files"]["config.json"]["sha256"]


# diffusers and transformers of March 2023 wrote these beside the settings; the hub's pages list the files' sizes
WRITTEN = {
    "scheduler": ({"_class_name": "PNDMScheduler", "_diffusers_version": "0.15.0.dev0"}, 470),
    "image_noising_scheduler": ({"_class_name": "DDPMScheduler", "_diffusers_version": "0.15.0.dev0"}, 424),
    "vae": ({"_class_name": "AutoencoderKL", "_diffusers_version": "0.15.0.dev0", "_name_or_path": "./vae"}, 610),
    "image_normalizer": (
        {
            "_class_name": "StableUnCLIPImageNormalizer",
            "_diffusers_version": "0.15.0.dev0",
            "_name_or_path": "./image_normalizer",
        },
        156,
    ),
    "text_encoder": (
        {
            "_name_or_path": "./text_encoder",
            "architectures": ["CLIPTextModel"],
            "attention_dropout": 0.0,
            "dropout": 0.0,
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "model_type": "clip_text_model",
            "torch_dtype": "float32",
            "transformers_version": "4.28.0.dev0",
        },
        597,
    ),
}


@pytest.mark.parametrize("part", WRITTEN)
def test_stable_unclips_configurations_have_the_published_lengths(part):
    beside, length = WRITTEN[part]
    config = architecture("stable-unclip")["components"][part]["config"]
    assert len(json.dumps(config | beside, indent=2, sort_keys=True) + "\n") == length


def both(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def conv(name, inward, outward, side=3):
    return both(name, outward, inward, side, side)


def spatial_norm(name, width):
    """Kandinsky's norm in the picture decoder, which sees the latent (4 channels) too."""
    return both(f"{name}.norm_layer", width) | conv(f"{name}.conv_y", 4, width, 1) | conv(f"{name}.conv_b", 4, width, 1)


def resnet(name, inward, outward, time=0, norm=both):
    keys = norm(f"{name}.norm1", inward) | conv(f"{name}.conv1", inward, outward)
    keys |= norm(f"{name}.norm2", outward) | conv(f"{name}.conv2", outward, outward)
    if time:
        keys |= both(f"{name}.time_emb_proj", *time(outward))
    return keys | (conv(f"{name}.conv_shortcut", inward, outward, 1) if inward != outward else {})


def transformer(name, width):
    """Stable Diffusion 2's attention: to the picture itself, then to 1024-d words, then two linear maps with a gate."""
    block = f"{name}.transformer_blocks.0"
    keys = both(f"{name}.norm", width) | both(f"{name}.proj_in", width, width) | both(f"{name}.proj_out", width, width)
    for i, seen in ((1, width), (2, 1024)):
        keys |= {f"{block}.attn{i}.{n}.weight": (width, w) for n, w in (("to_q", width), ("to_k", seen), ("to_v", seen))}
        keys |= both(f"{block}.attn{i}.to_out.0", width, width)
    for i in (1, 2, 3):
        keys |= both(f"{block}.norm{i}", width)
    return keys | both(f"{block}.ff.net.0.proj", 8 * width, width) | both(f"{block}.ff.net.2", width, 4 * width)


def attention(name, width, norm=both, norm_name="group_norm"):
    keys = norm(f"{name}.{norm_name}", width)
    for part in ("to_q", "to_k", "to_v", "to_out.0"):
        keys |= both(f"{name}.{part}", width, width)
    return keys


def joint_attention(name, width):
    """Kandinsky's attention: to the picture and to 768-d tokens of the embedding at once."""
    extra = both(f"{name}.add_k_proj", width, 768) | both(f"{name}.add_v_proj", width, 768)
    return attention(name, width) | extra


def unet(widths, layers, attend, attended, time, resize):
    """Encoder, middle and decoder; `attended` says which levels of the encoder attend, `resize` what changes the size."""
    last = len(widths) - 1
    keys = conv("conv_in", 4, widths[0]) | both("time_embedding.linear_1", 4 * widths[0], widths[0])
    keys |= both("time_embedding.linear_2", 4 * widths[0], 4 * widths[0]) | both("conv_norm_out", widths[0])
    skips, now = [widths[0]], widths[0]
    for level, width in enumerate(widths):
        for i in range(layers):
            keys |= resnet(f"down_blocks.{level}.resnets.{i}", now, width, time)
            keys |= attend(f"down_blocks.{level}.attentions.{i}", width) if attended[level] else {}
            now = width
            skips.append(width)
        if level != last:
            keys |= resize(f"down_blocks.{level}.downsamplers.0", width)
            skips.append(width)
    keys |= resnet("mid_block.resnets.0", now, now, time) | resnet("mid_block.resnets.1", now, now, time)
    keys |= attend("mid_block.attentions.0", now)
    for level, width in enumerate(reversed(widths)):
        for i in range(layers + 1):
            keys |= resnet(f"up_blocks.{level}.resnets.{i}", now + skips.pop(), width, time)
            keys |= attend(f"up_blocks.{level}.attentions.{i}", width) if attended[last - level] else {}
            now = width
        if level != last:
            keys |= resize(f"up_blocks.{level}.upsamplers.0", width)
    return keys


def autoencoder(widths, moments, attended, norm, norm_name):
    """`attended`: whether the lowest level attends; `norm`: that of the decoder."""
    keys, now, last = conv("encoder.conv_in", 3, widths[0]), widths[0], len(widths) - 1
    for level, width in enumerate(widths):
        for i in range(2):
            keys |= resnet(f"encoder.down_blocks.{level}.resnets.{i}", now, width)
            keys |= attention(f"encoder.down_blocks.{level}.attentions.{i}", width) if attended and level == last else {}
            now = width
        keys |= conv(f"encoder.down_blocks.{level}.downsamplers.0.conv", width, width) if level != last else {}
    for side, kind, named in (("encoder", both, "group_norm"), ("decoder", norm, norm_name)):
        keys |= resnet(f"{side}.mid_block.resnets.0", now, now, norm=kind)
        keys |= resnet(f"{side}.mid_block.resnets.1", now, now, norm=kind)
        keys |= attention(f"{side}.mid_block.attentions.0", now, kind, named)
    keys |= both("encoder.conv_norm_out", now) | conv("encoder.conv_out", now, moments)
    keys |= conv("quant_conv", moments, moments, 1) | conv("post_quant_conv", 4, 4, 1) | conv("decoder.conv_in", 4, now)
    for level, width in enumerate(reversed(widths)):
        for i in range(3):
            keys |= resnet(f"decoder.up_blocks.{level}.resnets.{i}", now, width, norm=norm)
            if attended and level == 0:
                keys |= attention(f"decoder.up_blocks.{level}.attentions.{i}", width, norm, norm_name)
            now = width
        keys |= conv(f"decoder.up_blocks.{level}.upsamplers.0.conv", width, width) if level != last else {}
    return keys | norm("decoder.conv_norm_out", now) | conv("decoder.conv_out", now, 3)


def stable_unclip_unet():
    keys = unet(
        (320, 640, 1280, 1280),
        2,
        transformer,
        (True, True, True, False),
        lambda width: (width, 1280),
        lambda name, width: conv(f"{name}.conv", width, width),
    )
    keys |= both("class_embedding.linear_1", 1280, 2048) | both("class_embedding.linear_2", 1280, 1280)
    return keys | conv("conv_out", 320, 4)


def kandinsky_unet():
    def time(width):  # a scale and a shift
        return 2 * width, 1536

    keys = unet(
        (384, 768, 1152, 1536),
        3,
        joint_attention,
        (False, True, True, True),
        time,
        lambda name, width: resnet(name, width, width, time),
    )
    keys |= both("encoder_hid_proj.image_embeds", 32 * 768, 1280) | both("encoder_hid_proj.norm", 768)
    keys |= both("add_embedding.image_proj", 1536, 1280) | both("add_embedding.image_norm", 1536)
    return keys | conv("conv_out", 384, 8)


def text_encoder():
    keys = both("final_layer_norm", 1024)
    keys |= {"embeddings.token_embedding.weight": (49408, 1024), "embeddings.position_embedding.weight": (77, 1024)}
    for i in range(23):
        layer = f"encoder.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            keys |= both(f"{layer}.self_attn.{part}", 1024, 1024)
        keys |= both(f"{layer}.layer_norm1", 1024) | both(f"{layer}.layer_norm2", 1024)
        keys |= both(f"{layer}.mlp.fc1", 4096, 1024) | both(f"{layer}.mlp.fc2", 1024, 4096)
    return keys


def movq():
    keys = autoencoder((128, 256, 256, 512), 4, True, spatial_norm, "spatial_norm")
    return keys | {"quantize.embedding.weight": (16384, 4)}


SPELLED = {
    ("stable-unclip", "unet"): stable_unclip_unet,
    ("stable-unclip", "vae"): lambda: autoencoder((128, 256, 512, 512), 8, False, both, "group_norm"),
    ("stable-unclip", "text_encoder"): text_encoder,
    ("stable-unclip", "image_normalizer"): lambda: {"mean": (1, 1024), "std": (1, 1024)},
    ("kandinsky", "unet"): kandinsky_unet,
    ("kandinsky", "movq"): movq,
}


@pytest.mark.parametrize("key", SPELLED, ids="/".join)
def test_names_and_shapes_are_those_spelled_out_here(built, key):
    found, spelled = {k.removeprefix("text_model."): v for k, v in shapes(built[key]).items()}, SPELLED[key]()
    assert sorted(set(spelled) - set(found)) == []  # missing
    assert sorted(set(found) - set(spelled)) == []  # left over
    assert found == spelled


def test_published_names_of_2022_still_load(tmp_path):
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    vae.save_config(tmp_path / "vae")
    state = {old_attention(k): v.clone() for k, v in vae.state_dict().items()}
    assert any(".query." in name for name in state)
    save_file(state, tmp_path / "vae" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    again, info = AutoencoderKL.from_pretrained(tmp_path / "vae", output_loading_info=True)
    assert not any(info.values())
    assert all(torch.equal(a, b) for a, b in zip(vae.state_dict().values(), again.state_dict().values(), strict=True))

    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = CLIPTextModel(CLIPTextConfig(vocab_size=49408, **sizes))
    text.config.save_pretrained(tmp_path / "text")
    state = {f"text_model.{k.removeprefix('text_model.')}": v.clone() for k, v in text.state_dict().items()}
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(state, tmp_path / "text" / "model.safetensors", {"format": "pt"})
    again, info = CLIPTextModel.from_pretrained(tmp_path / "text", output_loading_info=True)
    assert not any(info.values())
    assert all(torch.equal(a, b) for a, b in zip(text.state_dict().values(), again.state_dict().values(), strict=True))


def component(name, part):
    entry = architecture(name)["components"][part]
    return component_class(entry).from_config(entry["config"])


def aligner(name):
    return Aligner(architecture(name)["embed_dim"], ["image", "text", "audio"])


def test_stable_unclip_takes_the_full_size_parts(built):
    parts = {part: built["stable-unclip", part] for part in ("unet", "vae", "text_encoder")}
    pipeline = UniAlignStableUnCLIPPipeline(
        aligner=aligner("stable-unclip"),
        embed_scale=EmbedScale(1024, 20.0),
        image_normalizer=component("stable-unclip", "image_normalizer"),
        image_noising_scheduler=component("stable-unclip", "image_noising_scheduler"),
        scheduler=component("stable-unclip", "scheduler"),
        tokenizer=words(),
        **parts,
    )
    assert pipeline.unet.config.sample_size * pipeline.vae_scale_factor == architecture("stable-unclip")["picture_side"] == 768
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.text_encoder.config.hidden_size == pipeline.unet.config.cross_attention_dim
    wanted = pipeline.embed_scale(torch.nn.functional.normalize(torch.randn(1, 1024), dim=1))
    labels = pipeline.noise_image_embeddings(wanted, 0, generator=torch.Generator().manual_seed(0))
    assert labels.shape == (1, pipeline.unet.config.projection_class_embeddings_input_dim)
    latents, words_seen = torch.empty(1, 4, 96, 96, device="meta"), torch.empty(1, 77, 1024, device="meta")
    out = pipeline.unet(latents, torch.empty(1, device="meta"), words_seen, class_labels=labels.to("meta")).sample
    assert out.shape == latents.shape
    assert pipeline.vae.decode(out).sample.shape == (1, 3, 768, 768)
    with pytest.raises(RuntimeError):  # the embeddings of ViT-bigG do not fit
        pipeline.unet(latents, torch.empty(1, device="meta"), words_seen, class_labels=torch.empty(1, 2560, device="meta"))


def test_kandinsky_takes_the_full_size_parts(built):
    pipeline = UniAlignKandinskyPipeline(
        aligner=aligner("kandinsky"),
        unet=built["kandinsky", "unet"],
        scheduler=component("kandinsky", "scheduler"),
        movq=built["kandinsky", "movq"],
        embed_scale=EmbedScale(1280, 20.0),
    )
    assert pipeline.sample_side == architecture("kandinsky")["picture_side"] == 512
    wanted = pipeline.embed_scale(torch.nn.functional.normalize(torch.randn(2, 1280), dim=1)).to("meta")
    assert pipeline.embed_scale.negative_image_embeds.shape == (1, pipeline.unet.config.encoder_hid_dim)
    latents = torch.empty(2, 4, 64, 64, device="meta")
    steps = torch.empty(2, device="meta")
    out = pipeline.unet(latents, steps, None, added_cond_kwargs={"image_embeds": wanted}).sample
    assert out.shape == (2, 8, 64, 64)  # noise and its variance, which the pipeline leaves out
    assert pipeline.movq.decode(out[:, :4], force_not_quantize=True).sample.shape == (2, 3, 512, 512)
    with pytest.raises(RuntimeError):
        pipeline.unet(latents, steps, None, added_cond_kwargs={"image_embeds": wanted[:, :1024]})


PARTS = {"aligner": 3, "text_encoder": 5, "unet": 11, "vae": 7, "image_normalizer": 2}
ORDER = ("aligner", "text_encoder", "unet", "vae")


def test_peak_is_the_sum_or_the_largest_of_those_that_move():
    assert peak_bytes(PARTS, 2, ORDER, offload=False) == 2 * (3 + 5 + 11 + 7 + 2)
    assert peak_bytes(PARTS, 2, ORDER, offload=True) == 2 * (2 + 11)
    assert peak_bytes(PARTS, 4, ORDER[:2], offload=True) == 4 * (11 + 7 + 2 + 5)
    assert peak_bytes(PARTS, 2, (), offload=True) == peak_bytes(PARTS, 2, (), offload=False)
    assert peak_bytes({}, 2, (), offload=True) == 0
    with pytest.raises(InputError, match="movq"):
        peak_bytes(PARTS, 2, ("movq",), offload=True)


def test_parameters_are_counted_without_memory():
    sizes = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    layer = 4 * (8 * 8 + 8) + 2 * 2 * 8 + (8 * 16 + 16) + (16 * 8 + 8)
    positions = {"max_position_embeddings": 5, "bos_token_id": 0, "eos_token_id": 1}
    assert count(on_meta(CLIPTextModel, sizes | positions)) == 11 * 8 + 5 * 8 + 3 * layer + 2 * 8


@pytest.mark.parametrize("name", [*NAMES, "sdxl-bigg"])
def test_the_documents_table_is_the_scripts(name):
    document = (SCRIPT.parent.parent / "docs" / "memory.md").read_text("utf-8")
    assert table(name) in document


def test_an_unknown_checkpoint_is_one_line():
    with pytest.raises(InputError, match="no published sizes of 'sdxl'"):
        table("sdxl")


@pytest.mark.parametrize("name", NAMES)
def test_every_fact_has_a_source(name):
    for entry in architecture(name)["components"].values():
        assert entry["source"]
        assert isinstance(entry["unchecked"], list)
