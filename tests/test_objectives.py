import math

import pytest
import torch
import torch.nn.functional as F

from unialign_gen.objectives import UniAlign, anchor_alignment, centroid, gram_volume, uniformity


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("tau", [0.07, 0.3, 2.0])
def test_uniformity_is_eq_9_term_by_term(tau):
    z = unit(9, 5)
    total = 0.0
    for i in range(9):
        kernel = [math.exp(-float((z[i] - z[j]).square().sum()) / (2 * tau**2)) for j in range(9) if j != i]
        total += math.log(sum(kernel) / 8)
    assert float(uniformity(z, tau)) == pytest.approx(total / 9, rel=1e-9)


def test_uniformity_gradient_has_both_halves():
    z = unit(6, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: uniformity(x, 0.5), (z,), atol=1e-6)


def test_collapse_is_the_worst_uniformity():
    z = unit(1, 8).expand(16, 8)
    assert float(uniformity(z)) == pytest.approx(0, abs=1e-9)
    assert float(uniformity(unit(16, 8))) < -1


def test_uniformity_in_half_precision_is_computed_in_fp32():
    z = unit(32, 64, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(uniformity(z), uniformity(z.clone()))
        assert float(uniformity(z)) == pytest.approx(float(uniformity(z.double())), rel=1e-5)


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_volume_is_the_square_root_of_the_gram_determinant(m):
    z = [unit(7, 12, seed=s) for s in range(m)]
    stack = torch.stack(z, 1)
    expected = torch.linalg.det(stack @ stack.mT).sqrt()
    assert torch.allclose(gram_volume(z, guard=1e-14), expected, atol=1e-6)


@pytest.mark.parametrize("m", [2, 3, 4])
def test_volume_gradient_is_finite_at_perfect_alignment(m):
    z = [unit(3, 6).requires_grad_() for _ in range(m)]
    gram_volume(z).sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in z)


def test_alignment_and_centroid():
    a, b, c = (unit(5, 6, seed=s) for s in range(3))
    expected = sum(float((a[i] - n[i]).square().sum()) for i in range(5) for n in (b, c)) / 10
    assert float(anchor_alignment(a, [b, c])) == pytest.approx(expected)
    mean = centroid([a, b, c], [0.5, 0.25, 0.25])
    raw = 0.5 * a + 0.25 * b + 0.25 * c
    assert torch.allclose(mean, raw / raw.norm(dim=1, keepdim=True))


def test_unialign_sums_its_parts_and_leaves_the_anchor_alone():
    image, text = unit(8, 6).requires_grad_(), unit(8, 6, seed=1).requires_grad_()
    loss = UniAlign(uniformity_weight=0.5, alignment_weight=2.0, volume_weight=0.1)
    p = loss.parts({"image": image, "text": text})
    total = 0.5 * p["uniformity"] + 2 * p["alignment"] + 0.1 * p["volume"]
    assert loss({"image": image, "text": text}).item() == pytest.approx(total.item())
    p["alignment"].backward()
    assert image.grad is None
    assert text.grad is not None


def test_unialign_names_what_is_missing():
    with pytest.raises(ValueError, match="anchor 'image'"):
        UniAlign()({"text": unit(4, 3)})
    with pytest.raises(ValueError, match="at least 2"):
        uniformity(unit(1, 3))
