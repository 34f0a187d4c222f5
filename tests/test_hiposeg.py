"""The HiPoSeg method as a whole: curriculum, gradient reach, degenerate crops, options, and equality with flat."""

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_train import broken_and_resumed, prepared_squares, require_equal_runs, trainer_of
from torch import Tensor
from trees import THREE
from trees import TWO as TREE

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import parse_hierarchy
from hiposeg_cli.labelmap import IGNORE
from hiposeg_cli.learn.batch import Batch, Output, at_cells, grid_labels
from hiposeg_cli.learn.checkpoint import load_weights
from hiposeg_cli.learn.label_check import level_pixels
from hiposeg_cli.learn.method import Context, Progress
from hiposeg_cli.learn.sampling import on_boundary, sample_pixels
from hiposeg_cli.learn.score_losses import ScoreLosses, class_weights, family_log_sum
from hiposeg_cli.methods.flat import Flat, FlatOptions
from hiposeg_cli.methods.hiposeg import HiPoSeg, HiPoSegOptions, sibling_bound
from hiposeg_cli.store import Row

OPTIONS = HiPoSegOptions(embed_dim=16)
SCALE_DIMS = (4, 6)
END = Progress(99, 100)


def labels(seed: int = 0, size: int = 32) -> Tensor:
    """Random fine labels with a few ignored pixels, and the coarse ones above them (1, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, TREE.n_fine, (2, size // 8, size // 8), generator=generator)
    return blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)


def coarse_of(fine: Tensor) -> Tensor:
    return torch.where(fine == IGNORE, IGNORE, torch.from_numpy(TREE.parent)[fine.clamp(min=0)])


def batch_of(fine: Tensor, coarse: Tensor | None = None) -> Batch:
    image = torch.zeros(len(fine), 3, *fine.shape[1:], dtype=torch.uint8)
    return Batch(image, fine, coarse_of(fine) if coarse is None else coarse)


class Features(torch.nn.Module):
    """A stand-in network: one trainable feature map, with classifier and embedding read off it."""

    def __init__(self, size: int = 32, stride: int = 4, dim: int = 8) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.map = torch.nn.Parameter(torch.randn(2, dim, size // stride, size // stride, generator=generator))
        self.classifier = torch.nn.Conv2d(dim, TREE.n_fine, 1)
        self.scales = [
            torch.nn.Parameter(torch.randn(2, d, size // s, size // s, generator=generator))
            for d, s in zip(SCALE_DIMS, (2, 16), strict=True)
        ]
        self.size = size

    def forward(self) -> Output:
        return Output(
            self.classifier(self.map), self.map, (self.size, self.size), (self.size, self.size), tuple(self.scales)
        )


def context_of(hierarchy: Hierarchy) -> Context:
    return Context(SCALE_DIMS, tuple(10 ** np.arange(len(level)) for level in hierarchy.levels))


def method_of(options: HiPoSegOptions = OPTIONS, hierarchy: Hierarchy = TREE) -> HiPoSeg:
    torch.manual_seed(1)
    return HiPoSeg(hierarchy, 8, options, context_of(hierarchy))


def only(**weights: float) -> HiPoSegOptions:
    """Options with every term off but those named."""
    off = {field.name: 0.0 for field in fields(OPTIONS) if field.name.startswith("lambda_")}
    return replace(OPTIONS, **(off | weights))  # type: ignore[arg-type]


# -- curriculum --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("total", "starts"), [(80_000, (6_000, 18_000, 30_000)), (101, (8, 23, 38))])
def test_terms_start_at_the_stated_steps(total: int, starts: tuple[int, int, int]) -> None:
    method, net, batch = method_of(), Features(), batch_of(labels())
    for names, start in zip((("fh", "hh"), ("fl", "ll"), ("align",)), starts, strict=True):
        before = method.losses(batch, net(), Progress(start - 1, total)).parts
        at = method.losses(batch, net(), Progress(start, total)).parts
        for name in names:
            assert name not in before
            assert name in at


def test_banks_fill_before_their_terms_begin() -> None:
    method = method_of()
    method.losses(batch_of(labels()), Features()(), Progress(0, 100))
    method.after_step()
    assert method.banks[0].seen.any()
    assert method.banks[1].seen.any()


# -- gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("term", ["fh", "hh", "fl", "ll", "align"])
@pytest.mark.parametrize("proto_in_loss", ["batch", "blended"])
def test_each_term_alone_reaches_the_network(term: str, proto_in_loss: str) -> None:
    """A bank that is detached everywhere would leave hh, ll and align without a gradient, silently."""
    options = replace(only(**{f"lambda_{term}": 1.0}), proto_in_loss=proto_in_loss, sigma_in=0.0, sigma_out=4.0)  # type: ignore[arg-type]
    method, net = method_of(options), Features()
    method.losses(batch_of(labels()), net(), END).total.backward()
    assert net.map.grad is not None
    assert net.map.grad.abs().sum() > 0


def test_banks_receive_no_gradient_and_are_not_parameters() -> None:
    method = method_of()
    method.losses(batch_of(labels()), Features()(), END).total.backward()
    assert {name for name, _ in method.named_parameters()} == {
        name
        for name in method.state_dict()
        if name.startswith("head.") and "running" not in name and "num_batches" not in name
    }
    assert method.banks[0].vectors.grad is None


def test_the_total_is_linear_in_each_weight() -> None:
    batch = batch_of(labels())
    for name in ("ce", "fh", "hh", "fl", "ll", "align"):
        values = []
        for weight in (0.0, 1.0, 3.0):
            method = method_of(replace(OPTIONS, **{f"lambda_{name}": weight}))  # type: ignore[arg-type]
            values.append(method.losses(batch, Features()(), END).total.item())
        assert values[2] - values[0] == pytest.approx(3 * (values[1] - values[0]), rel=1e-3, abs=1e-5)


def test_without_prototype_terms_the_loss_is_flat_to_the_last_digit() -> None:
    batch, net = batch_of(labels()), Features()
    hiposeg = method_of(only(lambda_ce=1.0)).losses(batch, net(), END).total
    flat = Flat(TREE, 8, FlatOptions()).losses(batch, net(), END).total
    assert torch.equal(hiposeg, flat)


def test_a_term_with_weight_zero_is_not_computed() -> None:
    parts = method_of(replace(OPTIONS, lambda_fl=0.0)).losses(batch_of(labels()), Features()(), END).parts
    assert "fl" not in parts
    assert "fh" in parts


# -- labels ------------------------------------------------------------------------------------------------------------


def test_labels_are_not_written_to() -> None:
    fine = labels()
    fine[:, :4] = IGNORE
    batch = batch_of(fine.clone())
    method_of().losses(batch, Features()(), END)
    assert batch.fine is not None
    assert batch.coarse is not None
    assert torch.equal(batch.fine, fine)
    assert torch.equal(batch.coarse, coarse_of(fine))


def test_embeddings_of_ignored_pixels_have_no_effect() -> None:
    fine = labels()
    fine[:, :16] = IGNORE
    net = Features()
    one = method_of().losses(batch_of(fine), net(), END).total
    with torch.no_grad():
        net.map[:, :, :4] += 0  # leave the logits alone: their upsampling mixes the border row
        poisoned = net.map.clone()
        poisoned[:, :, :3] = 1e3
    output = replace(net(), embedding=poisoned)
    assert torch.equal(one, method_of().losses(batch_of(fine), output, END).total)


def test_coarse_only_pixels_move_coarse_terms_and_never_fine_ones() -> None:
    fine = labels()
    coarse = coarse_of(fine)
    hidden = fine.clone()
    hidden[:, :16] = IGNORE
    net = Features()
    with_coarse = method_of().losses(batch_of(hidden, coarse), net(), END).parts
    without = method_of().losses(batch_of(hidden), net(), END).parts
    assert not torch.equal(with_coarse["fh"], without["fh"])
    options = replace(OPTIONS, pixel_sampling="all")
    # The projection's batch norm sees all pixels, so the fine terms are compared with it off.
    a, b = method_of(replace(options, proj_layers=1)), method_of(replace(options, proj_layers=1))
    fine_with = a.losses(batch_of(hidden, coarse), net(), END).parts["fl"]
    fine_without = b.losses(batch_of(hidden), net(), END).parts["fl"]
    assert torch.allclose(fine_with, fine_without, atol=1e-6)


@pytest.mark.parametrize("case", ["all ignored", "one class", "one pixel", "coarse only"])
def test_degenerate_crops_are_finite_and_trainable(case: str) -> None:
    fine = torch.full((2, 32, 32), IGNORE)
    coarse = None
    if case == "one class":
        fine[:] = 3
    elif case == "one pixel":
        fine[0, 2, 2] = 3
    elif case == "coarse only":
        coarse = torch.full((2, 32, 32), 1)
    method, net = method_of(), Features()
    terms = method.losses(batch_of(fine, coarse), net(), END)
    terms.total.backward()
    assert terms.total.isfinite()
    assert net.map.grad is not None
    assert net.map.grad.isfinite().all()
    if case == "all ignored":
        assert all(value == 0 for value in terms.parts.values())


@pytest.mark.parametrize(
    "change",
    [
        {"parent_mean": "balanced"}, {"align_distance": "euclidean"}, {"align_stop": "parent"}, {"align_stop": "child"},
        {"repulsion": "mean_exp"}, {"repulsion": "margin"}, {"fine_repulsion": "siblings"}, {"fine_softmax": "siblings"},
        {"fine_softmax": "residual"}, {"pixel_sampling": "hard"}, {"pixel_sampling": "all"}, {"reliable_only": True},
        {"update": "before"}, {"renormalise": False}, {"ema_reference_count": 50}, {"align_reduction": "sum"},
        {"proj_layers": 1}, {"proj_layers": 3}, {"pixel_sampling": "boundary"}, {"embedding": "multi-scale"},
        {"class_weights": 0.5}, {"lambda_coarse": 0.5},
    ],
)  # fmt: skip
def test_every_option_trains_on_ordinary_and_degenerate_crops(change: dict[str, Any]) -> None:
    default = method_of().losses(batch_of(labels()), Features()(), END).total
    method, net = method_of(replace(OPTIONS, **change)), Features()
    one_class = torch.full((2, 32, 32), IGNORE)
    one_class[0, 0] = 4
    for step, fine in enumerate((labels(1), one_class, labels(2), torch.full((2, 32, 32), IGNORE))):
        total = method.losses(batch_of(fine), net(), Progress(90 + step, 100)).total
        assert total.isfinite()
        total.backward()
        method.after_step()
    assert default.isfinite()


# -- other numbers of levels --------------------------------------------------------------------------------------------


def by_hand(z: Tensor, target: Tensor, tau: float) -> Tensor:
    """L_f from its equation, over the classes of one batch."""
    prototypes = {int(k): torch.nn.functional.normalize(z[target == k].sum(0), dim=0) for k in target.unique()}
    total = torch.zeros(())
    for vector, own in zip(z, target.tolist(), strict=True):
        scores = {k: torch.exp(-((vector - p) ** 2).sum() / tau) for k, p in prototypes.items()}
        total = total - torch.log(scores[own] / sum(scores.values()))
    return total / len(z)


def test_terms_of_three_levels_are_the_equation_on_each() -> None:
    options = replace(only(lambda_fh=1.0, lambda_fl=1.0), pixel_sampling="all", proj_layers=1)  # type: ignore[arg-type]
    method, net, fine = method_of(options, THREE), Features(size=16), labels(size=16)
    parts = method.losses(batch_of(fine), net(), END).parts
    grid = fine[:, 2::4, 2::4].flatten()  # the pixel nearest to each cell's centre
    z = torch.nn.functional.normalize(method.head(net.map.permute(0, 2, 3, 1).flatten(0, 2)), dim=1)
    objects, kinds = torch.tensor([0, 1, 1, 2, 2, 2])[grid], torch.tensor([0, 1, 1, 1, 1, 1])[grid]
    assert torch.allclose(parts["fl"], by_hand(z, grid, options.tau_fine), atol=1e-4)
    assert torch.allclose(
        parts["fh"], by_hand(z, objects, options.tau_coarse) + by_hand(z, kinds, options.tau_coarse), atol=1e-4
    )


def test_levels_start_one_after_the_other() -> None:
    method, net, batch = method_of(hierarchy=THREE), Features(), batch_of(labels())
    values = [method.losses(batch, net(), Progress(step, 1000)).parts.keys() for step in (74, 75, 149, 150, 225, 375)]
    names = [" ".join(value) for value in values]
    scores = "ce balanced"
    assert names == [scores, *[f"{scores} fh hh"] * 3, f"{scores} fh hh fl ll", f"{scores} fh hh fl ll align"]
    first, second = (method.losses(batch, net(), Progress(step, 1000)).parts["fh"] for step in (149, 150))
    assert second > first, "the middle level joins half way between the coarsest and the finest"


def test_flat_prototypes_know_no_parents() -> None:
    options = replace(OPTIONS, levels="fine")
    method, net, fine = method_of(options), Features(), labels()
    parts = method.losses(batch_of(fine), net(), END).parts
    assert list(parts) == ["ce", "balanced", "fl", "ll"]
    assert len(method.banks) == 1
    for coarse in (torch.zeros_like(fine), torch.full_like(fine, 2)):
        assert method_of(options).losses(batch_of(fine, coarse), net(), END).parts["fl"] == parts["fl"]
    hidden = fine.clone()
    hidden[:, :16] = IGNORE
    partial = replace(batch_of(hidden, coarse_of(fine)), partial=True)
    plain = Flat(TREE, 8, FlatOptions()).losses(partial, net(), END).parts["ce"]
    assert method_of(options).losses(partial, net(), END).parts["ce"] == plain
    assert method_of().losses(partial, net(), END).parts["ce"] != plain


def test_flat_prototypes_ask_for_fine_labels_only() -> None:
    """So a run warns of images that they cannot learn from, as `flat` does."""
    assert method_of(replace(OPTIONS, levels="fine")).needs == {"fine"}
    assert method_of(replace(OPTIONS, levels="fine", lambda_coarse=1.0)).needs == {"fine", "coarse"}
    assert method_of().needs == {"fine", "coarse"}
    fine = labels()
    alone, both = Batch(batch_of(fine).image, fine), batch_of(fine)
    parts = [method_of(replace(OPTIONS, levels="fine")).losses(one, Features()(), END).parts for one in (alone, both)]
    assert parts[0] == parts[1]


def test_reliable_pixels_alone_make_prototypes_but_all_are_pulled() -> None:
    """A13: whether pixels that the network gets wrong enter prototypes; the pixel terms keep them."""
    options = replace(only(lambda_fh=1.0, lambda_fl=1.0), pixel_sampling="all", proj_layers=1)  # type: ignore[arg-type]
    method, net, fine = method_of(replace(options, reliable_only=True)), Features(size=16), labels(size=16)
    output = net()
    grid = grid_labels(fine, output).flatten()
    right = output.logits.argmax(dim=1).flatten() == grid
    assert 0 < right.sum() < len(right)
    parts = method.losses(batch_of(fine), output, END).parts
    z = torch.nn.functional.normalize(method.head(net.map.permute(0, 2, 3, 1).flatten(0, 2)), dim=1)
    parent = torch.from_numpy(TREE.parent)
    for name, depth, tau, target in (("fl", 0, OPTIONS.tau_fine, grid), ("fh", 1, OPTIONS.tau_coarse, parent[grid])):
        bank = method._bank(depth)
        for class_id, seen in enumerate(bank.seen):
            of_class = z[right & (target == class_id)]
            assert bool(seen) == (len(of_class) > 0)
            if seen:
                expected = torch.nn.functional.normalize(of_class.sum(0), dim=0)
                assert torch.allclose(bank.vectors[class_id], expected, atol=1e-5)
        scores = (-(torch.cdist(z, bank.vectors) ** 2) / tau).masked_fill(~bank.seen, -torch.inf)
        has_one = bank.seen[target]
        assert torch.allclose(parts[name], F.cross_entropy(scores[has_one], target[has_one]), atol=1e-4)
    assert not method._bank(0).seen[grid].all(), "some class is never got right: its pixels are left out"


def test_distances_to_prototypes_that_are_not_of_unit_length_are_true_ones() -> None:
    """Without renormalising, a bank's prototypes shrink as its class scatters."""
    method, net, fine = (
        method_of(replace(OPTIONS, renormalise=False, proj_layers=1, pixel_sampling="all")),
        Features(),
        labels(),
    )
    method.losses(batch_of(fine), net(), END)
    for depth in (0, 1):
        method._bank(depth).vectors.mul_(torch.linspace(0.2, 1, len(method._bank(depth).vectors))[:, None])
    parts = method.losses(batch_of(fine), net(), END).parts
    cells = grid_labels(fine, net())
    z = method._pixels(batch_of(fine), net(), torch.arange(cells.numel())).z
    for name, depth, tau, target in (("fl", 0, OPTIONS.tau_fine, cells), ("fh", 1, OPTIONS.tau_coarse, coarse_of(cells))):
        bank = method._bank(depth)
        squared = torch.cdist(z, bank.vectors[bank.seen], compute_mode="donot_use_mm_for_euclid_dist") ** 2
        own = (bank.seen.cumsum(0) - 1)[target.flatten()]
        assert torch.allclose(parts[name], torch.nn.functional.cross_entropy(-squared / tau, own), rtol=1e-4)


