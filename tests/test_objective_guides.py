"""What docs/objectives.md offers runs as it stands there: the one-minute example, one's own, other trainers."""

import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from embeddings import batch
from torch.utils.data import DataLoader, TensorDataset

from unialign_gen.objectives import OBJECTIVES, build

DOCS = (Path(__file__).parent.parent / "docs" / "objectives.md").read_text()
CODE = ["\n".join(line[4:] for line in part.splitlines()) for part in re.findall(r"(?:^    .*\n|^\n)+", DOCS, re.M)]


def example(word):
    """The names that the guide's example with this word in it defines."""
    names: dict = {}
    exec(next(c for c in CODE if word in c), names)
    return names


def test_the_one_minute_example():
    widths = {"image": 256, "text": 384, "audio": 512}
    tensors = [torch.randn(16, d) for d in widths.values()]
    exec(next(c for c in CODE if "optimiser" in c), {"batches": [(*tensors, torch.arange(16) > 2)] * 2})
    assert all(f"| `{name}` |" in DOCS for name in OBJECTIVES)


def test_an_objective_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(next(c for c in CODE if "class Cosine" in c).split("objective:")[0])
    monkeypatch.chdir(tmp_path)
    z = batch()
    expected = (1 - F.cosine_similarity(z["image"], z["text"])).mean() ** 2
    assert torch.allclose(build("file:mine.py:Cosine", power=2)(z), expected)


class Pictures(torch.nn.Module):
    """Two towers with what open_clip's trainer expects of a model."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = torch.nn.Linear(12, 8), torch.nn.Linear(6, 8)
        self.logit_scale = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, images, texts):
        return {
            "image_features": F.normalize(self.image(images.flatten(1)), dim=1),
            "text_features": F.normalize(self.text(texts), dim=1),
            "logit_scale": self.logit_scale.exp(),
        }


def test_in_open_clips_trainer():
    """One epoch of its own trainer: parameters end where its own loss brings them."""
    train = pytest.importorskip("open_clip_train.train")
    open_clip = pytest.importorskip("open_clip")
    args = SimpleNamespace(
        device="cpu", precision="fp32", distill=False, accum_freq=1, skip_scheduler=True, grad_clip_norm=None, horovod=False
    )
    args.__dict__.update(rank=0, local_rank=0, log_local=False, log_every_n_steps=1, batch_size=8, world_size=1, wandb=False)
    loader = DataLoader(TensorDataset(torch.randn(16, 3, 2, 2), torch.randn(16, 6)), batch_size=8)
    loader.num_batches, loader.num_samples = 2, 16
    data = {"train": SimpleNamespace(dataloader=loader, set_epoch=lambda epoch: None)}
    ends = []
    for loss in (example("class Loss")["Loss"](), open_clip.ClipLoss()):
        model = Pictures()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        logging.disable(logging.INFO)
        train.train_one_epoch(model, data, loss, 0, optimizer, None, None, None, args)
        logging.disable(logging.NOTSET)
        ends.append(torch.nn.utils.parameters_to_vector(model.parameters()))
    assert torch.allclose(*ends, atol=1e-5)
    assert not torch.allclose(ends[0], torch.nn.utils.parameters_to_vector(Pictures().parameters()), atol=1e-3)


def test_in_lightning(tmp_path):
    lightning = pytest.importorskip("pytorch_lightning")
    model = example("LightningModule")["Aligned"]()
    before = model.text.weight.detach().clone()
    z = torch.randn(32, 256)
    loader = DataLoader(TensorDataset(z, torch.cat([z, z[:, :128]], 1)), batch_size=16)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, **options)
    trainer.fit(model, loader)
    assert trainer.global_step == 4
    assert {"alignment", "uniformity/text"} <= set(trainer.logged_metrics)
    assert not torch.equal(model.text.weight, before)


def test_in_sentence_transformers():
    """For two columns the mean of its own ranking loss in both directions."""
    library = pytest.importorskip("sentence_transformers")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    tokenizers = pytest.importorskip("tokenizers")
    words = {w: i for i, w in enumerate(["[UNK]", "dog", "barks", "cat", "sleeps", "rain", "falls"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model = library.SentenceTransformer(modules=[modules.StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")
    columns = [["dog", "cat", "rain"], ["barks", "sleeps", "falls"]]
    loss = example("class ColumnsLoss")["ColumnsLoss"](model, name="infonce", tau=0.05)
    value = loss([model.preprocess(column) for column in columns])
    value.backward()
    assert all(p.grad is not None for p in model.parameters())
    theirs = losses.MultipleNegativesRankingLoss(model, scale=20.0)
    both = [theirs([model.preprocess(c) for c in order], None) for order in (columns, columns[::-1])]
    assert float(value.detach()) == pytest.approx(float(sum(both).detach()) / 2, rel=1e-5)
