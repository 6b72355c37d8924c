"""A saved aligner in sentence-transformers and in mteb's own evaluator."""

import json

import numpy as np
import pytest
import torch
from conftest import tone, write_wav
from PIL import Image
from typer.testing import CliRunner

from unialign_gen.cli import app
from unialign_gen.loading import open_aligner
from unialign_gen.mixing import mix

RATE = 16000


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Imported when these tests run, not by every process that collects them."""
    for name in ("mteb", "sentence_transformers"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'unialign_gen[mteb]'")


@pytest.fixture(scope="module")
def aligner():
    return open_aligner("starter")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    done = CliRunner().invoke(app, ["eval", "export", "--out", str(folder), "--json"], catch_exceptions=False)
    assert json.loads(done.stdout.strip().splitlines()[-1])["folder"] == str(folder)
    return folder


def sounds():
    return [{"array": tone(1.5, RATE, hz)[:, 0].astype(np.float32), "sampling_rate": RATE} for hz in (220.0, 880.0, 3000.0)]


def test_sentence_transformers_encodes_what_the_aligner_embeds(exported, aligner, tmp_path):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(exported), trust_remote_code=True, device="cpu")
    texts = ["a barking dog", "rain", "a much longer sentence about a red car by the sea"]
    assert np.abs(model.encode(texts) - aligner.embed("text", texts).numpy()).max() < 1e-5
    assert np.abs(model.encode(sounds()) - aligner.embed("audio", sounds()).numpy()).max() < 1e-5
    write_wav(tmp_path / "a.wav", tone(1.0, 22050, 440.0), 22050)
    picture = Image.new("RGB", (90, 60), "red")
    for modality, value in (("audio", str(tmp_path / "a.wav")), ("image", picture)):
        assert np.abs(model.encode([value]) - aligner.embed(modality, [value]).numpy()).max() < 1e-5
    both = model.encode([{"text": "rain", "audio": sounds()[0]}])
    assert np.abs(both - mix([aligner.embed("text", ["rain"]), aligner.embed("audio", sounds()[:1])]).numpy()).max() < 1e-5
    assert model.get_embedding_dimension() == 256
    assert "trust_remote_code=True" in (exported / "README.md").read_text()


def test_without_the_flag_the_class_is_handed_over(exported, aligner):
    from sentence_transformers import SentenceTransformer

    from unialign_gen.sentence_transformer import AlignerModule

    with pytest.raises(ValueError, match=r"unialign_gen\.sentence_transformer\.AlignerModule.*\n.*trust_remote_code=True"):
        SentenceTransformer(str(exported), device="cpu")
    model = SentenceTransformer(modules=[AlignerModule.load(str(exported))], device="cpu")
    assert np.abs(model.encode(["rain"]) - aligner.embed("text", ["rain"]).numpy()).max() < 1e-5


def test_a_folder_of_an_aligner_is_what_was_exported(exported, aligner):
    from unialign_gen.aligner import Aligner

    again = Aligner.from_pretrained(exported)
    assert torch.equal(again.embed("text", ["rain"]), aligner.embed("text", ["rain"]))


def local_task():
    """Classes of sounds that anyone tells apart, as mteb's mock of a sound task lays them out, undecoded."""
    from datasets import Dataset, DatasetDict
    from mteb.mocks.mock_tasks import MockAudioClassification

    class Tones(MockAudioClassification):
        def load_data(self, **_):
            rng = np.random.default_rng(0)
            rows = []
            for i in range(12):
                sound = tone(1.0, RATE, 300.0 + 5 * i)[:, 0] if i % 2 else 0.1 * rng.standard_normal(RATE)
                rows.append({"audio": {"array": sound.astype(np.float32).tolist(), "sampling_rate": RATE}, "label": i % 2})
            self.dataset = DatasetDict({"train": Dataset.from_list(rows[:8]), "test": Dataset.from_list(rows[8:])})
            self.data_loaded = True

    return Tones()


def test_a_local_sound_task_runs_in_mtebs_own_evaluator(tmp_path, monkeypatch):
    monkeypatch.setattr("mteb.get_task", lambda name: {"Tones": local_task()}[name])  # mteb has no door for tasks of one's own
    options = ["--task", "Tones", "--checkpoint", "starter", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ["eval", "mteb", *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (found,) = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert (found["dataset"], found["metric"], found["method"], found["task"], found["value"]) == (
        "MockAudioClassification",
        "accuracy",
        "starter",
        "test",
        1.0,
    )
    assert list((tmp_path / "mteb").rglob("MockAudioClassification.json"))
    assert "MockAudioClassification" in (tmp_path / "report.html").read_text()


def test_video_and_mixes_are_the_aligners(aligner):
    from unialign_gen.eval.mteb import AlignerEncoder

    frames = torch.randint(0, 256, (8, 48, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    encoder = AlignerEncoder(aligner, "starter")
    seen = encoder.encode([{"video": [frames], "id": ["x"]}])
    assert np.allclose(seen, aligner.embed("video", [frames]).numpy(), atol=1e-6)
    together = encoder.encode([{"video": [frames], "audio": sounds()[:1]}])
    expected = mix([aligner.embed("audio", sounds()[:1]), aligner.embed("video", [frames])])
    assert np.allclose(together, expected.numpy(), atol=1e-6)


def test_an_unknown_task_is_one_line(tmp_path):
    done = CliRunner().invoke(app, ["eval", "mteb", "--task", "NoSuchTask", "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "mteb has no such task" in done.output