# -- partial labels ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden_rows", [0, 8, 32])
def test_partial_cross_entropy_is_the_mean_of_single_pixels(hidden_rows: int) -> None:
    fine = labels()
    coarse = coarse_of(fine)
    fine[:, :hidden_rows] = IGNORE
    fine[:, -2:] = coarse[:, -2:] = IGNORE
    logits = torch.randn(2, TREE.n_fine, 32, 32, generator=torch.Generator().manual_seed(3))
    probability = logits.softmax(dim=1)
    values = []
    for image, y, x in (coarse != IGNORE).nonzero().tolist():
        own = int(fine[image, y, x])
        inside = [own] if own != IGNORE else TREE.children(int(coarse[image, y, x]))
        values.append(-math.log(float(probability[image, inside, y, x].sum())))
    loss = ScoreLosses(TREE)(logits, batch_of(fine, coarse), partial=True, upper=False)["ce"]
    assert math.isclose(float(loss), sum(values) / len(values), rel_tol=1e-5)


@pytest.mark.parametrize("method", [Flat(TREE, 8, FlatOptions(partial_labels=True)), method_of()])
def test_coarse_labels_alone_train_the_network(method: Flat | HiPoSeg) -> None:
    fine, net = labels(), Features()
    batch = replace(batch_of(torch.full_like(fine, IGNORE), coarse_of(fine)), partial=True)
    method.losses(batch, net(), Progress(0, 100)).total.backward()
    assert net.map.grad is not None
    assert net.map.grad.abs().sum() > 0


