"""From packages of public registries to the starter checkpoint. `python -m unialign_gen.checkpoints.recipe --help`."""
