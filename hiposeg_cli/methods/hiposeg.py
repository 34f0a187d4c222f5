"""`hiposeg`: hierarchical prototype learning (HiPoSeg, ICLR 2026), for pixel labels on any number of levels.

L = lambda_ce L_ce + lambda_fh L_fh + lambda_hh L_hh + lambda_fl L_fl + lambda_ll L_ll + lambda_align L_align

and, as remedies that the paper does not have, lambda_coarse L_coarse + lambda_balanced L_balanced.

L_fl and L_ll belong to the finest level, L_fh and L_hh to every level above it (summed; the paper has one). The paper
leaves questions open; each is an option here, with the reasons for its default in docs/fidelity.md. Head and banks exist
in training only: inference is the plain network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import IGNORE
from hiposeg_cli.learn.batch import Batch, Output, at_cells, grid_labels, on_device
from hiposeg_cli.learn.losses import align_in, align_out, pull, repel
from hiposeg_cli.learn.method import Context, LossTerms, Method, Progress, weighted_sum
from hiposeg_cli.learn.projection import Projection
from hiposeg_cli.learn.prototypes import BatchPrototypes, PrototypeBank, balanced_parents, batch_prototypes, unit
from hiposeg_cli.learn.sampling import balanced_cross_entropy, even_cells, misclassified, on_boundary, sample_pixels
from hiposeg_cli.learn.score_losses import ScoreLosses, class_weights


@dataclass(frozen=True)
class HiPoSegOptions:
    """Open questions of the paper (A1..A18 of docs/fidelity.md), remedies, and the weights of its terms.

    Attributes:
        levels: banks on all levels, or flat prototypes on the finest only, without parents and alignment; then pixels that
            have a coarse label only are left out, unless lambda_coarse takes them in.
        lambda_coarse: weight of the cross entropy of each upper level, through summed probabilities of children, over
            all pixels with a coarse label.
        lambda_balanced: weight of a second cross entropy over `pixels_per_class` random pixels of each class.
        class_weights: exponent a of class weights n_k^-a, where n_k are the training pixels of a class on its level, in
            L_ce, L_coarse, L_fh and L_fl; 0 is none.
        embedding: what is projected: the decoder's features, or these beside the encoder's of every scale at the same
            place.
        pixel_sampling: which pixels of a class are taken: at random; misclassified ones first (hard); those beside
            another fine class first (boundary); all. What depends on predictions, hard and reliable_only, makes the host
            wait for a GPU once a batch.
        sampled_over: whether `pixels_per_class` are taken of the whole batch, so that its classes weigh about the same, or
            of each image.
        reliable_only: prototypes come from the pixels whose leaf the network gets right, and from those with a coarse label
            only; a class has no prototype, and pulls no pixel, before one of its pixels is got right.
    """

    levels: Literal["all", "fine"] = "all"
    lambda_ce: float = 1.0
    lambda_fh: float = 0.1
    lambda_hh: float = 0.01
    lambda_fl: float = 0.1
    lambda_ll: float = 0.01
    lambda_align: float = 0.1
    lambda_coarse: float = 0.0
    lambda_balanced: float = 0.1
    class_weights: float = 0.0
    tau_coarse: float = 0.1
    tau_fine: float = 0.05
    kappa: float = 0.1
    sigma_in: float = 0.25
    sigma_out: float = 1.0
    ema_momentum: float = 0.9
    ema_reference_count: int = 0
    renormalise: bool = True
    update: Literal["after", "before"] = "after"
    parent_mean: Literal["pixel", "balanced"] = "pixel"
    proto_in_loss: Literal["batch", "blended"] = "batch"
    align_distance: Literal["squared", "euclidean"] = "squared"
    align_reduction: Literal["mean", "sum"] = "mean"
    align_stop: Literal["none", "parent", "child"] = "none"
    repulsion: Literal["logsumexp", "mean_exp", "margin"] = "logsumexp"
    fine_repulsion: Literal["all", "siblings"] = "all"
    fine_softmax: Literal["all", "siblings", "residual"] = "all"
    embedding: Literal["decoder", "multi-scale"] = "decoder"
    embed_dim: int = 256
    proj_layers: int = 2
    pixels_per_class: int = 50
    pixel_sampling: Literal["random", "hard", "boundary", "all"] = "random"
    sampled_over: Literal["batch", "image"] = "image"
    reliable_only: bool = False
    start_coarse: float = 0.075
    start_fine: float = 0.225
    start_align: float = 0.375


_LEAST_BOUND = 0.9


@dataclass(frozen=True)
class _Pixels:
    """The pixels of one batch taken into the prototype losses; all have a label on every level but perhaps the finest.

    Attributes:
        z: (N, D) unit-length embeddings.
        labels: (N,) int64 ids on each level, finest first; IGNORE where unknown.
        with_fine: (M,) int64 positions of those with a fine label; None where all have one.
        reliable: positions of those that prototypes come from, with a fine label and in all; None where nothing is
            chosen among them.
    """

    z: Tensor
    labels: tuple[Tensor, ...]
    with_fine: Tensor | None
    reliable: tuple[Tensor, Tensor] | None

    def labelled(self, depth: int) -> tuple[Tensor, Tensor]:
        """Embeddings and ids of those with a label on a level."""
        return self._at(depth, None if depth else self.with_fine)

    def for_prototypes(self, depth: int) -> tuple[Tensor, Tensor]:
        """Embeddings and ids of those that the prototypes of a level come from."""
        return self.labelled(depth) if self.reliable is None else self._at(depth, self.reliable[min(depth, 1)])

    def _at(self, depth: int, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        ids = self.labels[depth]
        return (self.z, ids) if rows is None else (self.z[rows], ids[rows])


class HiPoSeg(Method):
    """A bank a level, all prototype terms, the curriculum and the moving average; see the module's head."""

    Options = HiPoSegOptions
    options: HiPoSegOptions

    def __init__(
        self, hierarchy: Hierarchy, embedding_dim: int, options: HiPoSegOptions, context: Context | None = None
    ) -> None:
        super().__init__(hierarchy, embedding_dim, options, context)
        _check(options)
        self.sizes = [len(level) for level in hierarchy.levels[: 1 if options.levels == "fine" else None]]
        self.needs = frozenset({"fine", "coarse"} if len(self.sizes) > 1 or options.lambda_coarse else {"fine"})
        self.needs_scales = options.embedding == "multi-scale"
        dims = (embedding_dim, *(self.context.scale_dims if self.needs_scales else ()))
        assert not self.needs_scales or len(dims) > 1, "every network has an encoder"
        self.head = Projection(sum(dims), options.embed_dim, options.proj_layers)
        self.banks = nn.ModuleList(
            PrototypeBank(
                size, options.embed_dim, momentum=options.ema_momentum, reference_count=options.ema_reference_count,
                renormalise=options.renormalise,
            )
            for size in self.sizes
        )  # fmt: skip
        self.score_losses = ScoreLosses(hierarchy, class_weights(self.context.class_pixels, options.class_weights))
        self.tree = self.score_losses.tree
        self._pending: list[BatchPrototypes] | None = None

    def _bank(self, depth: int) -> PrototypeBank:
        bank = self.banks[depth]
        assert isinstance(bank, PrototypeBank)
        return bank

    def losses(self, batch: Batch, output: Output, progress: Progress) -> LossTerms:
        o, weights = self.options, self._weights()
        terms: dict[str, Tensor] = self.score_losses(
            output.full_logits(), batch, partial=batch.partial and len(self.sizes) > 1, upper=bool(weights["coarse"])
        )
        has_prototypes = any(weights[name] for name in ("fh", "hh", "fl", "ll", "align"))
        cells = self._chosen(batch, output, progress) if has_prototypes else None
        if weights["balanced"]:
            even = cells if o.pixel_sampling == "random" and o.sampled_over == "batch" else None
            if even is None:
                even = even_cells(batch, output, progress, cap=o.pixels_per_class)
            terms["balanced"] = balanced_cross_entropy(batch, output, even)
        self._pending = None
        if cells is not None:
            with torch.autocast(output.embedding.device.type, enabled=False):
                terms |= self._prototype_terms(batch, output, cells, progress)
        return weighted_sum(terms, weights)

    def _weights(self) -> dict[str, float]:
        o = self.options
        above = len(self.sizes) > 1
        return {
            "ce": o.lambda_ce, "fh": o.lambda_fh * above, "hh": o.lambda_hh * above, "fl": o.lambda_fl, "ll": o.lambda_ll,
            "align": o.lambda_align * above, "balanced": o.lambda_balanced, "coarse": o.lambda_coarse,
        }  # fmt: skip

    def _start(self, depth: int) -> float:
        """Share of the run after which a level takes part: the coarsest first, evenly down to the finest."""
        o, top = self.options, len(self.sizes) - 1
        share = depth / top if top else 1.0
        return share * o.start_coarse + (1 - share) * o.start_fine

    def _prototype_terms(self, batch: Batch, output: Output, cells: Tensor, progress: Progress) -> dict[str, Tensor]:
        """The active prototype terms; also leaves the batch's prototypes for the moving average.

        Args:
            cells: (N,) int64 cells of the grid, on the host.
        """
        weights = self._weights()
        names = {depth: ("fl", "ll") if depth == 0 else ("fh", "hh") for depth in range(len(self.sizes))}
        active = [
            (name, depth) for depth, both in names.items() for name in both
            if weights[name] and progress.reached(self._start(depth))
        ]  # fmt: skip
        aligns = bool(weights["align"]) and progress.reached(self.options.start_align)
        with torch.set_grad_enabled(bool(active or aligns) and torch.is_grad_enabled()):
            pixels = self._pixels(batch, output, cells)
        prototypes = self._batch_prototypes(pixels)
        for depth, found in enumerate(prototypes):
            self._bank(depth).initialise(found)
        if self.options.update == "before":
            self._update(prototypes)
        else:
            self._pending = prototypes
        terms: dict[str, Tensor] = {}
        for name, depth in active:
            term = self._pull(depth, pixels) if name in ("fl", "fh") else self._repel(depth, prototypes)
            terms[name] = terms[name] + term if name in terms else term
        if aligns:
            terms["align"] = self._align(prototypes)
        return {name: terms[name] for name in ("fh", "hh", "fl", "ll", "align") if name in terms}

    def _grids(self, batch: Batch, output: Output) -> tuple[Tensor, ...]:
        """(B, h, w) int64 labels at the network's cells, on the host: fine, and coarse where parents take part."""
        labels = (batch.host.fine, batch.host.coarse)[: len(self.sizes)]
        return tuple(grid_labels(one, output) for one in labels if one is not None)

    def _pixels(self, batch: Batch, output: Output, cells: Tensor) -> _Pixels:
        """Project the embeddings of some cells to unit length."""
        grids = [grid.flatten() for grid in self._grids(batch, output)]
        known, right = grids[0][cells] != IGNORE, None
        if self.options.reliable_only:
            right = ~misclassified(grids[0], output)[cells]
        device = output.embedding.device

        def rows(keep: Tensor) -> Tensor:
            return on_device(keep.nonzero().squeeze(1), device)

        with_fine = None if known.all() else rows(known)
        reliable = None if right is None else (rows(right & known), rows(right))
        cells, *labels = on_device(torch.stack([cells, *(grid[cells] for grid in grids)]), device)
        for depth in range(1, len(self.sizes) - 1):
            labels.append(self.tree.parent(depth)[labels[-1]])
        maps = (output.embedding, *output.scales) if self.needs_scales else (output.embedding,)
        features = [at_cells(one, cells, output.grid) for one in maps]
        return _Pixels(self.head(torch.cat(features, dim=1)), tuple(labels), with_fine, reliable)

    def _chosen(self, batch: Batch, output: Output, progress: Progress) -> Tensor:
        """(N,) int64 labelled cells of the network's grid, on the host as the labels are."""
        o, grids = self.options, self._grids(batch, output)
        fine, flat, upper, first = grids[0], grids[0].flatten(), grids[-1].flatten(), None
        if o.pixel_sampling == "boundary":
            first = on_boundary(fine).flatten()
        if o.pixel_sampling == "hard":
            first = misclassified(flat, output)
        classes = torch.where(flat != IGNORE, flat, upper + self.hierarchy.n_fine)
        if o.sampled_over == "image":
            image = torch.arange(len(fine)).repeat_interleave(fine[0].numel())
            classes = classes + image * (self.hierarchy.n_fine + self.hierarchy.n_coarse)
        cap = None if o.pixel_sampling == "all" else o.pixels_per_class
        return sample_pixels(classes, upper != IGNORE, cap=cap, progress=progress, first=first)

    def _batch_prototypes(self, pixels: _Pixels) -> list[BatchPrototypes]:
        """Prototypes of the batch on each level, finest first."""
        found: list[BatchPrototypes] = []
        for depth, size in enumerate(self.sizes):
            if depth and self.options.parent_mean == "balanced":
                found.append(balanced_parents(found[-1], self.tree.parent(depth - 1), size))
            else:
                found.append(batch_prototypes(*pixels.for_prototypes(depth), size))
        return found

    def _pull(self, depth: int, pixels: _Pixels) -> Tensor:
        """L_fl on the finest level, L_fh above."""
        o, bank, (z, target) = self.options, self._bank(depth), pixels.labelled(depth)
        prototypes, weights = bank.vectors, self.score_losses.weights(depth)
        # Balanced parents of a class that only coarse labels show, and reliable_only: there may be no prototype yet.
        known = torch.where(bank.seen[target], target, IGNORE)
        if depth:
            return pull(z, known, prototypes, bank.seen, tau=o.tau_coarse, weights=weights, is_unit=o.renormalise)
        allowed: Tensor = bank.seen
        if o.fine_softmax != "all":
            allowed = allowed[None, :] & self.tree.siblings(0)[target]
        if o.fine_softmax == "residual":
            base, parent = self._bank(1).vectors, self.tree.parent(0)
            z, prototypes = unit(z - base[parent[target]]), unit(prototypes - base[parent])
        is_unit = o.renormalise or o.fine_softmax == "residual"
        return pull(z, known, prototypes, allowed, tau=o.tau_fine, weights=weights, is_unit=is_unit)

    def _repel(self, depth: int, prototypes: list[BatchPrototypes]) -> Tensor:
        """L_ll on the finest level, L_hh above."""
        o, vectors = self.options, self._in_loss(depth, prototypes)
        others = self._bank(depth).seen[None, :].expand(len(vectors), -1)
        if depth == 0 and o.fine_repulsion == "siblings":
            others = others & self.tree.siblings(0)
        present = prototypes[depth].present
        return repel(vectors, present, others, kappa=o.kappa, form=o.repulsion, is_unit=o.renormalise)

    def _in_loss(self, depth: int, prototypes: list[BatchPrototypes]) -> Tensor:
        return self._bank(depth).in_loss(prototypes[depth], blended=self.options.proto_in_loss == "blended")

    def _align(self, prototypes: list[BatchPrototypes]) -> Tensor:
        """L_align: every class to its direct parent, the classes of each upper level apart; the mean over the levels."""
        o, total = self.options, torch.zeros((), device=prototypes[0].vectors.device)
        how: dict[str, Any] = {"distance": o.align_distance, "reduction": o.align_reduction, "is_unit": o.renormalise}
        for depth in range(len(self.sizes) - 1):
            child, above = self._in_loss(depth, prototypes), self._in_loss(depth + 1, prototypes)
            parent, seen = self.tree.parent(depth), self._bank(depth + 1).seen
            pairs = self._bank(depth).seen & seen[parent] & (self.tree.siblings(depth).sum(dim=1) > 1)
            total = total + align_in(
                child.detach() if o.align_stop == "child" else child,
                (above.detach() if o.align_stop == "parent" else above)[parent],
                pairs, sigma=o.sigma_in, **how,
            )  # fmt: skip
            total = total + align_out(above, seen, sigma=o.sigma_out, **how)
        return total / (len(self.sizes) - 1)

    def after_step(self) -> None:
        if self._pending is not None:
            self._update(self._pending)
            self._pending = None

    def _update(self, prototypes: list[BatchPrototypes]) -> None:
        for depth, found in enumerate(prototypes):
            self._bank(depth).update(found)

    def warnings(self) -> list[str]:
        o, weights, bounds = self.options, self._weights(), []
        for depth, families in enumerate(self.tree.family_sizes[: len(self.sizes) - 1]):
            name, tau = ("tau_coarse", o.tau_coarse) if depth else ("tau_fine", o.tau_fine)
            apart = o.fine_softmax == "residual" and not depth
            if weights["align"] and weights["fh" if depth else "fl"] and not apart:
                bounds.append((sibling_bound(o, max(families), tau), self.hierarchy.levels[depth].name, name, tau))
        bound, level, name, tau = min(bounds, default=(1.0, "", "", 0.0))
        if bound >= _LEAST_BOUND:
            return []
        cures = [f"lower {name} ({tau})"]
        cures += ["set align_distance=squared"] if o.align_distance != "squared" else []
        cures += ["set fine_softmax=residual"] if name == "tau_fine" else []
        return [
            f"siblings are squeezed: inside sigma_in = {o.sigma_in} the pixel term of level {level!r} can give the right "
            f"one of its largest family at most probability {bound:.2f} on average - {', or '.join(cures)}"
        ]


