"""The mixing as blocks of a diffusers ModularPipeline: into any pipeline that takes image embeddings, also those of others.

    blocks = SequentialPipelineBlocks.from_blocks_dict({"mix": UniAlignMixStep, "core": StableDiffusionXLCoreDenoiseStep})

`UniAlignEmbedStep` takes prompts and needs an aligner, `UniAlignMixStep` takes ready embeddings and needs no model. Both put
into the state what a decoder takes (`image_embeds`) and what an IP-Adapter takes, in both forms that diffusers 0.42 has:

- `ip_adapter_image_embeds`, the argument of that name of its pipelines: a list with one tensor for the one adapter, zeros
  above the embedding under guidance, which the pipeline halves again. None for several prompts: those pipelines repeat the
  argument by the number of their prompts, so that each would attend to the embeddings of all, without an error
  (huggingface/diffusers#9813). One call a prompt instead, with any number of pictures.
- `ip_adapter_embeds` and `negative_ip_adapter_embeds`, the two halves each in a list, one row a prompt, as its modular
  blocks want them. Those repeat rows for several pictures in another order than the text: one picture of each of several
  prompts, or several of one.

Scale: IP-Adapter (ViT-H, and bigG for SDXL), unCLIP and Kandinsky decoders were trained on raw projections of a CLIP encoder,
whose norm is far from 1: give those raw scale. Adapters for faces were trained on unit vectors of a face encoder. Length
matters for all of them, as their first layer has a bias. Adapters that attend to an encoder's tokens ("plus", "full face")
take no pooled embedding, hence nothing from here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from diffusers.modular_pipelines import (
    BlockState,
    ComponentSpec,
    ConfigSpec,
    InputParam,
    ModularPipeline,
    ModularPipelineBlocks,
    OutputParam,
    PipelineState,
)
from torch import Tensor

from unialign_gen.aligner import Aligner
from unialign_gen.concepts import checkpoint_folder
from unialign_gen.errors import InputError
from unialign_gen.mixing import METHODS, mix, to_decoder
from unialign_gen.request import Prompt
from unialign_gen.request.arguments import ask, prompts_of

from .embed_scale import EmbedScale
from .inputs import inputs_of
from .named import tell_not_understood, tell_one_point, understanding_in
from .prior import EmbeddingPrior
from .prompts import as_vector, checked_vector, encode_prompts, mixed_prompts, moved_prompts

PROMPTS = {
    "text": "a string",
    "audio": "a sound file or a `media.Sound`",
    "video": "a video file",
    "image": "a picture file or a PIL picture",
    "embeds": "a vector (d,) of any norm",
}
MANY = "a list is a batch, a tuple is a mix inside one prompt"


SHARED_INPUTS = [  # what both steps take beside prompts
    InputParam("mix", type_hint=str, default="lerp", description=f"How prompts are mixed: {', '.join(METHODS)}."),
    InputParam(
        "do_classifier_free_guidance",
        type_hint=bool,
        default=True,
        description="Whether the IP-Adapter's embeddings come with unconditional ones; modular blocks need no change.",
    ),
    InputParam.template("dtype", description="The dtype of the outputs."),
]
SHARED_OUTPUTS = [  # an IP-Adapter's embeddings, in both of diffusers' forms
    OutputParam(
        "ip_adapter_image_embeds",
        type_hint=list[Tensor],
        description="One tensor (2, 1, d), zeros first, or (1, 1, d) without guidance; None for several prompts.",
    ),
    OutputParam("ip_adapter_embeds", type_hint=list[Tensor], description="One tensor (B, 1, d)."),
    OutputParam(
        "negative_ip_adapter_embeds",
        type_hint=list[Tensor],
        description="One tensor (B, 1, d) of zeros; None without guidance.",
    ),
]


def set_ip_adapter(block: BlockState, rows: Tensor) -> None:
    """The `SHARED_OUTPUTS` from one row a prompt (B, d)."""
    given = rows[:, None]
    # what diffusers takes for no picture: zeros in place of the embedding, not the embedding of an empty picture
    nothing = torch.zeros_like(given)
    guided = bool(block.do_classifier_free_guidance)
    block.ip_adapter_image_embeds = [torch.cat([nothing, given]) if guided else given] if len(rows) == 1 else None
    block.ip_adapter_embeds = [given]
    block.negative_ip_adapter_embeds = [nothing] if guided else None


class UniAlignEmbedStep(ModularPipelineBlocks):
    """Prompts of any modality to image embeddings at decoder scale.

    Components: `aligner`, `embed_scale`, and `prior` where the checkpoint has one. From a checkpoint of this package:

        pipeline = UniAlignEmbedStep().init_pipeline(folder)
        pipeline.load_components()
        pipeline(text="a barking dog", output="image_embeds")

    or with `update_components`, as below; without a prior prompts stay as they are encoded. What `save_pretrained` wrote opens
    in the same way (`ModularPipeline.from_pretrained` finds diffusers' own blocks only); after the folder was moved, with
    `load_components(pretrained_model_name_or_path=folder)`.

    Inputs are those of a call of `UniAlignKandinskyPipeline` that concern the prompt; `print(UniAlignEmbedStep().doc)` lists
    them and the outputs. In one sequence with steps that start from a picture, `image` is theirs, too: give those an embedding
    of it. What is for an adapter is for one of the aligner's own space, and not repeated for several pictures.

    Raises:
        InputError: a prompt, weight or count that cannot be used, or components that are missing or do not fit.

    Example:
        >>> import unialign_gen
        >>> starter = unialign_gen.load("starter")
        >>> pipeline = UniAlignEmbedStep().init_pipeline()
        >>> pipeline.update_components(aligner=starter.aligner, embed_scale=starter.embed_scale, prior=starter.prior)
        >>> pipeline(text="a barking dog", output="image_embeds").shape
        torch.Size([1, 256])
    """

    description = "Prompts of any modality, mixed, to image embeddings at the scale of a decoder"
    expected_components: ClassVar[list[ComponentSpec]] = [
        ComponentSpec("aligner", Aligner, description="prompts to unit embeddings"),
        ComponentSpec("embed_scale", EmbedScale, description="the decoder's scale and unconditional embedding"),
        ComponentSpec("prior", EmbeddingPrior, description="what prompts are moved towards; may be missing"),
    ]
    inputs: ClassVar[list[InputParam]] = [
        *(InputParam(kind, description=f"The prompt: {what}; {MANY}.") for kind, what in PROMPTS.items()),
        InputParam("weights", type_hint=Mapping, description="Modality to weight, or to weights for a tuple."),
        InputParam("prior_strength", type_hint=float, description="0 to 1; the prior's own by default."),
        InputParam.template("num_images_per_prompt"),
        *SHARED_INPUTS,
    ]
    intermediate_outputs: ClassVar[list[OutputParam]] = [
        OutputParam("image_embeds", type_hint=Tensor, description="Image embeddings (B * n, d) at decoder scale."),
        OutputParam("negative_image_embeds", type_hint=Tensor, description="Unconditional embeddings (B * n, d)."),
        *SHARED_OUTPUTS,
    ]

    @torch.no_grad()
    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        block = self.get_block_state(state)
        aligner, scale = checked_components(components)
        count = block.num_images_per_prompt
        if not isinstance(count, int) or count < 1:
            raise InputError(f"num_images_per_prompt must be a whole number of at least 1, got {count!r}")
        if block.weights is not None and not isinstance(block.weights, Mapping):
            raise InputError(f"weights must name the modality, as in {{'text': 0.5}}, got {block.weights!r}")
        if block.mix == "beside":
            raise InputError("these blocks give one point: choose another mix than beside")
        request = ask(
            **{kind: block[kind] for kind in PROMPTS}, weights=block.weights, mix=block.mix, prior_strength=block.prior_strength
        )
        if not request.prompts:
            raise InputError(f"nothing to draw: give at least one of {', '.join(PROMPTS)}")
        ready, prior = replace(request, prompts=encode_prompts(aligner, request.prompts)), components.prior
        known, moving = understanding_in(checkpoint_folder(components)), None if request.prior_strength == 0 else prior
        found = inputs_of(ready, known if moving else None, aligner, moving)
        tell_one_point(request.prompts, found)
        tell_not_understood(found, known, aligner, moving)
        drawn = [inputs for inputs, _, _ in found]
        unit = mixed_prompts(drawn, moved_prompts(drawn, ready, prior), ready)
        rows = scale(unit).to(components._execution_device, block.dtype)
        block.image_embeds = rows.repeat_interleave(count, 0)
        block.negative_image_embeds = scale.negative_image_embeds.to(rows).expand_as(block.image_embeds)
        set_ip_adapter(block, rows)
        self.set_block_state(state, block)
        return components, state


def checked_components(components: ModularPipeline) -> tuple[Aligner, EmbedScale]:
    """The aligner and the scale of a pipeline, which diffusers leaves at None until they are loaded or given."""
    aligner, scale = components.aligner, components.embed_scale
    for name, component in (("aligner", aligner), ("embed_scale", scale)):
        if component is None:
            raise InputError(f"the pipeline has no {name} yet: use load_components() or update_components({name}=...)")
    if aligner.embed_dim != scale.config["embed_dim"]:
        raise InputError(f"the aligner gives {aligner.embed_dim} values, embed_scale takes {scale.config['embed_dim']}")
    return aligner, scale


class UniAlignMixStep(ModularPipelineBlocks):
    """Ready image embeddings, mixed, for any consumer of their space; no aligner and no other component.

    `print(UniAlignMixStep().doc)` lists inputs and outputs, of which there is one row a prompt, on the pipeline's device.

    Config `embed_norm`, kept by `save_pretrained`, set by `update_components(embed_norm=...)`: the norm of the outputs. Give
    the consumer's own where the inputs are unit vectors (see the module), 1 for one that takes unit vectors. None keeps the
    scale: the mean norm of the mixed vectors, weighted as they are, so that a vector alone passes unchanged.

    Raises:
        InputError: no vectors, vectors of different lengths, not finite or zero; a bad weight, method or norm.

    Example:
        >>> pipeline = UniAlignMixStep().init_pipeline()
        >>> pipeline(embeds=(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])), output="image_embeds")
        tensor([[0.7071, 0.7071]])
    """

    description = "Mixes ready image embeddings; in front of any decoder or IP-Adapter of their space"
    expected_configs: ClassVar[list[ConfigSpec]] = [
        ConfigSpec("embed_norm", None, description="norm of the outputs; that of the inputs if None")
    ]
    inputs: ClassVar[list[InputParam]] = [
        InputParam("embeds", description=f"Image embeddings: {PROMPTS['embeds']}; {MANY}, a tensor (B, d) a batch."),
        InputParam("weights", description="One weight for each member of a tuple, or one for all; equal by default."),
        *SHARED_INPUTS,
    ]
    intermediate_outputs: ClassVar[list[OutputParam]] = [
        OutputParam("image_embeds", type_hint=Tensor, description="Mixed embeddings (B, d)."),
        *SHARED_OUTPUTS,
    ]

    @torch.no_grad()
    def __call__(self, components: ModularPipeline, state: PipelineState) -> tuple[ModularPipeline, PipelineState]:
        block = self.get_block_state(state)
        if block.embeds is None:
            raise InputError("nothing to mix: give embeds")
        norm = components.config["embed_norm"]
        if norm is not None and not (isinstance(norm, int | float) and math.isfinite(norm)):
            raise InputError(f"embed_norm must be a finite number, got {norm!r}")
        weights = block.weights if isinstance(block.weights, Mapping) or block.weights is None else {"embeds": block.weights}
        prompts = prompts_of({"embeds": block.embeds}, weights)
        width = as_vector(prompts[0][0].value).numel()
        rows = torch.stack([mixed(row, width, block.mix, norm, components._execution_device) for row in prompts])
        block.image_embeds = rows.to(block.dtype)
        set_ip_adapter(block, block.image_embeds)
        self.set_block_state(state, block)
        return components, state


def mixed(prompts: Sequence[Prompt], width: int, method: Any, norm: float | None, device: torch.device) -> Tensor:
    """The mix (width,) of a prompt's embeddings at the given norm, or at their own mean norm."""
    weights = [p.weight for p in prompts]
    given = [as_vector(p.value).to(device) for p in prompts]
    unit = mix([checked_vector(v, width) for v in given], weights, method)
    if norm is None:
        lengths = [abs(w) * float(v.float().norm()) for w, v in zip(weights, given, strict=True)]
        norm = sum(lengths) / sum(map(abs, weights))
    return to_decoder(unit, norm)
