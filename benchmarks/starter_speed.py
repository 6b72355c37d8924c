"""How fast the starter is: pictures in a batch, and the command line with one step beside bare imports.

    python benchmarks/starter_speed.py

Prints JSON, medians in seconds. Nothing else should run meanwhile.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import partial
from typing import Any

from timing import seconds

import unialign_gen

TEXTS = ["a red car", "a green frog", "pizza", "a ship", "a smiling cat", "fireworks", "a robot", "an apple"]
COMMANDS = {
    "import_kandinsky": ["-c", "from diffusers import KandinskyV22Pipeline"],
    "cli_one_step": ["-m", "unialign_gen", "generate", "--text", "a dog", "--steps", "1"],
    "python_pass": ["-c", "pass"],
    "cli_help": ["-m", "unialign_gen", "--help"],
}


def main() -> None:
    result = {}
    for decoder, best_of in (("kandinsky", 1), ("kandinsky-distilled", 1), ("kandinsky-distilled", 2)):
        generate: Any = unialign_gen.load("starter", decoder=decoder)
        generate.set_progress_bar_config(disable=True)
        batch = partial(generate, text=TEXTS, seed=0, best_of=best_of)
        result[f"seconds_a_picture_batch_of_8_{decoder}_best_of_{best_of}"] = seconds(batch, 3) / len(TEXTS)
    with tempfile.TemporaryDirectory() as folder:
        for name, words in COMMANDS.items():
            command = [sys.executable, *words]
            result[name] = seconds(lambda: subprocess.run(command, cwd=folder, check=True, capture_output=True), 3)  # noqa: B023
    result["cli_over_import"] = result["cli_one_step"] - result["import_kandinsky"]
    result["help_over_pass"] = result["cli_help"] - result["python_pass"]
    sys.stdout.write(json.dumps({k: round(v, 3) for k, v in result.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
