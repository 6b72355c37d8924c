"""What trackers are told of a run, so that they show it under its name and go on with it when it is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def tracker_options(out: Path, run_id: str, step: int) -> dict[str, dict[str, Any]]:
    """Options by the name that Accelerate has for a tracker.

    Args:
        out: the run folder; its name is the run's.
        run_id: stays the same when the run is resumed.
        step: that the run goes on from.
    """
    name, folder = out.resolve().name, str(out)
    return {
        "tensorboard": {"purge_step": step + 1},  # what was logged after the state that is resumed from is hidden
        "wandb": {"name": name, "dir": folder, "id": run_id, "resume": "allow"},
        "trackio": {"name": name, "resume": "allow"},
        "swanlab": {"experiment_name": name, "logdir": folder, "id": run_id, "resume": "allow"},
        "mlflow": {"run_name": name},
        "dvclive": {"dir": str(out / "dvclive"), "resume": True},
    }


def flat(config: Any, key: str = "") -> dict[str, Any]:
    """A nested configuration as one level of dotted keys, with values that every tracker takes."""
    if isinstance(config, dict):
        return {name: value for k, v in config.items() for name, value in flat(v, f"{key}.{k}" if key else str(k)).items()}
    return {key: config if isinstance(config, bool | int | float) else str(config)}
