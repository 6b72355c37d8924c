"""Does it hold on CUDA? Each line of the table is one claim, checked or timed in this run; it ends by itself, in two minutes.

    python benchmarks/gpu.py --out gpu.json                       # on a GPU
    python benchmarks/gpu.py --device cpu --tiny --out gpu.json   # the rehearsal, at tiny size

The table is written after every line, as JSON. A line whose packages are not installed is skipped and says so; one that fails
says how, and the next ones run.

Objectives: value and gradient against fp64 on the processor, from fp32, bf16 and fp16 embeddings (the reference gets the same
rounded numbers), under autocast, and through a gradient scaler. Speed: UniAlign beside open_clip's ClipLoss over all pairs.
Decoders: the published architectures at full size, with random weights, so the pictures are noise; time and
memory are not. Training: the trainer's own steps from a cache.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import torch
import typer
from accelerate import Accelerator, cpu_offload_with_hook
from accelerate.state import AcceleratorState
from memory import architecture, component_class
from objectives import OBJECTIVES, UniAlign, Z, build, clip_loss, embeddings, step
from timing import seconds
from torch import Tensor, nn
from training import SMALL, on_cache

import unialign_gen
from unialign_gen.training.train import Trainer

CLOSE = {"fp32": 1e-4, "bf16": 1e-2, "fp16": 1e-2}  # of the largest entry


@dataclass
class Setting:
    device: str
    tiny: bool

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")

    def embeddings(self, count: int, dim: int) -> Z:
        return {name: z.detach().to(self.device) for name, z in embeddings(count, dim, 3).items()}

    def seconds(self, work: Callable[[], object], repeats: int) -> float:
        """Median time of a call, see `timing.seconds`."""
        return seconds(work, 0 if self.tiny else repeats, device=self.device)


def apart(found: Tensor, wanted: Tensor) -> float:
    """The largest difference as a share of the largest wanted entry."""
    return float((found.double().cpu() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))


def value_and_gradients(
    objective: nn.Module, z: Z, scale: float = 1.0, autocast: str | None = None
) -> tuple[Tensor, list[Tensor]]:
    leaves = {name: value.detach().requires_grad_() for name, value in z.items()}
    with torch.autocast(autocast, torch.bfloat16) if autocast else contextlib.nullcontext():
        loss = objective(leaves)
    gradients = torch.autograd.grad(loss * scale, list(leaves.values()), allow_unused=True)
    return loss.detach(), [torch.zeros_like(v) if g is None else g / scale for g, v in zip(gradients, z.values(), strict=True)]


def objective(setting: Setting, name: str) -> dict[str, Any]:
    """An objective on the device against itself in fp64 on the processor."""
    count, dim = (16, 8) if setting.tiny else (512, 256)
    z = setting.embeddings(count, dim)
    found: dict[str, Any] = {}

    def compare(label: str, inputs: Z, limit: float, **options: Any) -> None:
        torch.manual_seed(0)
        reference = build(name).double()
        value, gradients = value_and_gradients(reference, {n: v.double().cpu() for n, v in inputs.items()})
        torch.manual_seed(0)
        got, theirs = value_and_gradients(build(name).to(setting.device), inputs, **options)
        errors = [apart(got, value), *(apart(a, b) for a, b in zip(theirs, gradients, strict=True) if bool(b.any()))]
        found[label] = max(errors)
        found["holds"] = found.get("holds", True) and max(errors) < limit

    for label, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        compare(label, {n: v.to(dtype) for n, v in z.items()}, CLOSE[label])
    compare("autocast", z, CLOSE["fp32"], autocast=setting.device.partition(":")[0])
    compare("scaled", z, CLOSE["fp32"], scale=2.0**16)
    return found


def speed(setting: Setting, which: str, count: int, compiled: bool) -> dict[str, Any]:
    """Forward and backward of three modalities of width 1024, in bf16 products where autocast gives them."""
    count, dim = (64, 16) if setting.tiny else (count, 1024)
    loss: Callable[[Z], Tensor] = UniAlign().to(setting.device) if which == "UniAlign" else clip_loss
    call = torch.compile(loss) if compiled else loss
    z = {n: v.requires_grad_() for n, v in setting.embeddings(count, dim).items()}
    run = partial(step, call, z)
    run()
    found = {"seconds": setting.seconds(run, 3)}
    if setting.cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        found["GB"] = (torch.cuda.max_memory_allocated() - before) / 1e9  # the most, beyond what was there
    return found


def decoder_parts(name: str, setting: Setting) -> tuple[nn.Module, nn.Module]:
    """UNet and picture decoder of a published checkpoint, random, in half precision; cut down for the rehearsal."""
    parts = architecture(name)["components"]
    made = []
    for part in ("unet", "vae" if "vae" in parts else "movq"):
        config = dict(parts[part]["config"])
        if setting.tiny:
            small = [64] * len(config["block_out_channels"])
            config |= {"block_out_channels": small, "layers_per_block": 1, "sample_size": 16}
            config |= {"attention_head_dim": 8} if part == "unet" else {}
        dtype = torch.float16 if setting.cuda else torch.float32
        with torch.device(setting.device):
            made.append(component_class(parts[part]).from_config(config).to(dtype).eval())
    return made[0], made[1]


def conditioning(unet: Any, count: int, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Random inputs of a UNet's forward beside the latents and the time."""
    if unet.config.class_embed_type == "projection":
        width = unet.config.projection_class_embeddings_input_dim
        words = torch.randn(count, 77, unet.config.cross_attention_dim, device=device, dtype=dtype)
        return {"encoder_hidden_states": words, "class_labels": torch.randn(count, width, device=device, dtype=dtype)}
    image = torch.randn(count, unet.config.encoder_hid_dim, device=device, dtype=dtype)
    return {"encoder_hidden_states": None, "added_cond_kwargs": {"image_embeds": image}}


