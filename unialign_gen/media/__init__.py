"""The only place that opens a media file: pictures through Pillow, sound and video through PyAV (FFmpeg).

What a file is follows from its content, never from its name. Every failure to decode is one `InputError`; what was lost or
guessed of a file that could be read is a note (see `unialign_gen.notes`).
"""

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .files import Excerpt, Source, check_file, opened
    from .inputs import Frames, is_one
    from .pictures import load_image
    from .recordings import Clip, has_sound, load_clip, load_sound, load_video, sound_blocks
    from .sound import Sound
else:  # unseen by type checkers, which would then take any name
    __getattr__ = lazy(
        __name__,
        dict.fromkeys(("Excerpt", "Source", "check_file", "opened"), "files")
        | dict.fromkeys(("Frames", "is_one"), "inputs")
        | dict.fromkeys(("Clip", "has_sound", "load_clip", "load_sound", "load_video", "sound_blocks"), "recordings")
        | {"Sound": "sound", "load_image": "pictures"},
    )

__all__ = ["Clip", "Excerpt", "Frames", "Sound", "Source", "check_file", "has_sound", "is_one", "load_clip", "load_image"]
__all__ += ["load_sound", "load_video", "opened", "sound_blocks"]
