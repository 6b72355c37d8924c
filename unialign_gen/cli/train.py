"""Training: `train`."""

from __future__ import annotations

from ..console import report, stage
from .app import app
from .options import AsJson, Config, Overrides


@app.command()
def train(
    config: Config,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Train heads from cached features; run again to go on.

    `accelerate launch -m unialign_gen train CONFIG` for several processes.
    """
    from ..config import load
    from ..configs import find_config
    from ..training.config import TrainConfig

    train_config = load(TrainConfig, find_config(config, "train"), overrides or ())
    stage("loading the features")
    from ..training.train import train as run

    done = run(train_config)
    numbers = ", ".join(f"{name} {value:.3f}" for name, value in done.metrics.items())
    state = f"{done.step} steps, heads in {done.heads}" if done.finished else f"stopped at step {done.step} of {done.steps}"
    result = {"step": done.step, "steps": done.steps, "metrics": done.metrics, "heads": str(done.heads) if done.heads else None}
    report(result, as_json, f"{state}\n{numbers}".rstrip())
