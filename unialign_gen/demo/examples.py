"""Prompts that work at one click, from the samples that come with the package."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Example:
    """Words and samples, by kind, with their weights."""

    label: str
    text: str = ""
    files: dict[str, str] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)


EXAMPLES = (
    Example("a red car", "a red car"),
    Example("a smiling cat", "a smiling cat"),
    Example("a cow, by its moo", files={"audio": "cow.flac"}),
    Example("a drum, by its beat", files={"audio": "drum.flac"}),
    Example("a sheep, by a video", files={"video": "sheep.mp4"}),
    Example("a robot + a moo", "a robot", {"audio": "cow.flac"}, {"text": 0.6, "audio": 0.4}),
    Example("fire + a chick", "fire", {"audio": "chicken.flac"}, {"text": 0.5, "audio": 0.5}),
)
