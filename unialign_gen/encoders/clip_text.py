"""CLIP's text side (Radford et al. 2021; LAION's ViT-H-14 and ViT-bigG-14, MIT): text in the space of CLIP's pictures.

The embedding is the raw one, not normalised. Tokens are those of CLIP's lower-cased byte-level BPE (OpenAI, MIT).
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .base import Encoder
from .clip_layouts import architecture, published_folder, published_state
from .published import read_json
from .registry import stored_weights

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
QUOTES = str.maketrans(dict.fromkeys("\u02bc\u2018\u2019\u201a\u201b", "'") | dict.fromkeys("\u201c\u201d\u201e\u201f", '"'))


class ClipText(Encoder):
    """Raw text embeddings (B, dim) of texts; dim is 1024 for ViT-H-14 and 1280 for ViT-bigG-14.

    Args:
        sizes: the architecture in the words of transformers' `CLIPTextConfig`.
        tokenizer_json: the tokenizer, in the format of the tokenizers library.
        origin: entries kept in the configuration that say where the weights came from.
    """

    def __init__(self, sizes: Mapping[str, Any], tokenizer_json: str, origin: Mapping[str, Any] | None = None):
        super().__init__()
        from tokenizers import Tokenizer
        from transformers import CLIPTextConfig, CLIPTextModelWithProjection

        self.net = CLIPTextModelWithProjection(CLIPTextConfig(**sizes))
        self.length = int(sizes["max_position_embeddings"])
        self.dim = int(sizes["projection_dim"])
        self.config = {**(origin or {}), "encoder": "clip_text", "architecture": dict(sizes)}
        self.tokenizer_json = tokenizer_json
        self.tokenizer = Tokenizer.from_str(tokenizer_json)
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.length)
        self.end = self.tokenizer.encode("").ids[-1]

    def compute_buffers(self) -> None:
        """Positions, which transformers does not save."""
        self.net.text_model.embeddings.position_ids = torch.arange(self.length).unsqueeze(0)

    def extra_files(self) -> dict[str, str]:
        return {"tokenizer.json": self.tokenizer_json}

    def prepare(self, texts: list[str]) -> Tensor:
        """Texts -> (B, 77) token ids with 0 behind the end of the text; a longer text is cut and still ends in the end."""
        rows = self.tokenizer.encode_batch([clean(t) for t in texts])
        tokens = torch.zeros(len(texts), self.length, dtype=torch.long)
        for row, encoded in zip(tokens, rows, strict=True):
            row[: len(encoded.ids)] = torch.tensor(encoded.ids)
        return tokens

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, 77) -> (B, dim), not normalised.

        The text's feature is that of its first end token. transformers goes by the configuration's `eos_token_id`, which
        old configurations give wrongly, open_clip by the largest id; with CLIP's vocabulary this is the same token.
        """
        at = (tokens == self.end).int().argmax(1)
        # a token sees only those before it: what is behind every end need not be computed
        hidden = self.net.text_model(input_ids=tokens[:, : int(at.max()) + 1]).last_hidden_state
        return self.net.text_projection(hidden[torch.arange(len(tokens), device=tokens.device), at])


def clean(text: str) -> str:
    """Text as CLIP's was before it was split: entities resolved, quotes straightened, wide forms and ligatures undone.

    Repairing wrongly decoded text, which the training code did as well, is left out.
    """
    text = html.unescape(html.unescape(text)).translate(QUOTES)
    wide = "".join(unicodedata.normalize("NFKC", c) if is_wide(c) else c for c in text)
    return " ".join(unicodedata.normalize("NFC", wide).split())


def is_wide(character: str) -> bool:
    """Whether it is a Latin ligature, or a full-width or half-width form."""
    return "\ufb00" <= character <= "\ufb06" or "\uff01" <= character <= "\uffef"


def find_tokenizer(folder: Path) -> str:
    """A CLIP tokenizer as JSON: from `tokenizer.json`, from `vocab.json` and `merges.txt`, or open_clip's own.

    Args:
        folder: where a model was published; its neighbour `tokenizer` is looked into as well.

    Raises:
        InputError: there is none, and open_clip is not installed.
    """
    for place in (folder, folder.parent / "tokenizer"):
        if (place / "tokenizer.json").is_file():
            return (place / "tokenizer.json").read_text("utf-8")
        if (place / "vocab.json").is_file() and (place / "merges.txt").is_file():
            lines = (place / "merges.txt").read_text("utf-8").splitlines()
            pairs = [line.split() for line in lines if line.strip() and not line.startswith("#version")]
            return make_tokenizer(read_json(place / "vocab.json"), [(a, b) for a, b in pairs])
    try:
        return open_clip_tokenizer()
    except ImportError as error:
        raise InputError(f"no tokenizer in {folder}: put tokenizer.json there or install open_clip_torch") from error


@cache
def open_clip_tokenizer() -> str:
    """The tokenizer that open_clip brings along, as JSON."""
    from open_clip.tokenizer import SimpleTokenizer

    simple = SimpleTokenizer()
    names = {"<start_of_text>": START, "<end_of_text>": END}  # open_clip's own names for the same two tokens
    return make_tokenizer({names.get(k, k): v for k, v in simple.encoder.items()}, list(simple.bpe_ranks))


def make_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> str:
    """CLIP's tokenizer as JSON, from token ids and merges in their order.

    Raises:
        InputError: it is the vocabulary of something else.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    if not {START, END} <= set(vocabulary):
        raise InputError(f"no vocabulary of CLIP: it lacks {START} or {END}; get the model's own tokenizer files")
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (START, END)])
    start, end = ((token, vocabulary[token]) for token in (START, END))
    tokenizer.post_processor = processors.RobertaProcessing(end, start, trim_offsets=False, add_prefix_space=False)
    return tokenizer.to_str()


def build(folder: Path, config: dict[str, Any]) -> ClipText:
    if (folder / "tokenizer.json").is_file() or "source" not in config:
        place = folder
    elif Path(config["source"]).expanduser().is_file():
        place = Path(config["source"]).expanduser().parent
    else:
        place = published_folder(config)[0]
    return ClipText(architecture(config, "text"), find_tokenizer(place), config)


def weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """A saved encoder's weights, otherwise the source's, of its text side only."""
    if (folder / "model.safetensors").is_file():
        return stored_weights(folder, config)
    return {f"net.{name}": value for name, value in published_state(config, "text").items()}