# -- sampling ----------------------------------------------------------------------------------------------------------


def test_sampling_caps_each_class_and_repeats_with_the_step() -> None:
    classes = torch.tensor([0] * 500 + [1] * 30 + [2] * 500)
    keep = torch.ones(1030, dtype=torch.bool)
    keep[530:] = False
    first = sample_pixels(classes, keep, cap=100, progress=Progress(5, 10))
    assert torch.bincount(classes[first]).tolist() == [100, 30]
    assert torch.equal(first, sample_pixels(classes, keep, cap=100, progress=Progress(5, 10)))
    other = sample_pixels(classes, keep, cap=100, progress=Progress(6, 10))
    assert not torch.equal(first, other)
    assert first[classes[first] == 0].float().mean() > 150  # not the first hundred


@pytest.mark.parametrize(("over", "taken"), [("batch", [20, 10, 20]), ("image", [40, 10, 20])])
def test_pixels_are_capped_over_the_batch_or_in_each_image(over: Literal["batch", "image"], taken: list[int]) -> None:
    """Class 0 covers much of both images, class 1 is small, and class 2 is in one of them."""
    fine = torch.zeros(2, 16, 16, dtype=torch.long)
    fine[0, 0, :10], fine[1, 8:] = 1, 2
    method = method_of(replace(OPTIONS, pixels_per_class=20, sampled_over=over))
    output = Features(size=16, stride=1)()
    cells = method._chosen(batch_of(fine, coarse_of(fine)), output, Progress(5, 10))
    assert torch.bincount(fine.flatten()[cells]).tolist() == taken
    assert len(cells.unique()) == len(cells)


