"""Tiny random decoders in the layouts they are published in: folders of diffusers, single files, adapters, ControlNets."""

import json

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDPMScheduler,
    EulerDiscreteScheduler,
    KandinskyV22Pipeline,
    MotionAdapter,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    VQModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

CROSS = {"sd15": 32, "sdxl": 32 + 48}  # diffusers tells the two text encoders of a single file apart by their widths
VOCABULARY = ["<|startoftext|>", "<|endoftext|>", "a</w>", "photo</w>", "painting</w>", *"abcdefghijklmnopqrstuvwxyz"]


def tokenizer(folder):
    folder.mkdir(parents=True, exist_ok=True)
    merges = []
    words = {w: i for i, w in enumerate([*VOCABULARY, *(f"{c}</w>" for c in "bcdefghijklmnopqrstuvwxyz")])}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges))
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77, unk_token="<|endoftext|>")


def text_encoder(kind=CLIPTextModel, width=32):
    sizes = {"hidden_size": width, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return kind(CLIPTextConfig(**sizes, vocab_size=60, eos_token_id=1, bos_token_id=0, projection_dim=width)).eval()


def unet_config(kind):
    common = {"sample_size": 16, "layers_per_block": 1, "block_out_channels": (32, 64), "norm_num_groups": 16}
    common |= {"cross_attention_dim": CROSS[kind], "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}
    common |= {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "attention_head_dim": 4}
    if kind == "sdxl":
        common |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 8, "use_linear_projection": True}
        common |= {"projection_class_embeddings_input_dim": 6 * 8 + 48, "transformer_layers_per_block": (1, 2)}
    return common


def autoencoder():
    return AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        latent_channels=4,
    ).eval()


def base(kind, root):
    """A folder as the hub has it, in `root / kind`."""
    torch.manual_seed(3)
    words = tokenizer(root / "words")
    parts = {"vae": autoencoder(), "unet": UNet2DConditionModel(**unet_config(kind)).eval(), "tokenizer": words}
    if kind == "sd15":
        parts |= {"text_encoder": text_encoder(), "scheduler": PNDMScheduler(skip_prk_steps=True, steps_offset=1)}
        extra = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        StableDiffusionPipeline(**parts, **extra).save_pretrained(root / kind)
    else:
        parts |= {
            "text_encoder": text_encoder(),
            "text_encoder_2": text_encoder(CLIPTextModelWithProjection, 48),
            "tokenizer_2": words,
        }
        scheduler = EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
        StableDiffusionXLPipeline(**parts, scheduler=scheduler).save_pretrained(root / kind)
    return root / kind


def adapter(kind, width, file):
    """An IP-Adapter's file for a UNet of that kind, which takes embeddings of `width`."""
    torch.manual_seed(4)
    cross = CROSS[kind]
    state = {"image_proj.proj.weight": torch.randn(4 * cross, width) * 0.1, "image_proj.proj.bias": torch.randn(4 * cross)}
    state |= {"image_proj.norm.weight": torch.ones(cross), "image_proj.norm.bias": torch.zeros(cross)}
    unet = UNet2DConditionModel(**unet_config(kind))
    attended = [m for name, m in unet.named_modules() if name.endswith("attn2")]
    for i, module in enumerate(attended):
        for which in ("k", "v"):
            name = f"ip_adapter.{2 * i + 1}.to_{which}_ip.weight"
            state[name] = torch.randn(module.to_k.weight.shape[0], cross) * 0.3
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, file)
    return file


def controlnet(kind, folder):
    torch.manual_seed(5)
    unet = UNet2DConditionModel(**unet_config(kind))
    made = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16))
    for parameter in made.parameters():  # what begins at zero would hide that it is used
        torch.nn.init.normal_(parameter, std=0.05)
    made.save_pretrained(folder)
    return folder


def motion(folder):
    torch.manual_seed(6)
    sizes = {"block_out_channels": (32, 64), "motion_layers_per_block": 1, "motion_norm_num_groups": 4}
    made = MotionAdapter(**sizes, motion_num_attention_heads=4, motion_max_seq_length=32, use_motion_mid_block=True)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    made.save_pretrained(folder)
    return folder


def renamed(state, pairs):
    out = {}
    for name, value in state.items():
        for old, new in pairs:
            name = name.replace(old, new)
        out[name] = value
    return out


def unet_as_single_file(unet):
    layers, levels = unet.config.layers_per_block, len(unet.config.block_out_channels)
    places = [("mid_block.resnets.0.", "middle_block.0."), ("mid_block.attentions.0.", "middle_block.1.")]
    places += [("mid_block.resnets.1.", "middle_block.2.")]
    for i in range(levels):
        places += [(f"down_blocks.{i}.downsamplers.0.conv.", f"input_blocks.{(layers + 1) * (i + 1)}.0.op.")]
        attends = "CrossAttn" in unet.config.up_block_types[i]
        places += [(f"up_blocks.{i}.upsamplers.0.", f"output_blocks.{(layers + 1) * i + layers}.{1 + attends}.")]
        for j in range(layers + 1):
            for n, part in enumerate(("resnets", "attentions")):
                places += [(f"down_blocks.{i}.{part}.{j}.", f"input_blocks.{(layers + 1) * i + j + 1}.{n}.")]
                places += [(f"up_blocks.{i}.{part}.{j}.", f"output_blocks.{(layers + 1) * i + j}.{n}.")]
    places += [("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2")]
    places += [("add_embedding.linear_1", "label_emb.0.0"), ("add_embedding.linear_2", "label_emb.0.2")]
    places += [("conv_in.", "input_blocks.0.0."), ("conv_norm_out.", "out.0."), ("conv_out.", "out.2.")]
    inside = [(".time_emb_proj.", ".emb_layers.1."), (".conv_shortcut.", ".skip_connection.")]
    inside += [(".norm1.", ".in_layers.0."), (".conv1.", ".in_layers.2."), (".norm2.", ".out_layers.0.")]
    inside += [(".conv2.", ".out_layers.3.")]
    resnets = {k: v for k, v in unet.state_dict().items() if "transformer_blocks" not in k}  # their norms keep their names
    rest = {k: v for k, v in unet.state_dict().items() if k not in resnets}
    named = renamed(resnets, [*inside, *places]) | renamed(rest, places)
    return {f"model.diffusion_model.{k}": v for k, v in named.items()}


