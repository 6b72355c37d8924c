"""Pictures one after the other, in the browser: a slider, and a loop that plays by itself."""

from __future__ import annotations

import json
from typing import Any

from .html import data_uri
from .travel import Way

TEMPLATE = """<div class="ua-player"><img alt="picture of the way">
<input type="range" min="0" value="0" aria-label="place on the way"><div class="ua-line"><span class="ua-label"></span>
<button type="button">Pause</button></div></div>"""

SCRIPT = """
let at = 0, step = 1, playing = true, way = null;
const draw = () => {
  const box = element.querySelector('.ua-player');
  if (!box) return;
  box.style.display = way ? 'block' : 'none';
  if (!way) return;
  box.querySelector('img').src = way.pictures[at];
  const slider = box.querySelector('input');
  slider.max = way.pictures.length - 1;
  slider.value = at;
  box.querySelector('.ua-label').textContent = way.labels[at];
  box.querySelector('button').textContent = playing ? 'Pause' : 'Play';
};
const take = () => { way = props.value ? JSON.parse(props.value) : null; at = 0; step = 1; playing = true; draw(); };
element.addEventListener('input', (e) => {
  if (e.target.type === 'range') { at = Number(e.target.value); playing = false; draw(); }
});
element.addEventListener('click', (e) => { if (e.target.tagName === 'BUTTON') { playing = !playing; draw(); } });
setInterval(() => {
  if (!way || !playing) return;
  if (way.closed) { at = (at + 1) % way.pictures.length; }
  else { if (at + step < 0 || at + step >= way.pictures.length) step = -step; at += step; }
  draw();
}, 140);
watch('value', take);
take();
"""


def film_strip(way: Way) -> str:
    """The player's value: JSON with the pictures inside."""
    value: dict[str, Any] = {
        "pictures": [data_uri(p, 256) for p in way.pictures],
        "labels": way.labels,
        "closed": way.closed,
    }
    return json.dumps(value)