def test_hard_sampling_takes_wrong_pixels_first() -> None:
    classes, keep = torch.zeros(100, dtype=torch.long), torch.ones(100, dtype=torch.bool)
    wrong = torch.zeros(100, dtype=torch.bool)
    wrong[70:80] = True
    chosen = sample_pixels(classes, keep, first=wrong, cap=20, progress=Progress(0, 1))
    assert set(range(70, 80)) <= set(chosen.tolist())
    assert len(chosen) == 20


def test_boundary_cells_have_another_label_beside_them() -> None:
    """Corners count; a cell without a label is neither on a boundary nor makes one."""
    fine = torch.tensor([[[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 5], [IGNORE, 0, 0, 0], [0, 0, 0, 0]]])
    expected = torch.zeros(5, 4, dtype=torch.bool)
    expected[1:4, 2:] = True
    assert torch.equal(on_boundary(fine)[0], expected)
    assert not on_boundary(torch.full((1, 4, 4), IGNORE)).any()


def test_boundary_sampling_takes_boundary_pixels_first() -> None:
    """Each class of 4 x 8 cells has 4 at its edge."""
    fine = torch.tensor([0, 3]).repeat_interleave(8).expand(4, 16)[None]
    full = fine.repeat_interleave(4, 1).repeat_interleave(4, 2)
    image = torch.zeros(1, 3, 16, 64, dtype=torch.uint8)
    batch = Batch(image, full, coarse_of(full))
    embedding = torch.randn(1, 8, 4, 16)
    output = Output(torch.randn(1, TREE.n_fine, 4, 16), embedding, (16, 64), (16, 64))
    method = method_of(replace(OPTIONS, pixel_sampling="boundary", pixels_per_class=4, proj_layers=1))
    z = method._pixels(batch, output, method._chosen(batch, output, END)).z
    edge = embedding[0, :, :, 7:9].flatten(1).T
    assert sorted(z[:, 0].tolist()) == pytest.approx(sorted(method.head(edge)[:, 0].tolist()), abs=1e-6)


