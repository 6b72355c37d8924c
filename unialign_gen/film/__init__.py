"""Moving pictures: a recording followed through time as a film, and several pictures in one file."""

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .make import draw_track, make_film, picture_count
    from .plan import Plan
    from .sheets import grid, save_sequence, sheet
    from .track import Track, Window, listen, windows
    from .writer import FilmWriter
else:  # unseen by type checkers, which would then take any name
    __getattr__ = lazy(
        __name__,
        dict.fromkeys(("draw_track", "make_film", "picture_count"), "make")
        | dict.fromkeys(("grid", "save_sequence", "sheet"), "sheets")
        | dict.fromkeys(("Track", "Window", "listen", "windows"), "track")
        | {"Plan": "plan", "FilmWriter": "writer"},
    )

__all__ = ["FilmWriter", "Plan", "Track", "Window", "draw_track", "grid", "listen", "make_film", "picture_count"]
__all__ += ["save_sequence", "sheet", "windows"]
