import copy

import pytest
import torch

from fusion_gym.optimizer import Adam


def network(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in ((4, 3, 2), (5,), (1, 1))]


def losses(weights, step):
    """Something whose gradient changes from step to step and is large at first."""
    return sum(((weight - step) ** 2).sum() * 10 ** (1 - step) for weight in weights)


@pytest.mark.parametrize("limit", [1e9, 0.5])
def test_steps_are_those_of_torch(limit):
    ours, theirs = network(), network()
    adam, torchs = Adam(ours, limit), torch.optim.Adam(theirs, lr=1.0)
    for step in range(5):
        rate = 0.1 / (1 + step)
        losses(ours, step).backward()
        norm = adam.step(rate)
        assert all(weight.grad is None for weight in ours)
        losses(theirs, step).backward()
        torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(theirs, limit))
        torchs.param_groups[0]["lr"] = rate
        torchs.step()
        torchs.zero_grad()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_restored_state_is_independent_and_continues_bit_for_bit():
    first = network()
    adam = Adam(first, 1.0)
    losses(first, 0).backward()
    adam.step(0.1)
    second = copy.deepcopy(first)
    other, state = Adam(second, 1.0), adam.state_dict()
    losses(first, 1).backward()
    adam.step(0.1)
    other.load_state_dict(state)
    losses(second, 1).backward()
    other.step(0.1)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_worker_does_not_load_the_compiler():
    import subprocess
    import sys

    code = (
        "import gymnasium, sys, fusion_gym; env = gymnasium.make('FusionDistillFast-v0', teacher='rule:max', "
        "reference='rule:max'); env.reset(seed=0); env.step(env.action_space.sample()); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