# -- embeddings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [4, 8, 16, 5])
def test_features_at_cells_are_those_at_the_cells_centres(side: int) -> None:
    """On its own grid of 8 x 8, a finer and coarser one, and one that does not divide."""
    features, cells = torch.randn(2, 3, side, side), torch.arange(2 * 8 * 8)
    at = (2 * torch.arange(8) + 1) * side // 16
    dense = features[:, :, at[:, None], at[None, :]]
    assert torch.equal(at_cells(features, cells, (8, 8)), dense.permute(0, 2, 3, 1).flatten(0, 2))
    channels_last = features.contiguous(memory_format=torch.channels_last)
    assert torch.equal(at_cells(channels_last, cells, (8, 8)), at_cells(features, cells, (8, 8)))


@pytest.mark.parametrize("embedding", ["decoder", "multi-scale"])
def test_prototype_terms_reach_the_encoder_by_the_scales_that_were_asked_for(embedding: str) -> None:
    method, net = method_of(replace(only(lambda_fl=1.0), embedding=embedding)), Features()  # type: ignore[arg-type]
    assert method.needs_scales == (embedding == "multi-scale")
    assert method.head[0].in_features == 8 + (sum(SCALE_DIMS) if method.needs_scales else 0)
    method.losses(batch_of(labels()), net(), END).total.backward()
    for scale in net.scales:
        assert (scale.grad is not None and bool(scale.grad.abs().sum() > 0)) == method.needs_scales
    assert net.map.grad is not None


