"""A saved aligner as a model of sentence-transformers: `export` writes a folder that `SentenceTransformer` opens.

    from sentence_transformers import SentenceTransformer
    model = SentenceTransformer(folder, trust_remote_code=True)          # the flag allows the class of this package
    model = SentenceTransformer(modules=[AlignerModule.load(folder)])    # the same without it
    model.encode(["a barking dog", "rain"])
    model.encode(["dog.wav", {"array": samples, "sampling_rate": 16000}])

Embeddings are those of `Aligner.embed`; the inputs of a call are of one modality. An input of several, `{"text": ..., "audio":
...}`, is their mix in equal parts on the sphere. Needs sentence-transformers, which comes with the extra `mteb`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modality import infer_modality
from sentence_transformers.base.modules import InputModule
from torch import Tensor

from .aligner import Aligner
from .errors import InputError
from .mixing import mix

__all__ = ["AlignerModule", "export"]

KNOWN = ("text", "image", "audio", "video")  # the modalities that sentence-transformers has names for


class AlignerModule(InputModule):
    """The one module of the exported model: an aligner.

    >>> import unialign_gen.loading
    >>> AlignerModule(unialign_gen.loading.open_aligner("starter")).get_embedding_dimension()
    256
    """

    def __init__(self, aligner: Aligner):
        super().__init__()
        self.aligner = aligner

    @property
    def modalities(self) -> list[Any]:
        """Those of the aligner, and every mix of them."""
        names = [m for m in KNOWN if m in self.aligner.modalities]
        return names + [mixed for n in range(2, len(names) + 1) for mixed in permutations(names, n)]

    def get_embedding_dimension(self) -> int:
        return self.aligner.embed_dim

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Any]:
        """The inputs as they are, each by modality: the aligner's encoders prepare them. A prompt is put before texts."""
        found = []
        for value in inputs:
            kind = infer_modality(value, supported_modalities=self.modalities)
            parts = dict(value) if isinstance(value, Mapping) and set(value) <= set(KNOWN) else {str(kind): value}
            if "text" in parts and prompt:
                parts["text"] = prompt + parts["text"]
            found.append(parts)
        return {"inputs": found}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Unit embeddings (B, embed_dim) under `sentence_embedding`."""
        rows: list[dict[str, Any]] = features["inputs"]
        found: list[list[Tensor]] = [[] for _ in rows]
        for kind in {k for row in rows for k in row}:
            at = [i for i, row in enumerate(rows) if kind in row]
            for i, z in zip(at, self.aligner.embed(kind, [rows[i][kind] for i in at]), strict=True):
                found[i].append(torch.as_tensor(z))
        return {**features, "sentence_embedding": torch.stack([mix(z) if len(z) > 1 else z[0] for z in found])}

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        self.aligner.save_pretrained(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **_: Any) -> AlignerModule:
        return cls(Aligner.from_pretrained(Path(model_name_or_path) / subfolder))


def export(aligner: Aligner, folder: str | Path) -> Path:
    """Writes an aligner as a model of sentence-transformers, with a card that says how to open it.

    >>> import tempfile, unialign_gen.loading
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sorted(p.name for p in export(unialign_gen.loading.open_aligner("starter"), folder).glob("*.json"))
    ['config.json', 'config_sentence_transformers.json', 'modules.json']

    Raises:
        InputError: it has no modality that sentence-transformers knows.
    """
    if not set(KNOWN) & set(aligner.modalities):
        raise InputError(f"sentence-transformers knows {', '.join(KNOWN)}; this aligner has {', '.join(aligner.modalities)}")
    module, place = AlignerModule(aligner), Path(folder)
    SentenceTransformer(modules=[module], device="cpu").save(str(place), create_model_card=False)
    (place / "README.md").write_text(
        "---\nlibrary_name: sentence-transformers\n---\n"
        f"Text, sound, pictures and video as unit vectors of one space of {aligner.embed_dim} dimensions: "
        f"{', '.join(m for m in KNOWN if m in aligner.modalities)}.\n\n"
        "    from sentence_transformers import SentenceTransformer  # pip install unialign_gen\n"
        "    model = SentenceTransformer(FOLDER, trust_remote_code=True)\n"
        '    model.encode(["a barking dog", "rain"]); model.encode(["dog.wav"])\n',
        "utf-8",
    )
    return place
