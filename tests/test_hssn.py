"""The HSSN baseline: tree-min and tree-triplet against loops, ignored pixels, coarse-only pixels, and equality with flat."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hiposeg_cli.config import Layer
from hiposeg_cli.errors import ConfigError
from hiposeg_cli.hierarchy import Hierarchy, preset_paths
from hiposeg_cli.hierarchy_yaml import load_hierarchy, parse_hierarchy
from hiposeg_cli.labelmap import IGNORE
from hiposeg_cli.learn.batch import Batch, Output
from hiposeg_cli.learn.class_tree import ClassTree
from hiposeg_cli.learn.method import LossTerms, Progress
from hiposeg_cli.learn.tree_losses import Triplets, draw_triplets, tree_min, tree_triplet
from hiposeg_cli.methods.flat import Flat, FlatOptions
from hiposeg_cli.methods.hssn import HSSN, HSSNOptions
from hiposeg_cli.run import build_parts
from hiposeg_cli.run_config import resolve_config

HEAD = "schema: hiposeg/hierarchy@1\nname: toy\n"
TWO = parse_hierarchy(
    HEAD
    + """
levels: [fine, coarse]
classes:
  coarse: [{name: sky}, {name: car}, {name: dog}]
  fine:
    - {name: tail, parent: dog}
    - {name: sky, parent: sky}
    - {name: wheel, parent: car}
    - {name: head, parent: dog}
    - {name: door, parent: car}
    - {name: leg, parent: dog}
"""
)
THREE = parse_hierarchy(
    HEAD
    + """
levels: [part, object, kind]
classes:
  kind: [{name: dead}, {name: alive}]
  object: [{name: dog, parent: alive}, {name: sky, parent: dead}, {name: cat, parent: alive}, {name: car, parent: dead}]
  part:
    - {name: sky, parent: sky}
    - {name: wheel, parent: car}
    - {name: dog head, parent: dog}
    - {name: cat head, parent: cat}
    - {name: door, parent: car}
    - {name: dog leg, parent: dog}
