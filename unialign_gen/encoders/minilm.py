"""all-MiniLM-L6-v2 (Wang et al. 2020; Reimers & Gurevych 2019; Apache-2.0): a BertModel, mean over the mask, 384-d."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..text import tell_unread
from .base import Encoder

LENGTH = 128


class MiniLM(Encoder):
    """Sentence features (B, 384) of texts, through transformers' `BertModel` and the model's own tokenizer file."""

    dim = 384

    def __init__(self, tokenizer: str | Path):
        super().__init__()
        from tokenizers import Tokenizer
        from transformers import BertConfig
        from transformers.models.bert.modeling_bert import BertModel

        self.net = BertModel(
            BertConfig(
                vocab_size=30522,
                hidden_size=384,
                num_hidden_layers=6,
                num_attention_heads=12,
                intermediate_size=1536,
                max_position_embeddings=512,
            ),
            add_pooling_layer=False,
        )
        self.config = {"encoder": "minilm"}
        self.tokenizer_json = Path(tokenizer).read_text("utf-8")
        self.tokenizer = Tokenizer.from_str(self.tokenizer_json)
        self.tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
        self.tokenizer.enable_truncation(LENGTH)

    def extra_files(self) -> dict[str, str]:
        return {"tokenizer.json": self.tokenizer_json}

    def prepare(self, texts: list[str]) -> Tensor:
        """Texts -> (B, 2, length) token ids and mask, padded to the longest, cut at 128 tokens."""
        rows = self.tokenizer.encode_batch([t.strip() for t in texts])
        return torch.tensor([[r.ids, r.attention_mask] for r in rows])

    def tell_unread(self, text: str) -> None:
        tell_unread(self.tokenizer, text, LENGTH)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, 2, length) -> (B, 384)."""
        ids, mask = tokens.unbind(1)
        hidden = self.net(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1)


def build(folder: Path, config: dict[str, Any]) -> MiniLM:
    return MiniLM(folder / "tokenizer.json")
