"""Prototype losses against hand computations, loops and their stated limits (docs/fidelity.md)."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hiposeg_cli.labelmap import IGNORE
from hiposeg_cli.learn.losses import align_in, align_out, pull, repel
from hiposeg_cli.learn.prototypes import (
    BatchPrototypes,
    PrototypeBank,
    balanced_parents,
    batch_prototypes,
    similarity,
    unit,
)
from hiposeg_cli.learn.score_losses import pixel_cross_entropy


def random_unit(*shape: int, seed: int = 0) -> Tensor:
    return unit(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


def everyone(n: int) -> Tensor:
    return torch.ones(n, n, dtype=torch.bool)


# -- similarity and prototypes -----------------------------------------------------------------------------------------


def test_unit_is_unit_and_a_zero_vector_has_a_finite_gradient() -> None:
    x = torch.zeros(2, 5)
    x[1] = torch.arange(5.0)
    x.requires_grad_()
    assert torch.allclose(unit(x)[1].norm(), torch.tensor(1.0), atol=1e-6)
    unit(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_similarity_is_minus_the_squared_distance() -> None:
    a, b = random_unit(6, 8), random_unit(4, 8, seed=1)
    assert torch.allclose(similarity(a, b), -(torch.cdist(a, b) ** 2), atol=1e-5)
    assert torch.allclose(similarity(a, a).diagonal(), torch.zeros(6), atol=1e-5)
    assert similarity(a, -a).min() >= -4
    shrunk = b * torch.tensor([0.1, 0.5, 1.0, 2.0])[:, None]
    assert torch.allclose(similarity(a, shrunk, is_unit=False), -(torch.cdist(a, shrunk) ** 2), atol=1e-5)


def test_batch_prototypes_equal_a_loop_and_ignore_pixel_order() -> None:
    z, target = random_unit(50, 7), torch.randint(0, 4, (50,), generator=torch.Generator().manual_seed(3))
    target[target == 2] = 1  # class 2 absent
    got = batch_prototypes(z, target, 5)
    for k in range(5):
        mine = z[target == k]
        assert int(got.counts[k]) == len(mine)
        expected = unit(mine.sum(dim=0)) if len(mine) else torch.zeros(7)
        assert torch.allclose(got.vectors[k], expected, atol=1e-6)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(4))
    assert torch.allclose(batch_prototypes(z[order], target[order], 5).vectors, got.vectors, atol=1e-6)


def test_balanced_parent_counts_each_child_once() -> None:
    """Child 0 has 90 pixels along x, child 1 has 10 along y: the pixel mean leans to x, the balanced one does not."""
    z = torch.zeros(100, 2)
    z[:90, 0] = 1
    z[90:, 1] = 1
    target = torch.tensor([0] * 90 + [1] * 10)
    parent = torch.tensor([0, 0])
    pixel = batch_prototypes(z, parent[target], 1).vectors[0]
    balanced = balanced_parents(batch_prototypes(z, target, 2), parent, 1).vectors[0]
    assert torch.allclose(pixel, unit(torch.tensor([90.0, 10.0])), atol=1e-6)
    assert torch.allclose(balanced, unit(torch.tensor([1.0, 1.0])), atol=1e-6)


def test_balanced_and_pixel_parents_agree_for_equal_counts() -> None:
    z = torch.tensor([[1.0, 0], [0, 1.0]]).repeat(10, 1)
    target, parent = torch.tensor([0, 1]).repeat(10), torch.tensor([0, 0])
    balanced = balanced_parents(batch_prototypes(z, target, 2), parent, 1)
    assert torch.allclose(balanced.vectors, batch_prototypes(z, parent[target], 1).vectors, atol=1e-6)


def batch_of(vectors: Tensor, counts: list[int]) -> BatchPrototypes:
    return BatchPrototypes(vectors, torch.tensor(counts))


def test_first_sight_sets_the_prototype_and_absent_classes_stay_bit_identical() -> None:
    bank = PrototypeBank(3, 4)
    first = batch_of(random_unit(3, 4), [5, 0, 2])
    bank.update(first)
    assert bank.seen.tolist() == [True, False, True]
    assert torch.equal(bank.vectors[1], torch.zeros(4))
    before = bank.vectors.clone()
    bank.update(batch_of(random_unit(3, 4, seed=9), [5, 0, 0]))
    assert torch.equal(bank.vectors[2], before[2])
    assert not torch.equal(bank.vectors[0], before[0])
    assert torch.allclose(bank.vectors[0].norm(), torch.tensor(1.0), atol=1e-6)


@pytest.mark.parametrize(("momentum", "expected"), [(1.0, "old"), (0.0, "new")])
def test_momentum_limits(momentum: float, expected: str) -> None:
    bank = PrototypeBank(1, 4, momentum=momentum)
    old, new = random_unit(1, 4), random_unit(1, 4, seed=5)
    bank.update(batch_of(old, [1]))
    bank.update(batch_of(new, [1]))
    assert torch.allclose(bank.vectors, old if expected == "old" else new, atol=1e-6)


def test_moving_average_by_hand() -> None:
    bank = PrototypeBank(1, 2, momentum=0.9)
    bank.update(batch_of(torch.tensor([[1.0, 0.0]]), [3]))
    bank.update(batch_of(torch.tensor([[0.0, 1.0]]), [3]))
    assert torch.allclose(bank.vectors[0], unit(torch.tensor([0.9, 0.1])), atol=1e-6)


def test_count_aware_momentum_is_monotone_and_still_without_pixels() -> None:
    moved = []
    for count in (1, 10, 100, 1000):
        bank = PrototypeBank(1, 2, momentum=0.5, reference_count=100)
        bank.update(batch_of(torch.tensor([[1.0, 0.0]]), [1000]))
        bank.update(batch_of(torch.tensor([[0.0, 1.0]]), [count]))
        moved.append(float(bank.vectors[0, 1]))
    assert moved[0] < moved[1] < moved[2]
    assert moved[2] == moved[3]
    assert moved[0] < 0.01


# -- cross entropy -----------------------------------------------------------------------------------------------------


def test_ignored_pixels_have_no_effect_and_targets_are_not_written() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    target = torch.randint(0, 3, (1, 4, 4))
    target[0, :2] = IGNORE
    kept = target.clone()
    loss = pixel_cross_entropy(logits, target)
    assert torch.equal(target, kept)
    assert torch.allclose(loss, F.cross_entropy(logits[:, :, 2:], target[:, 2:]))
    loss.backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad[:, :, :2], torch.zeros(1, 3, 2, 4))


def test_all_ignored_is_zero_with_a_gradient() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = pixel_cross_entropy(logits, torch.full((1, 4, 4), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


# -- pixel to prototype ------------------------------------------------------------------------------------------------


def test_pull_equals_cross_entropy_on_scaled_dot_products() -> None:
    """s = 2 a.b - 2, and the constant cancels in the softmax."""
    z, prototypes, target = random_unit(20, 6), random_unit(5, 6, seed=1), torch.arange(20) % 5
    expected = F.cross_entropy(2 * z @ prototypes.T / 0.1, target)
    assert torch.allclose(pull(z, target, prototypes, torch.ones(5, dtype=torch.bool), tau=0.1), expected, atol=1e-5)


def test_pull_is_log_k_when_all_prototypes_coincide() -> None:
    z, prototypes = random_unit(8, 6), random_unit(1, 6, seed=2).expand(7, 6)
    loss = pull(z, torch.zeros(8, dtype=torch.long), prototypes, torch.ones(7, dtype=torch.bool), tau=0.05)
    assert loss.item() == pytest.approx(math.log(7), abs=1e-5)


def test_pull_falls_when_a_pixel_moves_to_its_prototype() -> None:
    prototypes, seen = random_unit(4, 6), torch.ones(4, dtype=torch.bool)
    start = random_unit(1, 6, seed=8)
    target = torch.tensor([2])
    path = [unit((1 - t) * start + t * prototypes[2]) for t in (0.0, 0.3, 0.6, 1.0)]
    losses = [pull(z, target, prototypes, seen, tau=0.1).item() for z in path]
    assert losses == sorted(losses, reverse=True)


def test_unseen_prototype_cannot_change_pull() -> None:
    z, prototypes, target = random_unit(9, 6), random_unit(4, 6, seed=1), torch.arange(9) % 3
    seen = torch.tensor([True, True, True, False])
    other = prototypes.clone()
    other[3] = z[0]
    assert torch.equal(pull(z, target, prototypes, seen, tau=0.1), pull(z, target, other, seen, tau=0.1))


def test_pull_does_not_depend_on_the_numbering_of_classes() -> None:
    z, prototypes, target = random_unit(9, 6), random_unit(4, 6, seed=1), torch.arange(9) % 4
    order = torch.tensor([2, 0, 3, 1])
    seen = torch.ones(4, dtype=torch.bool)
    renumbered = torch.argsort(order)[target]
    assert torch.allclose(pull(z, target, prototypes, seen, tau=0.1), pull(z, renumbered, prototypes[order], seen, tau=0.1))


def test_empty_pull_is_zero_with_a_gradient() -> None:
    z = torch.zeros(0, 6, requires_grad=True)
    loss = pull(z, torch.zeros(0, dtype=torch.long), random_unit(4, 6), torch.ones(4, dtype=torch.bool), tau=0.1)
    loss.backward()
    assert loss.item() == 0


def test_ignored_pixels_do_not_enter_pull() -> None:
    """Not even where no prototype is allowed for them."""
    z, prototypes = random_unit(9, 6), random_unit(4, 6, seed=1)
    target = torch.arange(9) % 4
    known = target != 2
    seen = torch.ones(4, dtype=torch.bool)
    with_ignored = torch.where(known, target, IGNORE)
    free = z.clone().requires_grad_()
    loss = pull(free, with_ignored, prototypes, seen[None, :] & known[:, None], tau=0.1)
    assert torch.allclose(loss, pull(z[known], target[known], prototypes, seen, tau=0.1))
    loss.backward()
    assert free.grad is not None
    assert free.grad.isfinite().all()
    assert free.grad[~known].abs().sum() == 0


def test_weighted_pull_is_the_weighted_mean_of_single_pixels() -> None:
    z, prototypes, target = random_unit(9, 6), random_unit(4, 6, seed=1), torch.arange(9) % 4
    weights, seen = torch.tensor([1.0, 5.0, 2.0, 7.0]), torch.ones(4, dtype=torch.bool)
    each = torch.stack([pull(z[n : n + 1], target[n : n + 1], prototypes, seen, tau=0.1) for n in range(9)])
    expected = (weights[target] * each).sum() / weights[target].sum()
    assert torch.allclose(pull(z, target, prototypes, seen, tau=0.1, weights=weights), expected)


# -- repulsion ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["logsumexp", "mean_exp", "margin"])
def test_a_single_prototype_is_not_repelled(form: str) -> None:
    p = random_unit(1, 6).requires_grad_()
    loss = repel(p, torch.ones(1, dtype=torch.bool), everyone(1), kappa=0.1, form=form)  # type: ignore[arg-type]
    loss.backward()
    assert loss.item() == 0
    assert p.grad is not None
    assert p.grad.isfinite().all()


def test_repulsion_is_log_k_when_k_prototypes_coincide() -> None:
    p = random_unit(1, 6).expand(5, 6)
    assert repel(p, torch.ones(5, dtype=torch.bool), everyone(5), kappa=0.1).item() == pytest.approx(math.log(5), abs=1e-5)


@pytest.mark.parametrize("form", ["logsumexp", "mean_exp", "margin"])
def test_repulsion_drives_near_prototypes_apart(form: str) -> None:
    p = unit(torch.tensor([[1.0, 0.1, 0.0], [1.0, -0.1, 0.0]])).requires_grad_()
    before = (p[0] - p[1]).norm().item()
    repel(p, torch.ones(2, dtype=torch.bool), everyone(2), kappa=0.1, form=form).backward()  # type: ignore[arg-type]
    assert p.grad is not None
    assert p.grad.norm() > 0
    moved = unit((p - 0.01 * p.grad).detach())
    assert (moved[0] - moved[1]).norm().item() > before


def test_repulsion_of_siblings_ignores_other_families() -> None:
    p = random_unit(4, 6)
    family = torch.tensor([0, 0, 1, 1])
    siblings = family[:, None] == family[None, :]
    anchors = torch.ones(4, dtype=torch.bool)
    s = similarity(p, p)
    expected = sum(math.log(1 + math.exp(float(s[i, j]) / 0.1)) for i, j in ((0, 1), (1, 0), (2, 3), (3, 2))) / 4
    assert repel(p, anchors, siblings, kappa=0.1).item() == pytest.approx(expected, abs=1e-5)


# -- alignment ---------------------------------------------------------------------------------------------------------


def at_cosine(cosine: float) -> Tensor:
    return torch.tensor([[cosine, math.sqrt(1 - cosine**2)]])


PARENT = torch.tensor([[1.0, 0.0]])
BOTH = torch.ones(1, dtype=torch.bool)


@pytest.mark.parametrize(("distance", "threshold"), [("euclidean", 0.96875), ("squared", 0.875)])
def test_inner_margin_ends_at_the_stated_cosine(distance: str, threshold: float) -> None:
    inside, outside = at_cosine(threshold + 0.001), at_cosine(threshold - 0.001)
    assert align_in(inside, PARENT, BOTH, sigma=0.25, distance=distance).item() == 0  # type: ignore[arg-type]
    assert align_in(outside, PARENT, BOTH, sigma=0.25, distance=distance).item() > 0  # type: ignore[arg-type]


def test_inner_term_is_linear_beyond_the_margin_and_points_to_the_parent() -> None:
    child = at_cosine(0.5).requires_grad_()
    loss = align_in(child, PARENT, BOTH, sigma=0.25, distance="squared")
    assert loss.item() == pytest.approx(1.0 - 0.25, abs=1e-6)
    loss.backward()
    assert child.grad is not None
    assert (-child.grad @ (PARENT - child.detach()).T).item() > 0


def test_inner_term_averages_only_the_pairs_that_take_part() -> None:
    children, parents = torch.cat([at_cosine(0.5), at_cosine(-1.0)]), PARENT.expand(2, 2)
    pairs = torch.tensor([True, False])
    assert align_in(children, parents, pairs, sigma=0.25, distance="squared").item() == pytest.approx(0.75, abs=1e-6)


@pytest.mark.parametrize("distance", ["squared", "euclidean"])
@pytest.mark.parametrize(("cosine", "active"), [(0.51, True), (0.49, False)])
def test_outer_margin_is_sixty_degrees_in_both_readings(distance: str, cosine: float, active: bool) -> None:
    parents = torch.cat([PARENT, at_cosine(cosine)])
    seen = torch.ones(2, dtype=torch.bool)
    loss = align_out(parents, seen, sigma=1.0, distance=distance)  # type: ignore[arg-type]
    assert (loss.item() > 0) == active
    assert torch.allclose(loss, align_out(parents.flip(0), seen, sigma=1.0, distance=distance))  # type: ignore[arg-type]


@pytest.mark.parametrize("distance", ["squared", "euclidean"])
def test_alignment_gradients_are_finite_where_points_coincide(distance: str) -> None:
    same = PARENT.expand(3, 2).clone().requires_grad_()
    seen = torch.ones(3, dtype=torch.bool)
    loss = align_out(same, seen, sigma=1.0, distance=distance)  # type: ignore[arg-type]
    (loss + align_in(same, same, seen, sigma=0.25, distance=distance)).backward()  # type: ignore[arg-type]
    assert same.grad is not None
    assert same.grad.isfinite().all()


def test_alignment_of_nothing_is_zero() -> None:
    none = torch.zeros(2, dtype=torch.bool)
    vectors = random_unit(2, 4)
    assert align_out(vectors, none, sigma=1.0, distance="squared").item() == 0
    assert align_in(vectors, vectors, none, sigma=0.25, distance="squared").item() == 0
