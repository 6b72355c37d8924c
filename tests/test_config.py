from dataclasses import field
from pathlib import Path
from typing import Literal

import pytest
import yaml

from unialign_gen import config
from unialign_gen.errors import InputError


@config.schema
class Optimiser:
    rate: float
    betas: tuple[float, ...] = (0.9, 0.999)
    kind: Literal["adamw", "sgd"] = "adamw"


@config.schema
class Config:
    out: Path
    optimiser: Optimiser
    steps: int = 10
    compile: config.Flag = False
    pair: tuple[float, float] = (0.9, 0.98)
    share: config.Share = 0.5
    seed: int | None = None
    encoders: dict[str, str | config.Options] = field(default_factory=dict)
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
    found = config.load(Config, path, ["parts.1.rate=7e-2", "parts[0].kind=sgd", "optimiser.betas.0=0.5"])
    assert (found.parts[1].rate, found.parts[0].kind, found.optimiser.betas) == (0.07, "sgd", (0.5, 1.0))
    for entry, message in (
        ("seed", "write KEY=VALUE"),
        ("out.x=1", "out holds a value, not keys"),
        ("parts.2.rate=1", "parts is a list of 2: give a number from 0 to 1"),
        ("parts.last.rate=1", "parts is a list of 2"),
        ("parts.0.rat=1", r"parts\[0\].rat: unknown key, did you mean rate"),
    ):
        with pytest.raises(InputError, match=message):
            config.load(Config, path, [entry])


def test_scalars_mean_what_a_person_means(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPS", "12")
    monkeypatch.setenv("HERE", "/data")
    text = """
out: ~/run
optimiser: {rate: 7e-2}
steps: $STEPS
compile: no
encoders: {a: {encoder: beats, checkpoint: "${HERE}/b.pt", learnable: no, on: off, price: $$5}, no: starter}
"""
    found = config.load(Config, write(tmp_path, text))
    assert (found.out, found.optimiser.rate, found.steps, found.compile) == (Path.home() / "run", 0.07, 12, False)
    expected = {"encoder": "beats", "checkpoint": "/data/b.pt", "learnable": False, "on": False, "price": "$5"}
    assert found.encoders == {"a": expected, "no": "starter"}
    again = config.load(Config, write(tmp_path, yaml.safe_dump(config.to_dict(found))))
    assert again == found


def test_what_an_override_replaces_need_not_be_set(tmp_path):
    path = write(tmp_path, "out: $NOT_SET_ANYWHERE\noptimiser: {rate: 1}")
    assert config.load(Config, path, ["out=here"]).out == Path("here")


def test_python_callers_get_the_same_lines():
    with pytest.raises(InputError, match=r"^rate: expected a number, got 'fast'$"):
        Optimiser("fast")
    with pytest.raises(InputError, match=r"^steps must be positive$"):
        Config("x", Optimiser(1.0), steps=0)
    with pytest.raises(InputError, match=r"^rat: unknown key, did you mean rate"):
        Optimiser(1.0, rat=2)


def test_first_edition_names_are_taken_with_a_line_for_each(tmp_path):
    @config.schema
    class Run:
        encoders: dict[str, str | config.Options]
        caches: dict[str, str]
        decay_fraction: float = 0.98

    path = write(tmp_path, "towers: {a: {tower: beats}}\ncool: 0.5\ncaches: {cool: x, tower: y}")
    with pytest.warns(FutureWarning) as said:
        found = config.load(Run, path, ["cool=0.25"])
    assert found == Run({"a": {"encoder": "beats"}}, {"cool": "x", "tower": "y"}, 0.25)
    lines = {str(w.message).split(";")[0] for w in said}
    assert lines == {
        "towers: is now called encoders:",
        "cool: is now called decay_fraction:",
        "tower: is now called encoder:",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimiser: {rate: 1}", r"c.yaml: out: missing$"),
        ("out: x", r"c.yaml: optimiser: missing$"),
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
        ("out: 3\noptimiser: {rate: 1}", r"out: expected a string, got 3$"),
        (
            "out: $NOT_SET_ANYWHERE/x\noptimiser: {rate: 1}",
            r"out: \$NOT_SET_ANYWHERE/x names a variable that is not set",
        ),
        ("out: x\noptimiser: {rate: 1}\nsteps: 1.5", r"steps: expected a whole number, got 1.5$"),
        ("out: x\noptimiser: {rate: 1}\nsteps: true", r"steps: expected a whole number, got true$"),
        ("out: x\noptimiser: {rate: 1}\nsteps: 0", r"c.yaml: steps must be positive$"),
        ("out: x\noptimiser: {rate: 1}\ncompile: 1", r"compile: expected true or false, got 1$"),
        ("out: x\noptimiser: {rate: 1}\nseed: x", r"seed: expected a whole number, got 'x'$"),
        ("out: x\noptimiser: {rate: 1}\nlimit: most", r"limit: expected a whole number or 'all', got 'most'$"),
        ("out: x\noptimiser: {rate: 1}\nparts: [{rate: 1}, {}]", r"parts\[1\].rate: missing$"),
        ("out: x\noptimiser: {rate: 1}\nencoders: {text: 3}", r"encoders.text: expected a string or keys and values, got 3$"),
        ("out: x\nout: y\noptimiser: {rate: 1}", r"c.yaml, line 1: not YAML: key 'out' is there twice$"),
        ("out: x\noptimiser: {rate: 1}\npair: [0.9]", r"pair\[1\]: missing$"),
        ("out: x\noptimiser: {rate: 1}\npair: [0.9, 1, 2]", r"pair: expected at most 2 values, got a list$"),
        ("out: x\noptimiser: {rate: 1}\nshare: .nan", r"share: expected (a finite number|at least 0), got nan$"),
        ("out: x\noptimiser: {rate: 1}\nshare: 1.5", r"share: expected at most 1, got 1.5$"),
        (
            "out: x\noptimiser: {rate: 1}\nencoders: {text: }",
            r"encoders.text: expected a string or keys and values, got nothing$",
        ),
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
    @config.schema
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
