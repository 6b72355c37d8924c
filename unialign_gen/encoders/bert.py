"""BERT base uncased (Devlin et al. 2018, Apache-2.0): the [CLS] token, as VAST, GRAM and PMRL (MIT) take it for text.

Their BERT doubles as a decoder, but masks only the padding when it reads a caption: it is read as an encoder here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..media.text import tell_unread
from .base import Encoder
from .published import read_state, source_folder, source_weights

LENGTH = 40  # of captions in the published configurations; captions of several modalities had 70
BASE: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}
SPECIAL = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}


class Bert(Encoder):
    """Features (B, 768) of texts: the last layer at [CLS].

    Args:
        tokenizer_json: the tokenizer, in the format of the tokenizers library.
        sizes: the architecture in the words of transformers' `BertConfig`; `BASE` is the published one.
        length: most tokens of a text, [CLS] and [SEP] included.
        origin: entries kept in the configuration that say where the weights came from.

    Raises:
        InputError: a length beyond what the model reads.
    """

    def __init__(
        self,
        tokenizer_json: str,
        sizes: Mapping[str, Any] = BASE,
        length: int = LENGTH,
        origin: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        from tokenizers import Tokenizer
        from transformers import BertConfig
        from transformers.models.bert.modeling_bert import BertModel

        self.net = BertModel(BertConfig(**sizes), add_pooling_layer=False)
        if length > sizes["max_position_embeddings"]:
            raise InputError(f"length {length} is more than the {sizes['max_position_embeddings']} tokens that this BERT reads")
        self.dim = int(sizes["hidden_size"])
        self.config = {**(origin or {}), "encoder": "bert", "architecture": dict(sizes), "length": length}
        self.length, self.tokenizer_json = length, tokenizer_json
        self.tokenizer = Tokenizer.from_str(tokenizer_json)
        self.tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
        self.tokenizer.enable_truncation(length)

    def extra_files(self) -> dict[str, str]:
        return {"tokenizer.json": self.tokenizer_json}

    def prepare(self, texts: list[str]) -> Tensor:
        """Texts -> (B, 2, length) token ids and mask, padded to the longest, cut at the encoder's length."""
        rows = self.tokenizer.encode_batch([t.strip() for t in texts])
        return torch.tensor([[r.ids, r.attention_mask] for r in rows])

    def tell_unread(self, text: str) -> None:
        tell_unread(self.tokenizer, text, self.length)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, 2, length) -> (B, dim), not normalised."""
        ids, mask = tokens.unbind(1)
        return self.net(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]


def is_encoder(name: str) -> bool:
    """Whether a published tensor of this name is one that reading a text needs."""
    name = name.removeprefix("bert.")
    unused = "crossattention" in name or name.endswith(("position_ids", "token_type_ids"))
    return name.startswith(("embeddings.", "encoder.")) and not unused


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's weights under the encoder's names; the oldest files call a norm's weight and bias gamma and beta."""
    renamed = {}
    for name, value in state.items():
        if is_encoder(name):
            key = name.removeprefix("bert.").replace("LayerNorm.gamma", "LayerNorm.weight")
            renamed["net." + key.replace("LayerNorm.beta", "LayerNorm.bias")] = value
    return renamed


def find_tokenizer(folder: Path) -> str:
    """BERT's tokenizer as JSON, from `tokenizer.json` or from `vocab.txt`, lower-casing.

    Raises:
        InputError: the folder has neither.
    """
    if (folder / "tokenizer.json").is_file():
        return (folder / "tokenizer.json").read_text("utf-8")
    if not (folder / "vocab.txt").is_file():
        raise InputError(f"no tokenizer in {folder}: put BERT's tokenizer.json or vocab.txt there")
    from transformers import BertTokenizer

    words = set((folder / "vocab.txt").read_text("utf-8").splitlines())
    if missing := sorted(SPECIAL - words):
        raise InputError(f"{folder / 'vocab.txt'} is no vocabulary of BERT: it has no {', '.join(missing)}")
    return BertTokenizer(vocab=str(folder / "vocab.txt")).backend_tokenizer.to_str()


def build(folder: Path, config: dict[str, Any]) -> Bert:
    place = folder
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")) and "source" in config:
        source = Path(config["source"]).expanduser()
        place = source.parent if source.is_file() else source_folder(config, ["tokenizer.json", "vocab.txt"])
    return Bert(find_tokenizer(place), config.get("architecture", BASE), config.get("length", LENGTH), config)


def weights(folder: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """The encoder's of the source."""
    return rename(read_state(source_weights(config), is_encoder))