"""
)
OPTIONS = HSSNOptions(embed_dim=8)
END = Progress(99, 100)
SIZE = 12


def random_labels(hierarchy: Hierarchy, seed: int = 0, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Fine and coarse labels in blocks: a third known on both levels, some coarse only, some not at all (2, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, hierarchy.n_fine, (2, size // 2, size // 2), generator=generator)
    fine = blocks.repeat_interleave(2, 1).repeat_interleave(2, 2)
    coarse = torch.from_numpy(hierarchy.parent)[fine]
    fate = torch.rand(fine.shape, generator=generator)
    return fine.masked_fill(fate < 0.4, IGNORE), coarse.masked_fill(fate < 0.2, IGNORE)


def batch_of(labels: tuple[Tensor, Tensor]) -> Batch:
    fine, coarse = labels
    return Batch(torch.zeros(len(fine), 3, *fine.shape[1:], dtype=torch.uint8), fine, coarse)


class Features(torch.nn.Module):
    """A stand-in network without any stride: one trainable feature map, with a classifier read off it."""

    def __init__(self, hierarchy: Hierarchy = TWO, size: int = SIZE, stride: int = 1, dim: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.map = torch.nn.Parameter(torch.randn(2, dim, size // stride, size // stride))
        self.classifier = torch.nn.Conv2d(dim, hierarchy.n_fine, 1)
        self.size = (size, size)

    def forward(self) -> Output:
        return Output(self.classifier(self.map), self.map, self.size, self.size)


def method_of(hierarchy: Hierarchy = TWO, **options: Any) -> HSSN:
    torch.manual_seed(1)
    return HSSN(hierarchy, 8, replace(OPTIONS, **options))


def losses(labels: tuple[Tensor, Tensor], output: Output, hierarchy: Hierarchy = TWO, **options: Any) -> LossTerms:
    return method_of(hierarchy, **options).losses(batch_of(labels), output, END)


def random_scores(hierarchy: Hierarchy, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(2, len(level), SIZE, SIZE, generator=generator) for level in hierarchy.levels]


# -- tree-min ----------------------------------------------------------------------------------------------------------


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slow_tree_min(hierarchy: Hierarchy, scores: list[Tensor], fine: Tensor, coarse: Tensor, gamma: float) -> float:
    """Pixel by pixel and class by class, on probabilities, with the tree walked by names."""
    parent = {
        (v, node.name): (v + 1, str(node.parent)) for v, level in enumerate(hierarchy.levels[:-1]) for node in level.nodes
    }
    classes = [(v, node.name) for v, level in enumerate(hierarchy.levels) for node in level.nodes]

    def lineage(name: tuple[int, str]) -> list[tuple[int, str]]:
        return [name, *(lineage(parent[name]) if name in parent else [])]

    total, labelled = 0.0, 0
    for b, y, x in torch.cartesian_prod(torch.arange(2), torch.arange(SIZE), torch.arange(SIZE)).tolist():
        if coarse[b, y, x] == IGNORE:
            continue
        labelled += 1
        known_fine = fine[b, y, x] != IGNORE
        start = (0, hierarchy.fine.names[fine[b, y, x]]) if known_fine else (1, hierarchy.coarse.names[coarse[b, y, x]])
        truth = set(lineage(start))
        p = {
            (v, node.name): sigmoid(float(scores[v][b, node.id, y, x]))
            for v, level in enumerate(hierarchy.levels)
            for node in level.nodes
        }
        for name in classes:
            weight = 1 / len(hierarchy.levels[name[0]])
            if name in truth:
                least = min(p[above] for above in lineage(name))
                total -= weight * (1 - least) ** gamma * math.log(least)
            elif known_fine or start not in lineage(name):
                most = max(p[below] for below in classes if name in lineage(below))
                total -= weight * most**gamma * math.log(1 - most)
    return total / labelled


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("hierarchy", [TWO, THREE], ids=["two levels", "three levels"])
def test_tree_min_equals_a_loop_over_pixels_and_classes(hierarchy: Hierarchy, gamma: float) -> None:
    fine, coarse = random_labels(hierarchy)
    assert ((fine == IGNORE) & (coarse != IGNORE)).any()
    tree, scores = ClassTree(hierarchy), random_scores(hierarchy)
    got = tree_min(tree, scores, tree.labels(fine, coarse), gamma=gamma)
    assert got.item() == pytest.approx(slow_tree_min(hierarchy, scores, fine, coarse, gamma), rel=1e-5)


def test_tree_min_of_three_classes_by_hand() -> None:
    """One parent with two leaves; the pixel shows the first leaf.

    Leaf a .8 under parent .5: positive with .5. Leaf b .6 is a negative with .6. The parent is a positive with its own .5.
    """
    text = "levels: [fine, coarse]\nclasses:\n  coarse: [{name: p}]\n  fine: [{name: a, parent: p}, {name: b, parent: p}]"
    tree = ClassTree(parse_hierarchy(HEAD + text))
    leaves, parent = torch.tensor([0.8, 0.6]).logit().view(1, 2, 1, 1), torch.tensor([0.5]).logit().view(1, 1, 1, 1)
    zero = torch.zeros(1, 1, 1, dtype=torch.long)
    expected = (-math.log(0.5) - math.log(0.4)) / 2 - math.log(0.5)
    assert tree_min(tree, [leaves, parent], [zero, zero]).item() == pytest.approx(expected, abs=1e-6)


def test_a_parent_that_is_wrong_is_punished_through_its_surest_child() -> None:
    """The pixel is sky; car's own score is low, but its wheel's is high: the parent's negative moves the wheel too."""
    tree = ClassTree(TWO)
    scores = [torch.full((1, 6, 1, 1), -4.0), torch.full((1, 3, 1, 1), -4.0)]
    scores[0][0, 2] = 3.0
    leaf = scores[0].requires_grad_()
    tree_min(tree, scores, [torch.full((1, 1, 1), 1), torch.full((1, 1, 1), 0)]).backward()
    assert leaf.grad is not None
    assert leaf.grad[0, 2].item() == pytest.approx(sigmoid(3) * (1 / 6 + 1 / 3), abs=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_tree_min_is_finite_for_the_surest_scores(gamma: float) -> None:
    fine, coarse = random_labels(TWO)
    scores = [(200 * level.sign()).requires_grad_() for level in random_scores(TWO)]
    tree = ClassTree(TWO)
    loss = tree_min(tree, scores, tree.labels(fine, coarse), gamma=gamma)
    loss.backward()
    assert loss.isfinite()
    assert all(level.grad is not None and level.grad.isfinite().all() for level in scores)


@pytest.mark.parametrize("name", sorted(preset_paths()))
def test_upper_labels_of_every_shipped_tree_follow_from_coarse(name: str) -> None:
    hierarchy = load_hierarchy(preset_paths()[name])
    fine = torch.arange(hierarchy.n_fine).view(1, 1, -1)
    labels = ClassTree(hierarchy).labels(fine, torch.from_numpy(hierarchy.ancestors(1)).view(1, 1, -1))
    for depth, level in enumerate(labels):
        assert level.flatten().tolist() == hierarchy.ancestors(depth).tolist()


# -- tree-triplet ------------------------------------------------------------------------------------------------------


def sampled_pixels(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pixels as a batch's sample has them: all with a parent, some without a leaf (N,)."""
    fine, coarse = random_labels(TWO, seed)
    kept = coarse.flatten() != IGNORE
    return fine.flatten()[kept], coarse.flatten()[kept]


def drawn(fine: Tensor, coarse: Tensor, seed: int = 0) -> Triplets:
    return draw_triplets(fine, coarse, TWO.n_fine, torch.Generator().manual_seed(seed))


def test_partners_are_a_sibling_class_and_another_parent() -> None:
    fine, coarse = sampled_pixels()
    triplets = drawn(fine, coarse)
    a, p, n = (torch.arange(len(fine)), triplets.positive, triplets.negative)
    a, p, n = a[triplets.valid], p[triplets.valid], n[triplets.valid]
    assert (coarse[p] == coarse[a]).all()
    assert (fine[p] != fine[a]).all()
    assert (fine[p] != IGNORE).all()
    assert (coarse[n] != coarse[a]).all()
    # An only child has no sibling class, a pixel without a leaf is no anchor; all others have both kinds of partner here.
    assert torch.equal(triplets.valid, (fine != IGNORE) & (coarse != 0))


def test_every_partner_is_drawn_equally_often() -> None:
    """Ten anchors of one class; their positives are 3 + 2 sibling pixels, their negatives 4, one of them coarse only."""
    fine = torch.tensor([2, 4, 5, 0, 2, IGNORE, 0, 4, 2, 1, IGNORE, 4] + [2] * 7)
    coarse = torch.tensor([1, 1, 2, 2, 1, 2, 2, 1, 1, 0, 1, 1] + [1] * 7)
    counts = {"positive": torch.zeros(len(fine)), "negative": torch.zeros(len(fine))}
    wheel = fine == 2
    for seed in range(400):
        triplets = drawn(fine, coarse, seed)
        for kind, count in counts.items():
            count += torch.bincount(getattr(triplets, kind)[wheel], minlength=len(fine))
    for kind, partners in (("positive", [1, 7, 11]), ("negative", [2, 3, 5, 6, 9])):
        expected = 400 * int(wheel.sum()) / len(partners)
        assert set(counts[kind].nonzero().flatten().tolist()) == set(partners)
        assert counts[kind][partners].sub(expected).abs().max().item() < 5 * math.sqrt(expected)


def slow_tree_triplet(z: Tensor, fine: Tensor, triplets: Triplets, margin: float) -> float:
    per_class = []
    for leaf in range(TWO.n_fine):
        values = []
        for a in range(len(z)):
            if triplets.valid[a] and fine[a] == leaf:
                near, far = (1 - float(z[a] @ z[partner[a]]) for partner in (triplets.positive, triplets.negative))
                values.append(max(0.0, near - far + margin))
        if values:
            per_class.append(sum(values) / len(values))
    return sum(per_class) / len(per_class)


def test_tree_triplet_equals_a_loop() -> None:
    fine, coarse = sampled_pixels()
    z = F.normalize(torch.randn(len(fine), 5, generator=torch.Generator().manual_seed(2)), dim=1)
    triplets = drawn(fine, coarse)
    got = tree_triplet(z, fine, triplets, TWO.n_fine, margin=0.6)
    assert got.item() == pytest.approx(slow_tree_triplet(z, fine, triplets, 0.6), rel=1e-5)


@pytest.mark.parametrize(("siblings", "others", "expected"), [(1.0, 0.3, 0.0), (1.0, 0.5, 0.1), (0.5, 0.5, 0.6)])
def test_tree_triplet_by_hand(siblings: float, others: float, expected: float) -> None:
    """Cosine to the sibling's pixel and to the other parent's, around the margin of .6."""
    z = torch.tensor([[1.0, 0.0], [siblings, math.sqrt(1 - siblings**2)], [others, -math.sqrt(1 - others**2)]])
    triplets = Triplets(torch.tensor([1, 0, 0]), torch.tensor([2, 0, 0]), torch.tensor([True, False, False]))
    got = tree_triplet(z, torch.tensor([2, 4, 0]), triplets, TWO.n_fine, margin=0.6)
    assert got.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("fine", [[2, 2, 2], [2, 4, 4], [1, 1, 0], [IGNORE, 4, 0], []], ids=str)
def test_without_partners_tree_triplet_is_zero_with_a_gradient(fine: list[int]) -> None:
    """One class; one parent; an only child; siblings without a leaf; nothing at all."""
    leaves = torch.tensor(fine, dtype=torch.long)
    coarse = torch.where(leaves == IGNORE, 1, torch.from_numpy(TWO.parent)[leaves.clamp(min=0)])
    z = F.normalize(torch.randn(len(fine), 4), dim=1).requires_grad_()
    loss = tree_triplet(z, leaves, drawn(leaves, coarse), TWO.n_fine, margin=0.6)
    loss.backward()
    assert loss.item() == 0
    assert z.grad is not None
    assert z.grad.abs().sum() == 0


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.0), (20_000, 0.25 * (1 + math.cos(-0.75 * math.pi))), (40_000, 0.25), (80_000, 0.5)]
)
def test_the_triplet_weight_grows_as_published(step: int, expected: float) -> None:
    """(1/4) (1 + cos((t - T) / T pi)), from 0 to .5 over the whole run."""
    assert method_of().triplet_weight(Progress(step, 80_000)) == pytest.approx(expected, abs=1e-9)


