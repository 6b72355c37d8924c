"""The second decoder's training on the first: states against diffusers' sampler, and a follower whose solution is known."""

import functools

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler

from unialign_gen.checkpoints.recipe import diffusion, distillation, kandinsky, training, unclip

CHANNELS = 4


class Linear(torch.nn.Module):
    """v is linear in the state, the time and the embedding."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.state, self.embed = torch.nn.Linear(CHANNELS, CHANNELS), torch.nn.Linear(CHANNELS, CHANNELS)

    def forward(self, z, t, embeds):
        at = self.state(z.movedim(1, -1)).movedim(-1, 1) + (t / 1000).view(-1, 1, 1, 1)
        return at + self.embed(embeds)[:, :, None, None]


def conditioned(model):
    grey = torch.full((1, CHANNELS), 0.5)
    return diffusion.Conditioned(model, kandinsky.takes(2.0), functools.partial(kandinsky.nothing, grey, 2.0))


@pytest.mark.parametrize(("steps", "guidance"), [(4, 1.0), (5, 3.0)])
def test_states_are_those_of_a_guided_drawing(steps, guidance):
    leader = conditioned(Linear(0))
    embeds = F.normalize(torch.randn(3, CHANNELS), dim=1)
    z = noise = torch.randn(3, CHANNELS, 8, 8)
    seen = distillation.visited(leader, noise, embeds, steps, guidance, torch.Generator())
    assert seen.states.shape == (3 * steps, CHANNELS, 8, 8)
    theirs = DDIMScheduler.from_config(diffusion.scheduler().config)
    theirs.set_timesteps(steps)
    assert seen.times.tolist() == theirs.timesteps.repeat_interleave(3).tolist()
    parts = zip(seen.states.split(3), theirs.timesteps, seen.told.split(3), seen.untold.split(3), strict=True)
    with torch.no_grad():
        for state, t, told, untold in parts:
            torch.testing.assert_close(state, z, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(told, leader.model(z, t, 2 * embeds))
            torch.testing.assert_close(untold, leader.model(z, t, torch.ones(3, CHANNELS)))
            z = theirs.step(untold + guidance * (told - untold), t, z, eta=0.0).prev_sample


def run(folder, samples, lr=0.02):
    generator = torch.Generator().manual_seed(1)
    embeds = F.normalize(torch.randn(20, CHANNELS, generator=generator), dim=1)
    leader, follower = Linear(0), Linear(1)
    distillation.train(
        torch.randn(20, CHANNELS, 8, 8, generator=generator).half(),
        torch.ones(20),
        # pictures say nothing here that the leader does not: what it takes for them is all zero but the bias
        lambda rows, generator: (torch.zeros(len(rows), CHANNELS),),
        diffusion.Neighbours(embeds, ["thing"] * 20),
        conditioned(leader),
        conditioned(follower),
        folder,
        samples=samples,
        minutes=5,
        batch=16,
        lr=lr,
        decay=0.9,
    )
    return leader, follower


def test_a_follower_comes_to_answer_as_its_leader_with_and_without_a_prompt(tmp_path):
    frozen = Linear(0).state_dict()
    leader, follower = run(tmp_path, 16 * 400)
    assert all(torch.equal(a, leader.state_dict()[k]) for k, a in frozen.items())
    z, t = torch.randn(32, CHANNELS, 8, 8), torch.randint(1000, (32,))
    for embeds in (2 * F.normalize(torch.randn(32, CHANNELS), dim=1), torch.ones(32, CHANNELS)):
        with torch.no_grad():
            wanted, got, before = (model(z, t, embeds) for model in (leader, follower, Linear(1)))
        assert float(F.mse_loss(got, wanted)) < 0.1 * float(F.mse_loss(before, wanted))


def test_a_stopped_run_goes_on_as_if_nothing_had_been(tmp_path, monkeypatch):
    whole = run(tmp_path / "a", 64)[1].state_dict()
    steps = iter([True, True, False])
    monkeypatch.setattr(training.Clock, "left", lambda self: next(steps))
    stopped = run(tmp_path / "b", 64)[1].state_dict()
    monkeypatch.undo()
    halves = run(tmp_path / "b", 64)[1].state_dict()
    assert any(not torch.equal(a, stopped[k]) for k, a in whole.items())
    assert all(torch.allclose(a, halves[k], atol=1e-6) for k, a in whole.items())


def test_what_the_second_decoder_takes_is_what_it_is_trained_on():
    """Among its training conditions are those of a prompt in use, at the lowest level, and of no prompt."""
    words = unclip.tokenizer(["a red dog"])
    embeds = F.normalize(torch.randn(4000, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    labels, ids = unclip.takes(words, 4.0)(embeds, torch.Generator().manual_seed(0))
    assert labels.shape == (4000, 32)
    assert float((labels[:, :16] - 4 * embeds).abs().max()) < 0.1  # level 0 of a thousand hardly moves them
    none, blank = unclip.nothing(16, words, 3)
    assert torch.equal(blank, ids[:3])
    conditions = unclip.conditions(diffusion.Neighbours(embeds, ["thing"] * 4000), [["a red dog"]] * 4000, words, 4.0)
    trained, told = conditions(torch.arange(4000), torch.Generator().manual_seed(2))
    dropped = trained.abs().sum(1) == 0
    assert torch.equal(trained[dropped][:3], none)
    assert torch.equal(told[dropped][:3], blank)
    lowest = torch.cdist(trained[~dropped][:, 16:], labels[:1, 16:]).amin(0)
    assert float(lowest) < 0.05