# -- upper levels and class weights of the cross entropy ---------------------------------------------------------------


def random_scores(seed: int = 3) -> Tensor:
    return 3 * torch.randn(2, TREE.n_fine, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_family_sums_and_their_gradient_are_those_of_logsumexp() -> None:
    parent = [0, 1, 1, 2, 2, 2]
    scores = torch.randn(1, 6, 2, 3, dtype=torch.float64, requires_grad=True)
    expected = torch.stack([scores[:, torch.tensor(parent) == k].logsumexp(dim=1) for k in range(3)], dim=1)
    assert torch.allclose(family_log_sum(scores, parent, 3), expected)
    assert torch.autograd.gradcheck(lambda x: family_log_sum(x, parent, 3), scores)
    far = torch.tensor([1e4, -1e4, -1e4, 0, 1, 2]).view(1, 6, 1, 1).requires_grad_()
    family_log_sum(far, parent, 3).sum().backward()
    assert far.grad is not None
    assert far.grad.isfinite().all()


def test_coarse_cross_entropy_is_that_of_summed_probabilities_on_every_upper_level() -> None:
    fine = labels()
    fine[:, :4] = IGNORE
    objects = torch.tensor([0, 1, 1, 2, 2, 2, IGNORE])[fine]  # IGNORE is the last
    objects[:, :4], objects[:, -2:], fine[:, -2:] = 1, IGNORE, IGNORE  # on top coarse only, at the bottom nothing
    probability = random_scores().softmax(dim=1)
    by_object = torch.stack([probability[:, :1].sum(1), probability[:, 1:3].sum(1), probability[:, 3:].sum(1)], dim=1)
    by_kind = torch.stack([by_object[:, 0], by_object[:, 1:].sum(1)], dim=1)
    kinds = torch.tensor([0, 1, 1, IGNORE])[objects]
    pairs = ((by_object, objects), (by_kind, kinds))
    expected = torch.stack([F.nll_loss(p.log(), target, ignore_index=IGNORE) for p, target in pairs]).sum()
    batch = batch_of(fine, objects)
    terms = ScoreLosses(THREE)(random_scores(), batch, partial=False, upper=True)
    assert torch.allclose(terms["coarse"], expected, rtol=1e-5)
    assert torch.allclose(terms["ce"], F.cross_entropy(random_scores(), fine, ignore_index=IGNORE))


def test_flat_and_hiposeg_have_the_same_coarse_term_and_weights() -> None:
    batch, net = batch_of(labels()), Features()
    hiposeg = method_of(replace(only(lambda_ce=1.0), lambda_coarse=0.7, class_weights=0.5)).losses(batch, net(), END)
    flat = Flat(TREE, 8, FlatOptions(lambda_coarse=0.7, class_weights=0.5), context_of(TREE)).losses(batch, net(), END)
    assert list(hiposeg.parts) == list(flat.parts) == ["ce", "coarse"]
    assert torch.equal(hiposeg.total, flat.total)
    assert flat.total.item() == pytest.approx((flat.parts["ce"] + 0.7 * flat.parts["coarse"]).item(), rel=1e-6)


def test_flat_gets_coarse_labels_when_a_term_needs_them() -> None:
    """But takes no coarse-only pixel into its own cross entropy without being told."""
    assert Flat(TREE, 8, FlatOptions()).needs == {"fine"}
    method, fine = Flat(TREE, 8, FlatOptions(lambda_coarse=1.0)), labels()
    assert method.needs == {"fine", "coarse"}
    coarse, net = coarse_of(fine), Features()
    fine[:, :16] = IGNORE
    parts = method.losses(replace(batch_of(fine, coarse), partial=True), net(), END).parts
    assert torch.equal(parts["ce"], Flat(TREE, 8, FlatOptions()).losses(batch_of(fine), net(), END).parts["ce"])


def test_class_weights_by_hand() -> None:
    """Four times as rare, twice the weight with exponent 1/2; a class without a pixel weighs 1."""
    pixels = [np.array([400, 100, 0, 25]), np.array([0, 0])]
    weights = class_weights(pixels, 0.5)
    assert weights is not None
    assert [own.tolist() for own in weights] == [[1, 2, 1, 4], [1, 1]]
    assert class_weights(pixels, 0.0) is None


@pytest.mark.parametrize("partial", [False, True])
def test_weighted_cross_entropy_is_the_weighted_mean_of_single_pixels(partial: bool) -> None:
    """Each level by its own weights, a coarse-only pixel by that of its coarse class."""
    fine = labels()
    coarse = coarse_of(fine)
    fine[:, :8] = IGNORE
    weights = [torch.tensor([1.0, 2, 3, 4, 5, 6]), torch.tensor([7.0, 1, 3])]
    probability, scored, top = random_scores().softmax(dim=1), [], []
    for image, y, x in (coarse != IGNORE).nonzero().tolist():
        own, above = int(fine[image, y, x]), int(coarse[image, y, x])
        p = float(probability[image, TREE.children(above), y, x].sum())
        top.append((float(weights[1][above]), -math.log(p)))
        if own != IGNORE:
            scored.append((float(weights[0][own]), -math.log(float(probability[image, own, y, x]))))
        elif partial:
            scored.append(top[-1])
    terms = ScoreLosses(TREE, weights)(random_scores(), batch_of(fine, coarse), partial=partial, upper=True)
    for name, values in (("ce", scored), ("coarse", top)):
        expected = sum(weight * value for weight, value in values) / sum(weight for weight, _ in values)
        assert math.isclose(float(terms[name]), expected, rel_tol=1e-5), name


def test_class_weights_move_the_pixel_terms_and_no_others() -> None:
    batch, net = batch_of(labels()), Features()
    plain = method_of().losses(batch, net(), END).parts
    weighted = method_of(replace(OPTIONS, class_weights=0.5)).losses(batch, net(), END).parts
    assert {name for name in plain if not torch.equal(plain[name], weighted[name])} == {"ce", "fh", "fl"}


def test_pixels_are_counted_on_every_level() -> None:
    def row(fine: dict[str, int], coarse: dict[str, int]) -> Row:
        return Row("a", "train", "a.png", "", 4, 4, "", "", fine, coarse, 0, 0, 1, 0, 0, 0, "masks", [])

    pixels = level_pixels([row({"1": 5, "5": 2}, {"1": 7, "2": 2}), row({"1": 1}, {"0": 3, "1": 1})], THREE)
    assert [own.tolist() for own in pixels] == [[0, 6, 0, 0, 0, 2], [3, 8, 2], [3, 10]]


def test_negative_class_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="class_weights"):
        method_of(replace(OPTIONS, class_weights=-0.5))
    with pytest.raises(ConfigError, match="class_weights"):
        Flat(TREE, 8, FlatOptions(class_weights=-0.5))


