"""The controls of several tabs: steps, guidance, the prior, and the model whose own they are at first."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .context import AppContext
from .models import Model


def drawing_sliders(context: AppContext, prefix: str) -> tuple[gr.Slider, gr.Slider]:
    """Steps and guidance, at the first model's own."""
    first, limits = next(iter(context.engine.models.values())), context.limits
    return (
        gr.Slider(1, limits.steps, first.steps, step=1, label="Steps", elem_id=f"{prefix}steps"),
        gr.Slider(0, limits.guidance, first.guidance, step=0.5, label="Guidance", elem_id=f"{prefix}guidance"),
    )


def prior_slider(context: AppContext) -> gr.Slider:
    """How far prompts move towards what the model knows, at the first model's own; hidden where it has no prior."""
    first = next(iter(context.engine.models.values()))
    return gr.Slider(
        0,
        1,
        step=0.05,
        label="Towards what it knows",
        info="0 draws a prompt as it was read, 1 the known things nearest to it.",
        elem_id="prior",
        **prior_of(first, first.prior),
    )


def prior_of(model: Model, strength: float | None) -> dict[str, Any]:
    """The slider's value and visibility for a model, for its making or as an update."""
    return {"value": strength or 0, "visible": model.prior is not None}


def model_choice(context: AppContext, elem_id: str) -> gr.Dropdown:
    models = list(context.engine.models)
    return gr.Dropdown(models, value=models[0], label="Model", elem_id=elem_id)


def follow_model(
    context: AppContext, model: gr.Dropdown, steps: gr.Slider, guidance: gr.Slider, prior: gr.Slider | None = None
) -> None:
    """Choosing another model sets these controls to its own; bringing settings back does not."""

    def own(label: str) -> list[Any]:
        chosen = context.engine.model(label)
        return [chosen.steps, chosen.guidance, gr.Slider(**prior_of(chosen, chosen.prior))][: len(followers)]

    followers = [steps, guidance, *([prior] if prior is not None else [])]
    model.input(
        own,
        model,
        followers,
        api_visibility="private",
        show_progress="hidden",
        queue=False,
    )
