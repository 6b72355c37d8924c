"""How the page looks: a theme of the system's own fonts, and the styles of the pieces in `html`."""

from __future__ import annotations

from typing import Any

SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]

CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
.ua-head h1 { font-size: 1.5rem; font-weight: 650; margin: .2rem 0 .1rem; letter-spacing: -.01em; }
.ua-head p { margin: 0; color: var(--body-text-color-subdued); }
.ua-note { padding: .7rem .9rem; border-radius: 10px; color: var(--body-text-color-subdued);
  background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary); }
.ua-stage { padding: .8rem .9rem; border-radius: 10px; background: var(--background-fill-secondary);
  border: 1px solid var(--border-color-primary); }
.ua-line { display: flex; justify-content: space-between; font-size: .9rem; margin-bottom: .4rem; }
.ua-track { height: 6px; border-radius: 3px; background: var(--border-color-primary); overflow: hidden; }
.ua-track > div { height: 100%; background: var(--color-accent); transition: width .2s; }
.ua-previews { display: flex; flex-wrap: wrap; gap: 6px; }
.ua-previews img { width: 128px; border-radius: 8px; margin-top: .7rem; }
.ua-card { padding: .2rem .1rem .6rem; }
.ua-card h4 { margin: .3rem 0 .5rem; font-size: .95rem; font-weight: 600; }
.ua-card p { margin: .3rem 0 0; font-size: .85rem; color: var(--body-text-color-subdued); }
.ua-bar { display: grid; grid-template-columns: 8.5rem 1fr 3rem; gap: .6rem; align-items: center;
  font-size: .88rem; line-height: 1.55; }
.ua-bar > span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.ua-bar > div { height: 8px; border-radius: 4px; background: var(--border-color-primary); overflow: hidden; }
.ua-bar > div > div { height: 100%; background: var(--color-accent); }
.ua-bar code { background: none; padding: 0; text-align: right; font-size: .82rem; color: var(--body-text-color-subdued); }
.ua-apart { margin: .6rem 0 0; padding-left: 0; list-style: none; font-size: .86rem; color: var(--body-text-color-subdued); }
.ua-frames { display: flex; flex-wrap: wrap; gap: 5px; }
.ua-frames img { height: 72px; border-radius: 6px; }
.ua-wave { width: 100%; height: 64px; display: block; }
.ua-wave path { stroke: var(--color-accent); stroke-width: 1; fill: none; vector-effect: non-scaling-stroke; }
.gradio-container, .gradio-container > .main { width: 100%; }
.ua-tile, .ua-file { border: 1px dashed var(--border-color-primary) !important; }
.ua-tile .upload-container .wrap, .ua-file .upload-container .wrap { min-height: 0 !important; font-size: .88rem; }
.ua-tile .icon-wrap, .ua-file .icon-wrap, .ua-file .or { display: none; }
.ua-tile .upload-container { min-height: 104px; }
.ua-file .upload-container .wrap { padding-top: 1.6rem; }
.ua-file label { font-size: .78rem; }
.ua-weight { padding-top: 4px !important; padding-bottom: 6px !important; }
.ua-weight .head { font-size: .8rem; }
.ua-map svg { width: 100%; height: auto; display: block; }
.ua-map text { font-size: 12px; fill: var(--body-text-color-subdued); }
.ua-map circle { fill: var(--body-text-color-subdued); opacity: .6; }
.ua-map .ua-near text { fill: var(--body-text-color); font-weight: 600; }
.ua-map .ua-near circle { fill: var(--color-accent); opacity: 1; }
.ua-map line { stroke: var(--color-accent); stroke-width: 1.5; opacity: .8; }
.ua-map .ua-spot { fill: none; opacity: 1; stroke: #f97316; stroke-width: 3; }
.ua-map .ua-spot-name { font-size: 15px; font-weight: 650; fill: #f97316; paint-order: stroke;
  stroke: var(--background-fill-primary); stroke-width: 4px; }
.ua-table { overflow-x: auto; margin-bottom: 1rem; }
.ua-table h4 { margin: .3rem 0 .4rem; font-weight: 600; }
.ua-table table { border-collapse: collapse; font-size: .86rem; width: 100%; }
.ua-table th, .ua-table td { text-align: left; padding: .3rem .7rem .3rem 0;
  border-bottom: 1px solid var(--border-color-primary); }
.ua-player { display: none; padding: .2rem; }
.ua-player img { width: min(100%, 384px); aspect-ratio: 1; display: block; margin: 0 auto .6rem; border-radius: 12px;
  border: 1px solid var(--border-color-primary); background: white; }
.ua-player input { width: 100%; accent-color: var(--color-accent); }
.ua-player .ua-line { align-items: center; margin: .4rem 0 0; }
.ua-player button { padding: .25rem .9rem; border-radius: 8px; border: 1px solid var(--border-color-primary);
  background: var(--background-fill-secondary); color: var(--body-text-color); }
#stage .ua-note, #stage .ua-stage, #travel-stage .ua-note, #film-stage .ua-note { margin: 0 -2px; }
#stage:has(.prose:empty), #travel-stage:has(.prose:empty), #film-stage:has(.prose:empty), #understood:has(.prose:empty),
  #map-near:has(.prose:empty) { display: none; }
.ua-station, .ua-station .styler, .ua-station .row { background: var(--block-background-fill) !important; }
#gallery:has(.empty), .ua-filled:has(> .empty) { display: none; }
#gallery .preview { background: var(--block-background-fill); }  /* the grid under it would show through, blurred */
#kept { align-items: center; }
footer { opacity: .7; }
"""


def theme() -> Any:
    """Colours and fonts; nothing that would have to be fetched."""
    import gradio as gr

    return gr.themes.Default(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        font=SANS,
        font_mono=MONO,
    ).set(block_border_width="1px", block_shadow="none", button_large_radius="10px")
