"""The page: its head and its tabs."""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr

from .context import AppContext, session_of
from .tab_create import create_tab
from .tab_explore import explore_tab
from .tab_film import film_tab
from .tab_travel import travel_tab

TABS = (("Create", create_tab), ("Travel", travel_tab), ("Film", film_tab), ("Explore", explore_tab))

HEAD = """<div class="ua-head"><h1>unialign_gen</h1>
<p>Words, sounds, videos and pictures become one point of an embedding space, and the point becomes a picture.</p></div>"""


def stopper(context: AppContext) -> Callable[[gr.Request], int]:
    def stop(request: gr.Request) -> int:
        """Stops all that this session has asked for; how many requests that were."""
        return context.engine.cancel(session_of(request))

    return stop


def build(context: AppContext) -> gr.Blocks:
    """The page of a context, not yet served."""
    limits = context.limits
    age = limits.cache_seconds
    with gr.Blocks(title="unialign_gen", analytics_enabled=False, delete_cache=(max(60, age // 10), age)) as page:
        gr.HTML(HEAD)
        with gr.Tabs():
            for name, make in TABS:
                with gr.Tab(name, id=name.lower()):
                    make(context)
        gr.api(stopper(context), api_name="stop", queue=False)
    page.queue(max_size=limits.waiting, default_concurrency_limit=limits.together, api_open=False)
    return page
