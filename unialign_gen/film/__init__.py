"""Moving pictures: a recording followed through time as a film, and several pictures in one file."""

from .make import draw_track, make_film, picture_count
from .plan import Plan
from .sheets import grid, save_sequence, sheet
from .track import Track, Window, listen, windows
from .writer import FilmWriter

__all__ = [
    "FilmWriter",
    "Plan",
    "Track",
    "Window",
    "draw_track",
    "grid",
    "listen",
    "make_film",
    "picture_count",
    "save_sequence",
    "sheet",
    "windows",
]
