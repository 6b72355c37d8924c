"""The controls that every tab has: steps, guidance, and the model whose own they are at first."""

from __future__ import annotations

import gradio as gr

from .room import Room


def drawing_sliders(room: Room, prefix: str) -> tuple[gr.Slider, gr.Slider]:
    """Steps and guidance, at the first model's own."""
    first, limits = next(iter(room.engine.models.values())), room.limits
    return (
        gr.Slider(1, limits.steps, first.steps, step=1, label="Steps", elem_id=f"{prefix}steps"),
        gr.Slider(0, limits.guidance, first.guidance, step=0.5, label="Guidance", elem_id=f"{prefix}guidance"),
    )


def model_choice(room: Room, elem_id: str) -> gr.Dropdown:
    models = list(room.engine.models)
    return gr.Dropdown(models, value=models[0], label="Model", elem_id=elem_id)


def follow_model(room: Room, model: gr.Dropdown, steps: gr.Slider, guidance: gr.Slider) -> None:
    """Choosing another model sets steps and guidance to its own; bringing settings back does not."""

    def own(label: str) -> tuple[int, float]:
        chosen = room.engine.model(label)
        return chosen.steps, chosen.guidance

    model.input(own, model, [steps, guidance], api_visibility="private", show_progress="hidden", queue=False)