def autoencoder_as_single_file(vae):
    levels = len(vae.config.block_out_channels)
    places = [("mid_block.attentions.0.", "mid.attn_1."), ("conv_norm_out", "norm_out"), ("conv_shortcut", "nin_shortcut")]
    for i in range(levels):
        places += [(f"decoder.up_blocks.{i}.upsamplers.0.", f"decoder.up.{levels - 1 - i}.upsample.")]
        places += [(f"encoder.down_blocks.{i}.downsamplers.0.", f"encoder.down.{i}.downsample.")]
        for j in range(vae.config.layers_per_block + 1):
            places += [(f"encoder.down_blocks.{i}.resnets.{j}.", f"encoder.down.{i}.block.{j}.")]
            places += [(f"decoder.up_blocks.{i}.resnets.{j}.", f"decoder.up.{levels - 1 - i}.block.{j}.")]
        places += [(f"mid_block.resnets.{i}.", f"mid.block_{i + 1}.")]
    places += [("attn_1.group_norm", "attn_1.norm"), ("attn_1.to_out.0", "attn_1.proj_out")]
    places += [(f"attn_1.to_{c}", f"attn_1.{c}") for c in "qkv"]
    named = renamed(vae.state_dict(), places)
    square = {k: v[:, :, None, None] if ".attn_1." in k and v.ndim == 2 else v for k, v in named.items()}
    return {f"first_stage_model.{k}": v for k, v in square.items()}


def text_as_open_clip(encoder):
    state = {k.removeprefix("text_model."): v for k, v in encoder.state_dict().items()}
    out = {"text_projection": state.pop("text_projection.weight").T.contiguous()}
    out["positional_embedding"] = state.pop("embeddings.position_embedding.weight")
    out["token_embedding.weight"] = state.pop("embeddings.token_embedding.weight")
    for i in range(encoder.config.num_hidden_layers):
        for end in ("weight", "bias"):
            rows = [state.pop(f"encoder.layers.{i}.self_attn.{c}_proj.{end}") for c in "qkv"]
            out[f"transformer.resblocks.{i}.attn.in_proj_{end}"] = torch.cat(rows)
    places = [("encoder.layers.", "transformer.resblocks."), ("self_attn.", "attn."), ("layer_norm1", "ln_1")]
    places += [("layer_norm2", "ln_2"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"), ("final_layer_norm", "ln_final")]
    named = {k: v for k, v in renamed(state, places).items() if "position_ids" not in k}
    return {f"conditioner.embedders.1.model.{k}": v for k, v in (out | named).items()}


def single_file(kind, folder, file):
    """The models of a folder as one file, with the names that the original code gave them."""
    pipeline = {"sd15": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}[kind].from_pretrained(folder)
    words = {"sd15": "cond_stage_model.transformer.", "sdxl": "conditioner.embedders.0.transformer."}[kind]
    own = {k if k.startswith("text_model.") else f"text_model.{k}": v for k, v in pipeline.text_encoder.state_dict().items()}
    state = unet_as_single_file(pipeline.unet) | autoencoder_as_single_file(pipeline.vae)
    state |= {f"{words}{k}": v for k, v in own.items()}
    if kind == "sdxl":
        state |= text_as_open_clip(pipeline.text_encoder_2)
    save_file({k: v.clone().contiguous() for k, v in state.items()}, file)
    return file


def kandinsky(root):
    """Kandinsky's decoder in its published layout, and the UNets of the repositories that inpaint and follow a depth map."""
    torch.manual_seed(7)
    levels = (8, 8, 16, 16)  # eight times smaller latents: what a hint is reduced to
    movq = VQModel(
        block_out_channels=levels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        num_vq_embeddings=16,
        vq_embed_dim=4,
    )
    common = {"sample_size": 8, "block_out_channels": (32, 64), "layers_per_block": 1, "attention_head_dim": 8}
    common |= {"out_channels": 8, "cross_attention_dim": 16, "encoder_hid_dim": 1280, "encoder_hid_dim_type": "image_proj"}
    common |= {"down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"), "norm_num_groups": 16}
    common |= {"up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D")}
    common |= {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "resnet_time_scale_shift": "scale_shift"}
    scheduler = DDPMScheduler(beta_schedule="linear", beta_start=0.00085, beta_end=0.012, thresholding=False)
    for name, width, kind in (
        ("kandinsky", 4, "image"),
        ("kandinsky-inpaint", 9, "image"),
        ("kandinsky-depth", 8, "image_hint"),
    ):
        unet = UNet2DConditionModel(**common, in_channels=width, addition_embed_type=kind, addition_embed_type_num_heads=16)
        KandinskyV22Pipeline(unet=unet, scheduler=scheduler, movq=movq).save_pretrained(root / name)
    return root
