"""`hiposeg`: hierarchical prototype learning (HiPoSeg, ICLR 2026), for pixel labels on two levels.

L = lambda_ce L_ce + lambda_fh L_fh + lambda_hh L_hh + lambda_fl L_fl + lambda_ll L_ll + lambda_align L_align

The paper leaves questions open; each is an option here, with the reasons for its default in docs/fidelity.md. Head and
banks exist in training only: inference is the plain network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.labelmap import IGNORE
from hiposeg_cli.learn.batch import Batch, Output, grid_labels
from hiposeg_cli.learn.losses import align_in, align_out, pixel_cross_entropy, pull, repel
from hiposeg_cli.learn.method import LossTerms, Method, Progress
from hiposeg_cli.learn.prototypes import BatchPrototypes, PrototypeBank, balanced_parents, batch_prototypes, unit
from hiposeg_cli.learn.sampling import PixelSampling, sample_pixels


@dataclass(frozen=True)
class HiPoSegOptions:
    """Open questions of the paper (A1..A18 of docs/fidelity.md) and the weights of its terms."""

    lambda_ce: float = 1.0
    lambda_fh: float = 0.1
    lambda_hh: float = 0.01
    lambda_fl: float = 0.1
    lambda_ll: float = 0.01
    lambda_align: float = 0.1
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
    embed_dim: int = 256
    proj_layers: int = 2
    pixels_per_class: int = 200
    pixel_sampling: PixelSampling = "random"
    reliable_only: bool = False
    start_coarse: float = 0.075
    start_fine: float = 0.225
    start_align: float = 0.375


@dataclass(frozen=True)
class _Pixels:
    """The pixels of one batch taken into the prototype losses: embeddings and both labels (IGNORE where unknown)."""

    z: Tensor
    fine: Tensor
    coarse: Tensor


class HiPoSeg(Method):
    """Both banks, all five prototype terms, the curriculum and the moving average; see the module's head."""

    Options = HiPoSegOptions
    needs: ClassVar[frozenset[str]] = frozenset({"fine", "coarse"})
    options: HiPoSegOptions
    parent: Tensor
    siblings: Tensor
    has_sibling: Tensor

    def __init__(self, hierarchy: Hierarchy, embedding_dim: int, options: HiPoSegOptions) -> None:
        super().__init__(hierarchy, embedding_dim, options)
        _check(options)
        parent = torch.from_numpy(hierarchy.parent)
        siblings = parent[:, None] == parent[None, :]
        self.register_buffer("parent", parent, persistent=False)
        self.register_buffer("siblings", siblings, persistent=False)
        self.register_buffer("has_sibling", siblings.sum(dim=1) > 1, persistent=False)
        self.head = _projection(embedding_dim, options.embed_dim, options.proj_layers)
        self.fine_bank = self._bank(hierarchy.n_fine)
        self.coarse_bank = self._bank(hierarchy.n_coarse)
        self._pending: tuple[BatchPrototypes, BatchPrototypes] | None = None

    def _bank(self, n_classes: int) -> PrototypeBank:
        o = self.options
        return PrototypeBank(
            n_classes, o.embed_dim, momentum=o.ema_momentum, reference_count=o.ema_reference_count, renormalise=o.renormalise
        )

    def losses(self, batch: Batch, output: Output, progress: Progress) -> LossTerms:
        assert batch.fine is not None
        assert batch.coarse is not None
        ce = pixel_cross_entropy(output.full_logits(), batch.fine)
        total, parts = self.options.lambda_ce * ce, {"ce": ce.detach()}
        self._pending = None
        if not any(weight for _, weight, _ in self._schedule()):
            return LossTerms(total, parts)
        with torch.autocast(output.embedding.device.type, enabled=False):
            terms = self._prototype_terms(batch, output, progress)
        for name, weight, _ in self._schedule():
            if name in terms:
                total = total + weight * terms[name]
                parts[name] = terms[name].detach()
        return LossTerms(total, parts)

    def _schedule(self) -> tuple[tuple[str, float, float], ...]:
        """(term, weight, share of the run after which it is active)."""
        o = self.options
        return (
            ("fh", o.lambda_fh, o.start_coarse), ("hh", o.lambda_hh, o.start_coarse), ("fl", o.lambda_fl, o.start_fine),
            ("ll", o.lambda_ll, o.start_fine), ("align", o.lambda_align, o.start_align),
        )  # fmt: skip

    def _prototype_terms(self, batch: Batch, output: Output, progress: Progress) -> dict[str, Tensor]:
        """The active prototype terms; also leaves the batch's prototypes for the moving average."""
        active = {name for name, weight, start in self._schedule() if weight and progress.reached(start)}
        with torch.set_grad_enabled(bool(active) and torch.is_grad_enabled()):
            pixels = self._pixels(batch, output, progress)
        has_fine = pixels.fine != IGNORE
        fine = batch_prototypes(pixels.z[has_fine], pixels.fine[has_fine], self.hierarchy.n_fine)
        coarse = self._coarse_prototypes(pixels, fine)
        self.fine_bank.initialise(fine)
        self.coarse_bank.initialise(coarse)
        if self.options.update == "before":
            self._update(fine, coarse)
        else:
            self._pending = (fine, coarse)
        return self._terms(active, pixels, fine, coarse)

    def _pixels(self, batch: Batch, output: Output, progress: Progress) -> _Pixels:
        """Sample labelled pixels on the network's grid and project their embeddings to unit length."""
        assert batch.fine is not None
        assert batch.coarse is not None
        o = self.options
        fine, coarse = grid_labels(batch.fine, output).flatten(), grid_labels(batch.coarse, output).flatten()
        wrong = None
        if o.pixel_sampling == "hard" or o.reliable_only:
            wrong = (output.logits.detach().argmax(dim=1).flatten() != fine) & (fine != IGNORE)
        keep = coarse != IGNORE
        if o.reliable_only and wrong is not None:
            keep = keep & ~wrong
        classes = torch.where(fine != IGNORE, fine, coarse + self.hierarchy.n_fine)
        index = sample_pixels(classes, keep, wrong, cap=o.pixels_per_class, how=o.pixel_sampling, progress=progress)
        features = output.embedding.float().permute(0, 2, 3, 1).flatten(0, 2)[index]
        return _Pixels(unit(self._project(features)), fine[index], coarse[index])

    def _project(self, features: Tensor) -> Tensor:
        """(N, D0) -> (N, D); batch statistics need two pixels, so one or none goes through the running ones."""
        if len(features) > 1 or not self.head.training:
            projected: Tensor = self.head(features)
            return projected
        self.head.eval()
        projected = self.head(features)
        self.head.train()
        return projected

    def _coarse_prototypes(self, pixels: _Pixels, fine: BatchPrototypes) -> BatchPrototypes:
        if self.options.parent_mean == "balanced":
            return balanced_parents(fine, self.parent, self.hierarchy.n_coarse)
        return batch_prototypes(pixels.z, pixels.coarse, self.hierarchy.n_coarse)

    def _terms(self, active: set[str], pixels: _Pixels, fine: BatchPrototypes, coarse: BatchPrototypes) -> dict[str, Tensor]:
        o, terms = self.options, {}
        blended = o.proto_in_loss == "blended"
        if "fh" in active:
            known = self.coarse_bank.seen[pixels.coarse]  # with balanced parents a coarse-only class has no prototype yet
            terms["fh"] = pull(
                pixels.z[known], pixels.coarse[known], self.coarse_bank.vectors, self.coarse_bank.seen, tau=o.tau_coarse
            )
        if "fl" in active:
            terms["fl"] = self._fine_pull(pixels)
        if active & {"hh", "align"}:
            coarse_vectors = self.coarse_bank.in_loss(coarse, blended=blended)
            everyone = self.coarse_bank.seen[None, :].expand(len(coarse_vectors), -1)
            if "hh" in active:
                terms["hh"] = repel(coarse_vectors, coarse.present, everyone, kappa=o.kappa, form=o.repulsion)
        if active & {"ll", "align"}:
            fine_vectors = self.fine_bank.in_loss(fine, blended=blended)
            if "ll" in active:
                others = self.fine_bank.seen[None, :].expand(len(fine_vectors), -1)
                if o.fine_repulsion == "siblings":
                    others = others & self.siblings
                terms["ll"] = repel(fine_vectors, fine.present, others, kappa=o.kappa, form=o.repulsion)
        if "align" in active:
            terms["align"] = self._align(fine_vectors, coarse_vectors)
        return terms

    def _fine_pull(self, pixels: _Pixels) -> Tensor:
        o, has_fine = self.options, pixels.fine != IGNORE
        z, target, prototypes = pixels.z[has_fine], pixels.fine[has_fine], self.fine_bank.vectors
        allowed: Tensor = self.fine_bank.seen
        if o.fine_softmax != "all":
            allowed = allowed[None, :] & self.siblings[target]
        if o.fine_softmax == "residual":
            base = self.coarse_bank.vectors
            z, prototypes = unit(z - base[self.parent[target]]), unit(prototypes - base[self.parent])
        return pull(z, target, prototypes, allowed, tau=o.tau_fine)

    def _align(self, fine_vectors: Tensor, coarse_vectors: Tensor) -> Tensor:
        o = self.options
        child = fine_vectors.detach() if o.align_stop == "child" else fine_vectors
        above = coarse_vectors.detach() if o.align_stop == "parent" else coarse_vectors
        pairs = self.fine_bank.seen & self.coarse_bank.seen[self.parent] & self.has_sibling
        inner = align_in(
            child, above[self.parent], pairs, sigma=o.sigma_in, distance=o.align_distance, reduction=o.align_reduction
        )
        return inner + align_out(
            coarse_vectors, self.coarse_bank.seen, sigma=o.sigma_out, distance=o.align_distance, reduction=o.align_reduction
        )

    def after_step(self) -> None:
        if self._pending is not None:
            self._update(*self._pending)
            self._pending = None

    def _update(self, fine: BatchPrototypes, coarse: BatchPrototypes) -> None:
        self.fine_bank.update(fine)
        self.coarse_bank.update(coarse)

    def warnings(self) -> list[str]:
        bound = sibling_bound(self.options, self.hierarchy)
        if bound >= 0.9 or self.options.fine_softmax == "residual":
            return []
        return [
            f"siblings are squeezed: inside sigma_in = {self.options.sigma_in} the fine term can give the right one of "
            f"the largest family's children at most probability {bound:.2f} on average - lower tau_fine "
            f"({self.options.tau_fine}), or set align_distance=squared or fine_softmax=residual"
        ]