@torch.no_grad()
def decoder(setting: Setting, name: str, offload: bool = False, compiled: bool = False) -> dict[str, Any]:
    """One picture of 20 steps with guidance, as the pipelines compute it: seconds, and the most GB on the device."""
    unet, vae = decoder_parts(name, setting)
    dtype, device = next(unet.parameters()).dtype, setting.device
    side, steps = (16, 2) if setting.tiny else (96, 20)
    latent = torch.randn(1, unet.config.in_channels, side, side, device=device, dtype=dtype)
    given = conditioning(unet, 2, device, dtype)
    if offload:
        unet, hook = cpu_offload_with_hook(unet, device)
        vae, _ = cpu_offload_with_hook(vae, device, hook)
    call = torch.compile(unet) if compiled else unet

    def draw() -> Tensor:
        x = latent
        for t in range(steps):
            noise = call(torch.cat([x, x]), torch.tensor(10 * t, device=device), **given).sample[:, : x.shape[1]]
            x = x - 0.05 * (noise[:1] + 3 * (noise[1:] - noise[:1]))
        return vae.decode(x).sample

    weights = sum(p.numel() * p.element_size() for p in itertools.chain(unet.parameters(), vae.parameters())) / 1e9
    if setting.cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    draw()
    found: dict[str, Any] = {"seconds": setting.seconds(draw, 1), "weights GB": weights}
    if setting.cuda:
        found["GB"] = torch.cuda.max_memory_allocated() / 1e9
    return found


def starter(setting: Setting) -> dict[str, Any]:
    """Pictures a second of the starter, a batch of eight in its default steps."""
    pipeline = unialign_gen.load("starter").to(setting.device, torch.float16 if setting.cuda else torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    words = ["a red bird", "a drum"] if setting.tiny else ["a red bird", "a drum", "rain", "a dog"] * 2
    steps = {"num_inference_steps": 1} if setting.tiny else {}
    made = pipeline(text=words, seed=0, **steps).images
    taken = setting.seconds(lambda: pipeline(text=words, seed=0, **steps), 2)
    return {"pictures a second": len(words) / taken, "holds": all(low < high for p in made for low, high in p.getextrema())}


def trainer(setting: Setting, precision: str) -> dict[str, Any]:
    """Steps of `unialign-gen train` from a cache, in a precision: their time, the losses of the first and the last tenth."""
    batch, steps, samples = (8, 30, 64) if setting.tiny else (1024, 200, 20_000)
    with tempfile.TemporaryDirectory() as name:
        AcceleratorState._reset_state()  # of the line before, of another precision
        accelerator = Accelerator(mixed_precision=precision, cpu=not setting.cuda)
        made = Trainer(on_cache(Path(name), samples, SMALL, batch, steps), accelerator)
        losses, begun = [], time.perf_counter()
        for _ in range(steps):
            losses.append(made.update()["loss"])
            made.step += 1
        if setting.cuda:
            torch.cuda.synchronize()
        spent = time.perf_counter() - begun
        made.ahead.shutdown()
    first, last = fmean(losses[: steps // 10]), fmean(losses[-steps // 10 :])
    return {"ms a step": 1e3 * spent / steps, "first": first, "last": last, "holds": last < first}


def lines(setting: Setting) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Every line of the table, the cheap and the telling ones first."""
    for name in OBJECTIVES:
        yield f"objective {name}", partial(objective, setting, name)
    for precision in ("no", "bf16", "fp16"):
        yield f"training, {precision}", partial(trainer, setting, precision)
    for count, which, compiled in itertools.product((4096, 32768), ("UniAlign", "ClipLoss"), (False, True)):
        yield f"{which} at batch {count}{', compiled' if compiled else ''}", partial(speed, setting, which, count, compiled)
    yield "starter", partial(starter, setting)
    for name in ("stable-unclip", "kandinsky"):
        yield f"{name}, one picture", partial(decoder, setting, name)
        yield f"{name}, offloaded", partial(decoder, setting, name, offload=True)
    yield "kandinsky, compiled", partial(decoder, setting, "kandinsky", compiled=True)


def attempt(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A line's figures, or why there are none."""
    begun = time.perf_counter()
    try:
        found = work()
    except ImportError as error:
        found = {"skipped": str(error)}
    except Exception as error:  # whatever a device or a library says: the next line runs
        found = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {**found, "took": round(time.perf_counter() - begun, 2)}


def main(
    out: Annotated[Path, typer.Option(help="A JSON file.")],
    device: str = "cuda",
    tiny: Annotated[bool, typer.Option("--tiny", help="Sizes for a rehearsal.")] = False,
    budget: Annotated[float, typer.Option("--seconds", help="After which no further line is begun.")] = 110,
) -> None:
    """Writes the table; exit code 1 if a line does not hold."""
    setting = Setting(device, tiny)
    about = {"torch": torch.__version__, "python": platform.python_version(), "device": device, "tiny": tiny}
    if setting.cuda:
        about["card"] = torch.cuda.get_device_name(device)
        torch.backends.cuda.matmul.allow_tf32 = False
    table: dict[str, dict[str, Any]] = {}
    begun = time.perf_counter()
    with contextlib.suppress(KeyboardInterrupt):
        for name, work in lines(setting):
            late = time.perf_counter() - begun > budget
            table[name] = {"skipped": "no time left"} if late else attempt(work)
            out.write_text(json.dumps({"about": about, "table": table}, indent=1) + "\n")
    wrong = [name for name, row in table.items() if "failed" in row or row.get("holds") is False]
    raise SystemExit(f"{len(table)} lines, {len(wrong)} that do not hold: {', '.join(wrong)}" if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