# -- a whole run -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_with_every_remedy_saves_the_flat_network_and_resumes_exactly(tmp_path: Path) -> None:
    data = prepared_squares(tmp_path, 8, 2)
    remedies = {
        "method__lambda_coarse": 0.5, "method__class_weights": 0.5, "method__embedding": "multi-scale",
        "method__pixel_sampling": "boundary", "method__pixels_per_class": 20, "optim__iterations": 4,
    }  # fmt: skip
    straight = trainer_of(data, tmp_path / "straight", **remedies)
    straight.run()
    require_equal_runs(straight, broken_and_resumed(trainer_of(data, tmp_path / "broken", **remedies), 2))
    flat = trainer_of(data, tmp_path / "flat", "flat", optim__iterations=1)
    flat.run()
    names = [list(load_weights(run / "weights" / "last.safetensors").tensors) for run in (straight.run_dir, flat.run_dir)]
    assert names[0] == names[1]
    weights = straight.method.get_submodule("score_losses").get_buffer("weights_0")
    assert weights.min() == 1 < weights.max()


# -- options that cannot be --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"start_align": 30_000}, "share of the run"), ({"start_coarse": -0.1}, "share of the run"),
        ({"sigma_in": -1.0}, "0 or more"), ({"ema_reference_count": -5}, "0 or more"),
        ({"ema_momentum": 1.5}, "from 0 to 1"),
        ({"levels": "fine", "fine_softmax": "siblings"}, "needs parents"),
        ({"levels": "fine", "fine_softmax": "residual"}, "needs parents"),
        ({"levels": "fine", "fine_repulsion": "siblings"}, "needs parents"),
        ({"update": "before", "proto_in_loss": "blended"}, "already"),
    ],
    ids=str,
)  # fmt: skip
def test_options_that_contradict_each_other_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        method_of(replace(OPTIONS, **change))