def sibling_bound(options: HiPoSegOptions, n_siblings: int, tau: float) -> float:
    """Highest mean probability of the right sibling for pixels on their prototypes, once align_in is satisfied.

    K siblings in a cap with cosine c around their parent have a mean squared distance of at most
    2K / (K - 1) (1 - c^2); by convexity of log-sum-exp the geometric-mean probability is at most
    1 / (1 + (K - 1) exp(-mean / tau)).

    Args:
        n_siblings: K, the children of one parent.
        tau: temperature of the pixel term that tells them apart.
    """
    K = n_siblings
    if K < 2:
        return 1.0
    squared = options.sigma_in if options.align_distance == "squared" else options.sigma_in**2
    cosine = max(0.0, 1 - squared / 2)
    mean = 2 * K / (K - 1) * (1 - cosine**2)
    return 1 / (1 + (K - 1) * math.exp(-mean / tau))


def _check(options: HiPoSegOptions) -> None:
    for name in ("tau_coarse", "tau_fine", "kappa"):
        if getattr(options, name) <= 0:
            raise ConfigError(f"method.{name}", f"is {getattr(options, name)}", "choose a temperature above 0")
    for name in ("embed_dim", "proj_layers", "pixels_per_class"):
        if getattr(options, name) < 1:
            raise ConfigError(f"method.{name}", f"is {getattr(options, name)}", "choose 1 or more")
    for name in ("sigma_in", "sigma_out", "ema_reference_count"):
        if getattr(options, name) < 0:
            raise ConfigError(f"method.{name}", f"is {getattr(options, name)}", "choose 0 or more")
    for name in ("start_coarse", "start_fine", "start_align"):
        if not 0 <= getattr(options, name) <= 1:
            raise ConfigError(f"method.{name}", f"is {getattr(options, name)}", "choose a share of the run, from 0 to 1")
    if not 0 <= options.ema_momentum <= 1:
        raise ConfigError("method.ema_momentum", f"is {options.ema_momentum}", "choose a value from 0 to 1")
    for name in ("fine_softmax", "fine_repulsion"):
        if getattr(options, name) != "all" and options.levels == "fine":
            what = f"is {getattr(options, name)}, which needs parents"
            raise ConfigError(f"method.{name}", what, f"set method.levels=all, or method.{name}=all")
    if options.update == "before" and options.proto_in_loss == "blended":
        what = "would blend the batch into prototypes that update=before has moved towards it already"
        raise ConfigError("method.proto_in_loss", what, "set method.update=after, or method.proto_in_loss=batch")
