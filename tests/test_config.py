import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from unialign_gen import config
from unialign_gen.errors import InputError


@dataclass
class Optimiser:
    rate: float
    betas: tuple[float, ...] = (0.9, 0.999)
    kind: Literal["adamw", "sgd"] = "adamw"


@dataclass
class Config:
    out: Path
    optimiser: Optimiser
    steps: int = 10
    compile: bool = False
    seed: int | None = None
    encoders: dict[str, str | dict[str, Any]] = field(default_factory=dict)
    parts: list[Optimiser] = field(default_factory=list)
    limit: int | Literal["all"] = "all"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError("steps must be positive")


GOOD = """
out: $PLACE/run
optimiser: {rate: 1e-3, betas: [0.8, 1]}
encoders:
  text: starter
  audio: {encoder: beats, mels: 64}
parts: [{rate: 2}, {rate: .5, kind: sgd}]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "c.yaml"
    path.write_text(text)
    return path


def test_types_and_defaults(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", "/here")
    found = config.load(Config, write(tmp_path, GOOD))
    assert found == Config(
        Path("/here/run"),
        Optimiser(1e-3, (0.8, 1.0)),
        encoders={"text": "starter", "audio": {"encoder": "beats", "mels": 64}},
        parts=[Optimiser(2.0), Optimiser(0.5, kind="sgd")],
    )
    again = config.load(Config, write(tmp_path, yaml.safe_dump(config.to_dict(found))))
    assert again == found


def test_overrides_replace_what_the_file_says(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", "/here")
    path = write(tmp_path, GOOD)
    found = config.load(Config, path, ["optimiser.rate=2e-4", "seed=3", "encoders.image=starter"])
    assert (found.optimiser.rate, found.seed, found.encoders["image"]) == (2e-4, 3, "starter")
    with pytest.raises(InputError, match="write KEY=VALUE"):
        config.load(Config, path, ["seed"])
    with pytest.raises(InputError, match="out holds a value, not keys"):
        config.load(Config, path, ["out.x=1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimiser: {rate: 1}", r"c.yaml: out: missing, expected a path$"),
        ("out: x", r"c.yaml: optimiser: missing, expected keys and values$"),
        ("out: x\noptimiser: {rate: 1, betsa: []}", r"c.yaml: optimiser.betsa: unknown key, did you mean betas\?$"),
        ("out: x\noptimiser: {rate: 1, zz: 1}", r"optimiser.zz: unknown key: the keys here are rate, betas, kind$"),
        ("out: x\noptimiser: {rate: fast}", r"c.yaml: optimiser.rate: expected a number, got 'fast'$"),
        ("out: x\noptimiser: {rate: true}", r"optimiser.rate: expected a number, got true$"),
        ("out: x\noptimiser: {rate: 1, betas: 3}", r"optimiser.betas: expected a list, got 3$"),
        ("out: x\noptimiser: {rate: 1, betas: [1, x]}", r"optimiser.betas\[1\]: expected a number, got 'x'$"),
        (
            "out: x\noptimiser: {rate: 1, kind: adam}",
            r"optimiser.kind: expected 'adamw' or 'sgd', got 'adam', did you mean adamw",
        ),
        ("out: x\noptimiser: 3", r"optimiser: expected keys and values, got 3$"),
        ("out: 3\noptimiser: {rate: 1}", r"out: expected a path, got 3$"),
        ("out: $NOT_SET_ANYWHERE/x\noptimiser: {rate: 1}", r"out: \$NOT_SET_ANYWHERE/x names a variable that is not set$"),
        ("out: x\noptimiser: {rate: 1}\nsteps: 1.5", r"steps: expected a whole number, got 1.5$"),
        ("out: x\noptimiser: {rate: 1}\nsteps: true", r"steps: expected a whole number, got true$"),
        ("out: x\noptimiser: {rate: 1}\nsteps: 0", r"c.yaml: steps must be positive$"),
        ("out: x\noptimiser: {rate: 1}\ncompile: 1", r"compile: expected true or false, got 1$"),
        ("out: x\noptimiser: {rate: 1}\nseed: x", r"seed: expected a whole number, got 'x'$"),
        ("out: x\noptimiser: {rate: 1}\nlimit: most", r"limit: expected a whole number or 'all', got 'most'$"),
        ("out: x\noptimiser: {rate: 1}\nparts: [{rate: 1}, {}]", r"parts\[1\].rate: missing, expected a number$"),
        ("out: x\noptimiser: {rate: 1}\nencoders: {text: 3}", r"encoders.text: expected a string or keys and values, got 3$"),
        ("out: x\nout: y\noptimiser: {rate: 1}", r"c.yaml, line 1: not YAML: key 'out' is there twice$"),
        ("- a", r"c.yaml: expected keys and values, got a list$"),
        ("a: [", r"c.yaml, line 1: not YAML"),
    ],
)
def test_a_mistake_is_one_line_with_its_key(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as error:
        config.load(Config, write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"no configuration at .*: No such file"):
        config.load(Config, tmp_path / "x.yaml")


def test_an_empty_file_is_all_defaults(tmp_path):
    @dataclasses.dataclass
    class Free:
        steps: int = 3

    assert config.load(Free, write(tmp_path, "")) == Free()


def test_a_section_alone(tmp_path):
    path = write(tmp_path, "optimiser: {rate: 1}\nelse: [1]")
    assert config.load(Optimiser, path, ["optimiser.kind=sgd"], section="optimiser") == Optimiser(1.0, kind="sgd")
    with pytest.raises(InputError, match=r"c.yaml: optimiser.rate: expected a number"):
        config.load(Optimiser, path, ["optimiser.rate=x"], section="optimiser")
    with pytest.raises(InputError, match=r"c.yaml: model: missing"):
        config.load(Optimiser, path, section="model")