# -- the squeeze on siblings (docs/fidelity.md, R1) --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distance", "tau", "expected"),
    [
        ("euclidean", 0.1, 0.26),
        ("euclidean", 0.05, 0.57),
        ("euclidean", 0.03, 0.89),
        ("squared", 0.2, 0.54),
        ("squared", 0.1, 0.94),
    ],
)
def test_sibling_bound_of_twelve_children(distance: str, tau: float, expected: float) -> None:
    children = "\n".join(f"    - {{name: p{k}, parent: body}}" for k in range(12))
    head = "schema: hiposeg/hierarchy@1\nname: t\nlevels: [fine, coarse]\nclasses:\n  coarse: [{name: body}]\n  fine:\n"
    options = HiPoSegOptions(align_distance=distance, tau_fine=tau)  # type: ignore[arg-type]
    hierarchy = parse_hierarchy(head + children)
    assert sibling_bound(options, 12, tau) == pytest.approx(expected, abs=0.006)
    assert bool(HiPoSeg(hierarchy, 8, options).warnings()) == (expected < 0.9)


def test_upper_levels_are_asked_for_squeezed_siblings_too() -> None:
    """With one sub-class a class, only the coarse classes of one kind can be squeezed."""
    classes = [f"{{name: c{k}, parent: all}}" for k in range(21)]
    leaves = [f"{{name: l{k}, parent: c{k}}}" for k in range(21)]
    hierarchy = parse_hierarchy(
        "schema: hiposeg/hierarchy@1\nname: t\nlevels: [fine, coarse, top]\nclasses:\n  top: [{name: all}]\n"
        f"  coarse: [{', '.join(classes)}]\n  fine: [{', '.join(leaves)}]\n"
    )
    (said,) = HiPoSeg(hierarchy, 8, OPTIONS).warnings()
    assert "level 'coarse'" in said
    assert "lower tau_coarse (0.1)" in said
    assert not HiPoSeg(hierarchy, 8, replace(OPTIONS, tau_coarse=0.05)).warnings()
    assert not HiPoSeg(hierarchy, 8, replace(OPTIONS, lambda_fh=0.0)).warnings()


def test_sibling_bound_holds_for_optimised_siblings() -> None:
    """K points pushed apart inside the cap never exceed the stated mean squared distance."""
    K, squared = 5, 0.25
    cosine = 1 - squared / 2
    generator = torch.Generator().manual_seed(0)
    angles = torch.randn(K, 6, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([angles], lr=0.05)

    def points() -> Tensor:
        side = torch.nn.functional.normalize(angles, dim=1) * math.sqrt(1 - cosine**2)
        return torch.cat([torch.full((K, 1), cosine), side], dim=1)

    for _ in range(200):
        optimizer.zero_grad()
        (-(torch.cdist(points(), points()) ** 2).sum()).backward()
        optimizer.step()
    mean = (torch.cdist(points(), points()) ** 2).sum().item() / (K * (K - 1))
    assert mean <= 2 * K / (K - 1) * (1 - cosine**2) + 1e-4
    assert mean > 0.99 * 2 * K / (K - 1) * (1 - cosine**2)
