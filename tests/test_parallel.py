"""Large encoders and many processes: FSDP2, LoRA, recomputing and compiling change no loss; a state goes on anywhere."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import processes
import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file

from unialign_gen.config import to_dict
from unialign_gen.configs import configs_folder
from unialign_gen.data.extract import run
from unialign_gen.data.extract_config import ExtractConfig
from unialign_gen.data.sources import CorpusConfig
from unialign_gen.encoders.registry import NOWHERE, load_encoder, register_file
from unialign_gen.errors import InputError
from unialign_gen.heads import Head, load_head
from unialign_gen.training.config import HeadConfig, LoraConfig, StreamConfig, TrainConfig
from unialign_gen.training.model import Heads
from unialign_gen.training.parallel import add_lora, blocks, merged, recompute
from unialign_gen.training.train import Trainer, train

pytestmark = pytest.mark.timeout(240)  # whole runs, several processes at a time
TINY = '''
import torch
from safetensors.torch import load_file
from torch import nn
from unialign_gen.encoders.base import Encoder


class Tiny(Encoder):
    """Letters through two transformer layers: small, and with all that a large one has."""

    dim = 16

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.config = {"encoder": "tiny"}
        self.letters = nn.Embedding(128, 16)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=True) for _ in range(2))

    def prepare(self, texts):
        rows = torch.zeros(len(texts), 12, dtype=torch.long)
        for row, text in zip(rows, texts):
            row[: len(text[:12])] = torch.tensor([ord(c) % 128 for c in text[:12]])
        return rows

    def forward(self, tokens):
        hidden = self.letters(tokens)
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden.mean(1)


def build(folder, config):
    return Tiny()


def weights(folder, config):
    path = folder / "model.safetensors"
    return load_file(path) if path.is_file() else Tiny().state_dict()
'''
COLOURS = ["red", "green", "blue", "white", "grey", "pink"]


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Pictures and captions, cached by the starter's image encoder and a tiny text encoder of one's own."""
    root = tmp_path_factory.mktemp("media")
    (root / "tiny.py").write_text(TINY)
    rows = []
    for i in range(24):
        Image.new("RGB", (32, 32), COLOURS[i % 6]).save(root / f"{i}.png")
        rows.append({"id": str(i), "image": f"{i}.png", "text": [f"{COLOURS[i % 6]} {i}", f"a {COLOURS[i % 6]}"]})
    (root / "table.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    corpus = CorpusConfig("manifest", manifest=root / "table.jsonl")
    encoders = {"image": "starter", "text": {"encoder": "tiny", "file": str(root / "tiny.py")}}
    register_file("tiny", str(root / "tiny.py"))
    run(ExtractConfig(corpus, encoders, root / "cache", workers=1), progress=None)
    return root


def settings(root, out, **changes):
    base = TrainConfig(
        out=out,
        caches={"clips": root / "cache"},
        heads={"text": HeadConfig(hidden=8, dropout=0.0)},
        streams=[
            StreamConfig({"clips": 1.0}, ["image", "text"], batch=12),
            StreamConfig({"clips": 1.0}, ["image", "text"], batch=6),
        ],
        objective={"name": "infonce", "learnable": True},
        encoders={"text": {"encoder": "tiny", "file": str(root / "tiny.py")}},
        corpora={"clips": CorpusConfig("manifest", manifest=root / "table.jsonl")},
        steps=4,
        lr=1e-2,
        ema=0.5,
        save_every=2,
        trackers=[],
        workers=1,
    )
    changed = replace(base, **changes)
    changed.evaluation.every, changed.evaluation.held_out = 2, 0.2
    return changed


KINDS = {
    "heads": {"encoders": {}, "corpora": {}},
    "lora": {"lora": {"text": LoraConfig(rank=2)}, "activation_checkpointing": True},
    "full": {},
    "parts": {"micro_batch": 2, "sharded_state": True},
    "scaled": {"encoders": {}, "corpora": {}},
    "bf16": {"precision": "bf16"},
}


def trained(config):
    """A run; the one called `scaled` has fp16's loss scaling, which Accelerate itself does not do on the processor."""
    accelerator = None
    if config.out.name == "scaled":
        AcceleratorState._reset_state()
        accelerator = Accelerator(cpu=True)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    return train(config, accelerator)


def stopping(until):
    """Has a process stop itself after so many steps, as a scheduler does."""
    real = Trainer.update

    def update(self):
        row = real(self)
        if self.step + 1 == until:
            os.kill(os.getpid(), signal.SIGTERM)
        return row

    Trainer.update = update


def process(rank, world, fsdp, until, configs):
    stopping(until)
    if fsdp:
        os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    for config in configs:
        trained(config)
    torch.distributed.destroy_process_group()


def on(world, fsdp, configs, until=0):
    """Runs configurations one after the other on so many processes."""
    processes.together(world, process, fsdp, until, configs)


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@torch.no_grad()
def embedded(folder):
    """What the kept head, and encoder if it was trained, make of some captions."""
    kept = folder / "heads" / "text"
    encoder = (
        load_encoder(kept) if (kept / "model.safetensors").is_file() else load_encoder(NOWHERE, config={"encoder": "tiny"})
    )
    return load_head(kept)(encoder.eval()(encoder.prepare(["red 1", "a blue page", "pink"])))


def close(one, other, tolerance=1e-4):
    """Equal logs, and kept weights that embed alike; a single weight may differ, where Adam divides a gradient of zero."""
    assert [r["step"] for r in rows(one)] == [r["step"] for r in rows(other)]
    for a, b in zip(rows(one), rows(other), strict=True):
        assert a.keys() == b.keys()
        assert b["loss"] == pytest.approx(a["loss"], abs=tolerance)
        assert b["gradient"] == pytest.approx(a["gradient"], rel=1e-3, abs=tolerance)
    torch.testing.assert_close(embedded(one), embedded(other), atol=tolerance, rtol=tolerance)


@pytest.fixture(scope="module")
def one_process(media, tmp_path_factory):
    root = tmp_path_factory.mktemp("one")
    for kind, changes in KINDS.items():
        trained(settings(media, root / kind, **changes))
    return root


def test_fsdp_with_two_processes_equals_one(media, one_process, tmp_path):
    on(2, True, [settings(media, tmp_path / kind, **changes) for kind, changes in KINDS.items()])
    for kind in KINDS:
        close(one_process / kind, tmp_path / kind, tolerance=2e-2 if kind == "bf16" else 1e-4)
    close(one_process / "heads", tmp_path / "scaled")
    scales = [
        torch.load(root / "scaled" / "state.pt", weights_only=True)["scaler"]["scale"] for root in (one_process, tmp_path)
    ]
    assert scales == [4096.0, 4096.0]
    shares = list((tmp_path / "parts").glob("state-4/*.safetensors"))
    assert len(shares) == 2  # each process wrote its own
    assert [p.name for p in (tmp_path / "parts").glob("state-*")] == ["state-4"]
    close(one_process / "full", tmp_path / "parts")


def test_a_state_of_two_processes_goes_on_with_one_and_with_three(media, one_process, tmp_path):
    """Shares and whole states, by FSDP2 and DDP, to FSDP2, DDP and a single process."""
    started = [
        settings(media, tmp_path / "shares", sharded_state=True),
        settings(media, tmp_path / "whole", lora=KINDS["lora"]["lora"]),
    ]
    on(2, True, started, until=2)
    for name in ("shares", "whole"):
        for world in (1, 3):
            shutil.copytree(tmp_path / name, tmp_path / f"{name}-{world}")
    change = {"shares": {"sharded_state": True}, "whole": {"lora": KINDS["lora"]["lora"]}}
    expected = {"shares": one_process / "full", "whole": one_process / "lora"}
    for name, changes in change.items():
        assert train(settings(media, tmp_path / f"{name}-1", **changes)).step == 4
    on(3, False, [settings(media, tmp_path / "shares-3", sharded_state=True)])
    on(3, True, [settings(media, tmp_path / "whole-3", **change["whole"])])
    for name, place in expected.items():
        for world in (1, 3):
            close(place, tmp_path / f"{name}-{world}")


def test_kept_encoders_load_by_themselves(media, one_process):
    """LoRA's updates are in the weights: the folder is that of any encoder, and the frozen layers are as they were."""
    started = load_file(one_process / "full" / "heads" / "text" / "model.safetensors")
    kept = load_file(one_process / "lora" / "heads" / "text" / "model.safetensors")
    assert kept.keys() == started.keys()
    encoder = load_encoder(one_process / "lora" / "heads" / "text")
    fresh = type(encoder)()
    changed = {name for name, value in encoder.state_dict().items() if not torch.equal(value, fresh.state_dict()[name])}
    assert changed == {f"layers.{i}.{part}.weight" for i in range(2) for part in ("linear1", "linear2")}
    state = torch.load(one_process / "lora" / "state.pt", weights_only=True)
    assert not [name for name in state["tensors"] if "base_layer.weight" in name or "letters" in name]


def test_merged_updates_give_what_they_gave_apart(media):
    encoder = build_tiny(media)
    add_lora(encoder, LoraConfig(rank=3, alpha=6.0), "lora.text")
    for name, parameter in encoder.named_parameters():
        assert parameter.requires_grad == ("lora_" in name)
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    heads = Heads({"text": Head(16, 4, 8)}, {"text": encoder}).eval()
    tokens = encoder.prepare(["a red page", "b"])
    with torch.no_grad():
        apart, plain = encoder(tokens), build_tiny(media).eval()(tokens)
        together = merged(heads).encoders["text"]
        torch.testing.assert_close(together(tokens), apart, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(apart, plain, atol=0.1)
    assert together.state_dict().keys() == build_tiny(media).state_dict().keys()


def build_tiny(root):
    scope = {}
    exec((root / "tiny.py").read_text(), scope)
    return scope["Tiny"]()


def test_recomputing_and_compiling_change_nothing(media, one_process, tmp_path):
    train(settings(media, tmp_path / "run", activation_checkpointing=True, compile="aot_eager", steps=4))
    close(one_process / "full", tmp_path / "run")


def test_recomputed_blocks_keep_less():
    torch.manual_seed(0)
    layers = torch.nn.Sequential(*(torch.nn.TransformerEncoderLayer(16, 2, 512, dropout=0.0) for _ in range(3)))
    holder = torch.nn.Module()
    holder.encoders = torch.nn.ModuleDict({"text": torch.nn.ModuleDict({"net": layers})})
    x = torch.randn(50, 4, 16, requires_grad=True)

    def kept():
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            out = layers(x).square().mean()
        return total, torch.autograd.grad(out, x)[0]

    before, gradient = kept()
    recompute(holder)
    after, same = kept()
    assert after < before / 4
    torch.testing.assert_close(same, gradient)


def test_blocks_are_what_repeats():
    layer = torch.nn.TransformerEncoderLayer(8, 2, 8)
    encoder = torch.nn.TransformerEncoder(layer, 3)
    assert list(blocks(encoder)) == list(encoder.layers)
    net = torch.nn.ModuleDict({"stem": torch.nn.Conv2d(3, 4, 3), "body": torch.nn.ModuleList([encoder, encoder.layers[0]])})
    assert list(blocks(net)) == list(encoder.layers)
    assert not list(blocks(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lora": {"image": LoraConfig()}}, "lora.image: only an encoder that is trained"),
        ({"lora": {"text": LoraConfig(layers=["nowhere"])}}, "lora.text.layers: .*nowhere"),
        ({"compile": "inducter"}, "compile: there is no backend inducter: choose from .*inductor"),
    ],
)
def test_mistakes_are_said_before_the_first_step(media, tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        train(settings(media, tmp_path / "run", **change))
    assert not (tmp_path / "run").exists()


def test_lora_needs_peft(monkeypatch):
    import builtins

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", lambda name, *a, **k: real("nowhere" if name == "peft" else name, *a, **k))
    with pytest.raises(InputError, match=r"lora.text: LoRA needs peft: pip install peft"):
        add_lora(torch.nn.Linear(2, 2), LoraConfig(), "lora.text")


def test_an_fsdp_of_the_first_version_is_refused(media, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(InputError, match="this trains with FSDP2"):
        train(settings(media, tmp_path / "run"))


def test_a_state_of_another_version_is_left_alone(media, one_process, tmp_path):
    shutil.copytree(one_process / "heads", tmp_path / "run")
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    torch.save({**state, "format": None}, tmp_path / "run" / "state.pt")
    with pytest.raises(InputError, match="state of another version"):
        train(settings(media, tmp_path / "run", steps=6, **KINDS["heads"]))
    torch.save({**state, "tensors": {}}, tmp_path / "run" / "state.pt")
    with pytest.raises(InputError, match="of other weights, such as"):
        train(settings(media, tmp_path / "run", steps=6, **KINDS["heads"]))


def test_shipped_configurations_of_accelerate_are_read():
    from accelerate.commands.config.config_args import load_config_from_file

    found = {path.stem: load_config_from_file(str(path)) for path in sorted((configs_folder() / "accelerate").glob("*.yaml"))}
    assert set(found) == {"ddp", "fsdp2"}
    assert found["fsdp2"].fsdp_config["fsdp_version"] == 2
    assert str(found["fsdp2"].distributed_type).endswith("FSDP")
    assert str(found["ddp"].distributed_type).endswith("MULTI_GPU")


def test_the_guide_s_slurm_script_trains(media, one_process, tmp_path):
    """With stand-ins for Slurm's own two commands, and two processes of one machine, by FSDP2."""
    tools = {"srun": 'exec "$@"', "scontrol": "echo 127.0.0.1"}
    (tmp_path / "bin").mkdir()
    for name, line in tools.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    config = settings(media, tmp_path / "run", **KINDS["heads"])
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_dict(config)))
    port = str(processes.free_port())
    slurm = {"SLURM_JOB_NODELIST": "x", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_ID": "7", "PORT": port}
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    script = Path(__file__).parent.parent / "docs" / "examples" / "train.sbatch"
    torchrun = tmp_path / "bin" / "torchrun"  # of this interpreter
    torchrun.write_text(f'#!/bin/sh\nexec {sys.executable} -m torch.distributed.run "$@"\n')
    torchrun.chmod(0o755)
    run = ["bash", script, tmp_path / "run.yaml", "--set", "lr=0.01"]
    done = subprocess.run(run, env={**os.environ, **slurm, "PATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    close(one_process / "heads", tmp_path / "run")
