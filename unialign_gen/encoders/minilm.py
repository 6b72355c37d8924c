"""all-MiniLM-L6-v2 (Wang et al. 2020; Reimers & Gurevych 2019; Apache-2.0): a BertModel, mean over the mask, 384-d."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..media.text import reworded
from ..notes import tell
from .bert import BASE, Bert

LENGTH = 128
SIZES = BASE | {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}


class MiniLM(Bert):
    """Sentence features (B, 384) of texts, by the model's own tokenizer file; at most 128 tokens are read.

    Args:
        words: what words before a noun are read as, where a head was taught others: "dark blue" for "navy".
    """

    def __init__(self, tokenizer: str | Path, words: Mapping[str, str] | None = None):
        super().__init__(Path(tokenizer).read_text("utf-8"), SIZES, LENGTH)
        self.words = dict(words or {})
        self.config = {"encoder": "minilm", **({"words": self.words} if words else {})}

    def prepare(self, texts: list[str]) -> Tensor:
        return super().prepare([reworded(text, self.words)[0] for text in texts])

    def tell_unread(self, text: str) -> None:
        read, others = reworded(text, self.words)
        for said, meant in others.items():
            tell("read as", said=repr(said), meant=repr(meant))
        super().tell_unread(read)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, 2, length) -> (B, 384)."""
        ids, mask = tokens.unbind(1)
        hidden = self.net(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, length, 384)
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1)


def build(folder: Path, config: dict[str, Any]) -> MiniLM:
    return MiniLM(folder / "tokenizer.json", config.get("words"))
