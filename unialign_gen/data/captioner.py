"""A captioning model of transformers: any of its image-text-to-text classes, from a folder or a hub repository.

Three ways of asking, told apart by the model itself: one with a chat template sees all frames in one message; GIT for videos
takes the frames as one input; any other captions each frame by itself, and the prompt is what its caption starts with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import as_input_error

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

ASK = "Describe what happens in one sentence."


class Captioner:
    """Captions of frames.

    Args:
        name: a local folder, or a hub repository, `NAME@REVISION` for one of its revisions.
        prompt: what a chat model is asked, or a caption begins with.
        tokens: that a caption has at most.
        dtype: of the weights, such as `float16`.

    Raises:
        InputError: there is no such model, or it does not caption pictures.
    """

    def __init__(self, name: str, prompt: str | None = None, tokens: int = 40, device: str = "cpu", dtype: str = "float32"):
        import torch
        from transformers import AutoConfig, AutoModelForImageTextToText

        repository, _, revision = name.partition("@")
        where = {"revision": revision} if revision else {}
        self.dtype, self.device, self.tokens = getattr(torch, dtype), device, tokens
        said = f"--model {name}: no captioning model of transformers can be loaded from it ({{short}})"
        with as_input_error(said, OSError, ValueError, KeyError, ImportError):
            config = AutoConfig.from_pretrained(repository, **where)
            self.model = AutoModelForImageTextToText.from_pretrained(repository, dtype=self.dtype, **where).to(device).eval()
            self.see, self.words = processors(repository, where, config.model_type)
        self.chat = getattr(self.see, "chat_template", None) is not None
        self.whole = bool(getattr(config, "num_image_with_embedding", None))
        self.prompt = prompt or (ASK if self.chat else "")

    def __call__(self, clips: Sequence[Sequence[Image.Image]]) -> list[list[str]]:
        """Frames of clips -> for each clip its captions, different ones only, at least one."""
        if self.chat:
            found = [[text] for text in self.answers(clips)]
        elif self.whole:
            found = [self.texts({"pixel_values": self.pixels(clip).unsqueeze(0)}, 1) for clip in clips]
        else:
            frames = [frame for clip in clips for frame in clip]
            texts = iter(self.texts({"pixel_values": self.pixels(frames)}, len(frames)))
            found = [[next(texts) for _ in clip] for clip in clips]
        return [list(dict.fromkeys(t for t in texts if t)) for texts in found]

    def pixels(self, pictures: Sequence[Image.Image]) -> Tensor:
        """(N, 3, side, side)."""
        see = getattr(self.see, "image_processor", self.see)
        return see(images=list(pictures), return_tensors="pt")["pixel_values"]

    def texts(self, inputs: dict[str, Tensor], count: int) -> list[str]:
        """Generates from pixels and, if there is one, the prompt, with which a caption then begins."""
        if self.prompt:
            start = self.words([self.prompt] * count, return_tensors="pt", add_special_tokens=True)
            ids = start["input_ids"]
            end = getattr(self.words, "sep_token_id", None)
            if self.model.config.model_type != "blip" and end is not None and (ids[:, -1] == end).all():
                ids = ids[:, :-1]  # the caption goes on where the prompt ends; BLIP takes the end off itself
            inputs = {**inputs, "input_ids": ids}
        return self.decoded(self.generate(inputs))

    def answers(self, clips: Sequence[Sequence[Image.Image]]) -> list[str]:
        """A chat model's answer to the prompt with all frames of a clip before it."""
        self.words.padding_side = "left"
        if self.words.pad_token is None:
            self.words.pad_token = self.words.eos_token
        messages = [
            [{"role": "user", "content": [{"type": "image"} for _ in clip] + [{"type": "text", "text": self.prompt}]}]
            for clip in clips
        ]
        prompts = [self.see.apply_chat_template(m, add_generation_prompt=True) for m in messages]
        inputs = self.see(images=[list(c) for c in clips], text=prompts, padding=True, return_tensors="pt")
        made = self.generate(dict(inputs))
        longer = not self.model.config.is_encoder_decoder
        return self.decoded(made[:, inputs["input_ids"].shape[1] :] if longer else made)

    def generate(self, inputs: dict[str, Tensor]) -> Tensor:
        """Tokens (N, length), the most likely at each step, so that the same frames give the same caption."""
        import torch

        placed = {k: v.to(self.device, self.dtype if v.is_floating_point() else None) for k, v in inputs.items()}
        with torch.inference_mode():
            return self.model.generate(**placed, max_new_tokens=self.tokens, do_sample=False)

    def decoded(self, tokens: Tensor) -> list[str]:
        return [" ".join(t.split()) for t in self.words.batch_decode(tokens, skip_special_tokens=True)]


def processors(repository: str, where: dict[str, str], kind: str) -> tuple[Any, Any]:
    """(what prepares pictures, the tokenizer)."""
    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

    if kind == "vision-encoder-decoder":  # has no processor of its own
        return AutoImageProcessor.from_pretrained(repository, **where), AutoTokenizer.from_pretrained(repository, **where)
    both = AutoProcessor.from_pretrained(repository, **where)
    if not hasattr(both, "tokenizer") or not hasattr(both, "image_processor"):
        raise ValueError(f"{kind} does not take pictures and give text")
    return both, both.tokenizer