def sibling_bound(options: HiPoSegOptions, hierarchy: Hierarchy) -> float:
    """Highest mean probability of the right sibling for pixels on their prototypes, once align_in is satisfied.

    K siblings in a cap with cosine c around their parent have a mean squared distance of at most
    2K / (K - 1) (1 - c^2); by convexity of log-sum-exp the geometric-mean probability is at most
    1 / (1 + (K - 1) exp(-mean / tau)).
    """
    K = max(len(hierarchy.children(coarse_id)) for coarse_id in range(hierarchy.n_coarse))
    if K < 2:
        return 1.0
    squared = options.sigma_in if options.align_distance == "squared" else options.sigma_in**2
    cosine = max(0.0, 1 - squared / 2)
    mean = 2 * K / (K - 1) * (1 - cosine**2)
    return 1 / (1 + (K - 1) * math.exp(-mean / options.tau_fine))


def _projection(d_in: int, d_out: int, layers: int) -> nn.Sequential:
    """g: per-pixel linear layers (1x1 convolutions) with batch norm and ReLU between them."""
    modules: list[nn.Module] = []
    for _ in range(layers - 1):
        modules += [nn.Linear(d_in, d_in, bias=False), nn.BatchNorm1d(d_in), nn.ReLU(inplace=True)]
    return nn.Sequential(*modules, nn.Linear(d_in, d_out))


def _check(options: HiPoSegOptions) -> None:
    for name in ("tau_coarse", "tau_fine", "kappa"):
        if getattr(options, name) <= 0:
            raise ConfigError(f"method.{name}", f"is {getattr(options, name)}", "choose a temperature above 0")
    for name in ("embed_dim", "proj_layers", "pixels_per_class"):
        if getattr(options, name) < 1:
            raise ConfigError(f"method.{name}", f"is {getattr(options, name)}", "choose 1 or more")
    if not 0 <= options.ema_momentum <= 1:
        raise ConfigError("method.ema_momentum", f"is {options.ema_momentum}", "choose a value from 0 to 1")