def test_the_triplet_weight_can_start_late_and_grow_fast() -> None:
    def weights(start: float, growth: float) -> list[float]:
        method = method_of(triplet_start=start, triplet_growth=growth, lambda_triplet=1.0)
        return [round(method.triplet_weight(Progress(step, 100)), 6) for step in (0, 19, 20, 30, 40, 99)]

    assert weights(0.2, 0.2) == [0, 0, 0, 0.5, 1, 1]
    assert weights(0.2, 0.0) == [0, 0, 1, 1, 1, 1]


# -- the method --------------------------------------------------------------------------------------------------------


def test_the_total_is_the_weighted_sum_of_its_parts() -> None:
    terms = losses(random_labels(THREE), Features(THREE)(), THREE, lambda_tree_min=3.0, lambda_parent_ce=0.7)
    weights = {"ce": 1.0, "parent_ce": 0.7, "tree_min": 3.0, "triplet": method_of().triplet_weight(END)}
    assert set(terms.parts) == set(weights)
    expected = sum(weights[name] * value.item() for name, value in terms.parts.items())
    assert terms.total.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("hierarchy", [TWO, THREE], ids=["two levels", "three levels"])
def test_cross_entropy_of_the_upper_levels(hierarchy: Hierarchy) -> None:
    """On a coarser grid too: parent scores are upsampled as the leaves' are."""
    fine, coarse = random_labels(hierarchy)
    output, method = Features(hierarchy, stride=4)(), method_of(hierarchy)
    upper = F.interpolate(method.parents(output.embedding), size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(upper[:, : hierarchy.n_coarse], coarse, ignore_index=IGNORE)
    if hierarchy is THREE:  # dog and cat are alive, sky and car are dead
        kind = torch.tensor([1, 0, 1, 0, IGNORE])[coarse]
        expected = expected + F.cross_entropy(upper[:, 4:], kind, ignore_index=IGNORE)
    got = method.losses(batch_of((fine, coarse)), output, END).parts["parent_ce"]
    assert torch.allclose(got, expected)


def test_without_its_own_terms_the_loss_is_flat_to_the_last_digit() -> None:
    labels, net = random_labels(TWO), Features()
    off = dict.fromkeys(("lambda_parent_ce", "lambda_tree_min", "lambda_triplet"), 0.0)
    terms = losses(labels, net(), **off)
    assert set(terms.parts) == {"ce"}
    assert torch.equal(terms.total, Flat(TWO, 8, FlatOptions()).losses(batch_of(labels), net(), END).total)


@pytest.mark.parametrize("partial", [False, True])
def test_shared_options_mean_what_they_mean_for_flat(partial: bool) -> None:
    """The class-balanced term, and coarse-only pixels in the cross entropy, whose batches say that they hold some."""
    batch, net = replace(batch_of(random_labels(TWO)), partial=partial), Features()
    off = dict.fromkeys(("lambda_parent_ce", "lambda_tree_min", "lambda_triplet"), 0.0)
    hssn = method_of(**off, lambda_balanced=0.3).losses(batch, net(), END)
    flat = Flat(TWO, 8, FlatOptions(partial_labels=partial, lambda_balanced=0.3)).losses(batch, net(), END)
    assert torch.equal(hssn.total, flat.total)
    assert torch.equal(hssn.parts["ce"], flat.parts["ce"])


@pytest.mark.parametrize("term", ["parent_ce", "tree_min", "triplet", "balanced"])
def test_each_term_alone_reaches_the_network_and_its_head(term: str) -> None:
    off = dict.fromkeys(("lambda_ce", "lambda_parent_ce", "lambda_tree_min", "lambda_triplet"), 0.0)
    method, net = method_of(**(off | {f"lambda_{term}": 1.0})), Features()
    method.losses(batch_of(random_labels(TWO)), net(), END).total.backward()
    heads = {"triplet": method.projection[-1].weight, "balanced": net.classifier.weight}
    for parameter in (net.map, heads.get(term, method.parents.weight)):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_triplets_see_the_direction_of_embeddings_only() -> None:
    """Cosine distance: the length of the projected embeddings does not matter."""
    batch, output, method = batch_of(random_labels(TWO)), Features()(), method_of()
    one = method.losses(batch, output, END).parts["triplet"]
    with torch.no_grad():
        method.projection[-1].weight *= 3
        method.projection[-1].bias *= 3
    assert torch.allclose(method.losses(batch, output, END).parts["triplet"], one, atol=1e-5)


def test_the_same_step_draws_the_same_triplets_and_another_step_others() -> None:
    labels, output = random_labels(TWO), Features()()
    values = [method_of().losses(batch_of(labels), output, Progress(s, 100)).parts["triplet"] for s in (50, 50, 51)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


def test_the_loss_does_not_depend_on_the_numbering_of_classes() -> None:
    """The same tree with both levels listed in another order, scores and labels renumbered alike."""
    document = """
levels: [fine, coarse]
classes:
  coarse: [{name: dog}, {name: sky}, {name: car}]
  fine:
    - {name: door, parent: car}
    - {name: leg, parent: dog}
    - {name: sky, parent: sky}
    - {name: tail, parent: dog}
    - {name: wheel, parent: car}
    - {name: head, parent: dog}
"""
    other = parse_hierarchy(HEAD + document)
    fine, coarse = random_labels(TWO)
    scores = random_scores(TWO)
    to_new = [torch.tensor([b.find(name) for name in a.names]) for a, b in zip(TWO.levels, other.levels, strict=True)]
    labels = [torch.where(y == IGNORE, IGNORE, new[y.clamp(min=0)]) for y, new in zip((fine, coarse), to_new, strict=True)]
    renumbered = [level[:, new.argsort()] for level, new in zip(scores, to_new, strict=True)]
    one, two = tree_min(ClassTree(TWO), scores, [fine, coarse]), tree_min(ClassTree(other), renumbered, labels)
    assert torch.allclose(one, two, atol=1e-6)
    leaves, parents = sampled_pixels()
    triplets = drawn(leaves, parents)
    z = F.normalize(torch.randn(len(leaves), 5), dim=1)
    new_leaves = torch.where(leaves == IGNORE, IGNORE, to_new[0][leaves.clamp(min=0)])
    a, b = (tree_triplet(z, y, triplets, TWO.n_fine, margin=0.6) for y in (leaves, new_leaves))
    assert torch.allclose(a, b, atol=1e-6)


def test_bfloat16_features_give_a_float32_loss() -> None:
    output = Features()()
    half = replace(output, logits=output.logits.bfloat16(), embedding=output.embedding.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = losses(random_labels(TWO), half)
    assert terms.total.dtype == torch.float32
    full = losses(random_labels(TWO), output)
    assert terms.total.item() == pytest.approx(full.total.item(), rel=0.05)


# -- labels ------------------------------------------------------------------------------------------------------------


def test_labels_are_not_written_to() -> None:
    fine, coarse = random_labels(TWO)
    batch = batch_of((fine.clone(), coarse.clone()))
    method_of().losses(batch, Features()(), END).total.backward()
    assert torch.equal(batch.fine, fine)  # type: ignore[arg-type]
    assert torch.equal(batch.coarse, coarse)  # type: ignore[arg-type]


def test_pixels_without_a_label_have_no_effect_on_loss_or_gradient() -> None:
    """The fault of the public code, which trains them as class 0: whatever the network shows there must not matter."""
    labels, net = random_labels(TWO), Features()
    void = (labels[1] == IGNORE)[:, None]
    assert void.any()
    results = []
    for poison in (0.0, 50.0):
        net.zero_grad()
        with torch.no_grad():
            net.map += poison * void
        terms = losses(labels, net())
        terms.total.backward()
        assert net.map.grad is not None
        assert (net.map.grad * void).abs().sum() == 0
        results.append((terms.total.detach(), net.map.grad.clone()))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_coarse_only_pixels_train_parents_and_leaves_of_other_parents() -> None:
    """A pixel known to be a car: its wheel and door scores may be anything the car's own score bounds."""
    tree = ClassTree(TWO)
    scores = [level[:, :, :1, :1].clone().requires_grad_() for level in random_scores(TWO)]
    labels = [torch.full((2, 1, 1), IGNORE), torch.full((2, 1, 1), 1)]
    tree_min(tree, scores, labels).backward()
    leaves, parents = (level.grad.abs().sum(dim=(0, 2, 3)) for level in scores if level.grad is not None)
    own = torch.from_numpy(TWO.parent) == 1
    assert (leaves[own] == 0).all()
    assert (leaves[~own] > 0).all()
    assert parents[1] > 0


def test_coarse_only_pixels_are_never_a_sibling_class() -> None:
    """Wheels, sky, and car pixels without a part, which may well be wheels."""
    fine, coarse = all_ignored()
    fine[:, :4], coarse[:, :8] = 2, 1
    fine[:, 8:], coarse[:, 8:] = 1, 0
    assert losses((fine, coarse), Features()()).parts["triplet"] == 0
    fine[:, 4:8] = 4
    assert losses((fine, coarse), Features()()).parts["triplet"] > 0


def all_ignored() -> tuple[Tensor, Tensor]:
    return torch.full((2, SIZE, SIZE), IGNORE), torch.full((2, SIZE, SIZE), IGNORE)


def one_class() -> tuple[Tensor, Tensor]:
    return torch.full((2, SIZE, SIZE), 3), torch.full((2, SIZE, SIZE), 2)


def one_parent() -> tuple[Tensor, Tensor]:
    fine, coarse = one_class()
    fine[:, :4] = 0
    return fine, coarse


def one_pixel() -> tuple[Tensor, Tensor]:
    fine, coarse = all_ignored()
    fine[0, 2, 2], coarse[0, 2, 2] = 3, 2
    return fine, coarse


def coarse_only() -> tuple[Tensor, Tensor]:
    return all_ignored()[0], torch.full((2, SIZE, SIZE), 1)


@pytest.mark.parametrize("crop", [all_ignored, one_class, one_parent, one_pixel, coarse_only])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_degenerate_crops_are_finite_and_trainable(crop: Callable[[], tuple[Tensor, Tensor]], gamma: float) -> None:
    method, net = method_of(focal_gamma=gamma), Features()
    terms = method.losses(batch_of(crop()), net(), END)
    terms.total.backward()
    assert terms.total.isfinite()
    assert terms.parts["triplet"] == 0
    for parameter in (net.map, *method.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    if crop is all_ignored:
        assert all(value == 0 for value in terms.parts.values())
        assert net.map.grad.abs().sum() == 0  # type: ignore[union-attr]


# -- options and start -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [("embed_dim", 0), ("pixels_per_class", 0), ("focal_gamma", -1.0), ("triplet_growth", 2.0), ("triplet_start", -0.1)],
)
def test_options_out_of_range_are_named(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=option):
        method_of(**{option: value})


def test_every_method_starts_from_the_same_network(tmp_path: Path) -> None:
    nets = []
    for method in ("flat", "hssn"):
        settings = {"data.path": str(tmp_path), "method.name": method, "net.architecture": "fpn"}
        nets.append(build_parts(resolve_config([Layer("--test", settings)]), TWO, pretrained=False).net.state_dict())
    assert list(nets[0]) == list(nets[1])
    assert all(torch.equal(tensor, nets[1][name]) for name, tensor in nets[0].items())
