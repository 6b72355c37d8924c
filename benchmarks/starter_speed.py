"""How fast the starter is: pictures in a batch, and the command line's way to its first step beside bare imports.

    python benchmarks/starter_speed.py

Prints JSON. Nothing else should run meanwhile.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TEXTS = ["a red car", "a green frog", "pizza", "a ship", "a smiling cat", "fireworks", "a robot", "an apple"]
FIRST_STEP = """
import time, sys
start = time.perf_counter()
import unialign_gen
pipeline = unialign_gen.load("starter")
class Reached(Exception): pass
def stop(*_): raise Reached
try: pipeline(text="a dog", seed=0, callback_on_step_end=stop)
except Reached: pass
"""


def seconds(command: list[str], runs: int = 3) -> float:
    """Median wall time of a whole process."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def batch_seconds(runs: int = 3) -> float:
    """Seconds a picture of a batch of eight at the default steps."""
    import unialign_gen

    generate: Any = unialign_gen.load("starter")
    generate.set_progress_bar_config(disable=True)
    generate(text=TEXTS, seed=0, num_inference_steps=1)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        generate(text=TEXTS, seed=0)
        times.append((time.perf_counter() - start) / len(TEXTS))
    return statistics.median(times)


def main() -> None:
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "x.png")
        result = {
            "seconds_a_picture_batch_of_8": batch_seconds(),
            "import_kandinsky": seconds([python, "-c", "from diffusers import KandinskyV22Pipeline"]),
            "python_to_first_step": seconds([python, "-c", FIRST_STEP]),
            "cli_one_step": seconds(
                [python, "-m", "unialign_gen", "generate", "--text", "a dog", "--steps", "1", "--out", out]
            ),
            "python_pass": seconds([python, "-c", "pass"], 5),
            "cli_help": seconds([python, "-m", "unialign_gen", "--help"], 5),
        }
    result["cli_over_import"] = result["cli_one_step"] - result["import_kandinsky"]
    result["help_over_pass"] = result["cli_help"] - result["python_pass"]
    print(json.dumps({k: round(v, 3) for k, v in result.items()}, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
