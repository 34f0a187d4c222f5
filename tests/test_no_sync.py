"""No loss asks a GPU for a value: that would make the host wait until the GPU has caught up.

Torch's `meta` device stands in for the GPU. Its tensors here do hold values, on the side, so that every step computes; but
what no GPU can answer without waiting raises: a value or a shape that depends on values, and a copy to or from the host
that goes unasked. Where there is a GPU, torch's own detector runs too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from trees import THREE as TREE

from hiposeg_cli.labelmap import IGNORE
from hiposeg_cli.learn.batch import Batch, Output
from hiposeg_cli.learn.method import Context, Method, Progress
from hiposeg_cli.methods.flat import Flat, FlatOptions
from hiposeg_cli.methods.hiposeg import HiPoSeg, HiPoSegOptions
from hiposeg_cli.methods.hssn import HSSN, HSSNOptions

GPU = torch.device("meta")
WAITS = {  # on a GPU the host must know a value or the shape of the result
    "nonzero", "masked_select", "_local_scalar_dense", "is_nonzero", "item", "equal", "bincount", "histc", "unique_dim",
    "_unique", "_unique2", "unique_consecutive", "repeat_interleave", "allclose",
}  # fmt: skip


class Waits(AssertionError):
    """The host would have to wait for the GPU."""


class OnGPU(Tensor):
    """A tensor of the stand-in device; `values` is what it holds."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> OnGPU:
        shell = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, values.shape, strides=values.stride(), dtype=values.dtype, device=GPU, requires_grad=values.requires_grad
        )
        shell.values = values.detach()
        return shell  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return on_gpu(func, args, kwargs or {})


def on_gpu(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator for the stand-in device, or raise."""
    name, flat = func.overloadpacket.__name__, tree_flatten((args, kwargs))[0]
    ours = [one for one in flat if isinstance(one, OnGPU)]
    theirs = [one for one in flat if isinstance(one, Tensor) and not isinstance(one, OnGPU) and one.dim() > 0]
    if name == "_to_copy":
        target = kwargs.get("device") or (GPU if ours else torch.device("cpu"))
        if ours and target.type == "cpu":
            raise Waits("a copy to the host")
        if theirs and not kwargs.get("non_blocking"):
            raise Waits("a blocking copy from the host")
    elif name in WAITS or (name.startswith("index") and any(one.dtype == torch.bool for one in _indices(args))):
        raise Waits(f"{name} needs values of the GPU")
    elif ours and theirs:
        raise Waits(f"{name} mixes tensors of the host and the GPU")
    kwargs = {key: torch.device("cpu") if key == "device" else value for key, value in kwargs.items() if key != "pin_memory"}
    found = func(*_values(args), **_values(kwargs))
    returned = {id(one.values): one for one in ours}  # an operator that works in place returns its own tensor
    return tree_map(lambda one: _wrapped(one, returned), found)


def _wrapped(found: Any, returned: dict[int, OnGPU]) -> Any:
    if not isinstance(found, Tensor):
        return found
    return returned[id(found)] if id(found) in returned else OnGPU(found)


def _indices(args: Any) -> list[Tensor]:
    return [one for one in tree_flatten(args[1:])[0] if isinstance(one, Tensor)] if len(args) > 1 else []


def _values(tree: Any) -> Any:
    return tree_map(lambda one: one.values if isinstance(one, OnGPU) else one, tree)


class StandIn(TorchDispatchMode):
    """Also catches what makes new tensors on the stand-in device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        here = any(isinstance(one, OnGPU) for one in tree_flatten((args, kwargs))[0])
        if here or (kwargs.get("device") is not None and torch.device(kwargs["device"]).type == GPU.type):
            return on_gpu(func, args, kwargs)
        return func(*args, **kwargs)


@contextmanager
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: nullcontext())  # knows no such device
    with StandIn():
        yield


def move(module: nn.Module) -> None:
    """Put the parameters and buffers of a module on the stand-in device."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = OnGPU(parameter)  # type: ignore[assignment]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = OnGPU(buffer)


# -- the detector itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act",
    [
        lambda x: x.nonzero(), lambda x: x[x > 0], lambda x: x.sum().item(), lambda x: float(x[0]), lambda x: x.cpu(),
        lambda x: bool((x > 0).any()), lambda x: x.long().bincount(), lambda x: x[torch.tensor([0])],
        lambda x: x.index_select(0, torch.tensor([0])), lambda x: x.masked_select(x > 0), lambda x: x.tolist(),
        lambda x: torch.zeros(3).to(x.device), lambda x: x.unique(), lambda x: x.numpy(),
    ],
)  # fmt: skip
def test_the_stand_in_notices_what_waits(act: Callable[[Tensor], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    x = OnGPU(torch.arange(3.0))
    with stand_in(monkeypatch), pytest.raises((Waits, RuntimeError, TypeError)):
        act(x)


def test_the_stand_in_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    with stand_in(monkeypatch):
        x = torch.arange(3.0).to(GPU, non_blocking=True)
        y = torch.where(x > 0, x, 7) + torch.ones(3, device=GPU)
        y += x[torch.tensor([2, 1, 0]).to(GPU, non_blocking=True)]
    assert isinstance(y, OnGPU)
    assert y.values.tolist() == [10, 3, 3]


# -- methods -----------------------------------------------------------------------------------------------------------

DIM, SCALE_DIMS, SIZE = 8, (4, 6), 32
CONTEXT = Context(SCALE_DIMS, tuple(np.arange(1, len(level) + 1) for level in TREE.levels))


def hiposeg(**options: Any) -> Callable[[], Method]:
    return lambda: HiPoSeg(TREE, DIM, HiPoSegOptions(embed_dim=8, **options), CONTEXT)


METHODS: dict[str, Callable[[], Method]] = {
    "flat": lambda: Flat(TREE, DIM, FlatOptions(), CONTEXT),
    "flat, all terms": lambda: Flat(
        TREE, DIM, FlatOptions(partial_labels=True, lambda_coarse=1.0, class_weights=0.5, lambda_balanced=1.0), CONTEXT
    ),
    "hiposeg": hiposeg(),
    "hiposeg, all pixels": hiposeg(pixel_sampling="all"),
    "hiposeg, boundary": hiposeg(pixel_sampling="boundary"),
    "hiposeg, one level": hiposeg(levels="fine"),
    "hiposeg, balanced parents": hiposeg(parent_mean="balanced", update="before"),
    "hiposeg, blended": hiposeg(proto_in_loss="blended", ema_reference_count=50, repulsion="margin"),
    "hiposeg, siblings": hiposeg(fine_softmax="siblings", fine_repulsion="siblings", repulsion="mean_exp"),
    "hiposeg, residual": hiposeg(fine_softmax="residual", align_distance="euclidean", align_reduction="sum"),
    "hiposeg, remedies": hiposeg(lambda_coarse=1.0, class_weights=0.5, lambda_balanced=1.0, embedding="multi-scale"),
    "hssn": lambda: HSSN(TREE, DIM, HSSNOptions(embed_dim=8, lambda_balanced=1.0, focal_gamma=2.0), CONTEXT),
}


def batch_and_output() -> tuple[Batch, Output]:
    """Two images, with pixels labelled on the coarse level only and on none, and what a network makes of them."""
    rng = torch.Generator().manual_seed(0)
    fine = torch.randint(0, TREE.n_fine, (2, SIZE, SIZE), generator=rng)
    coarse = torch.from_numpy(TREE.parent)[fine]
    fine[:, :8], coarse[:, :4] = IGNORE, IGNORE
    maps = [torch.randn(2, d, side, side, generator=rng) for d, side in ((DIM, 8), (TREE.n_fine, 8), (4, 16), (6, 4))]
    embedding, logits, *scales = maps
    image = torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8)
    batch = Batch(image, fine, coarse, partial=True)
    return batch, Output(logits, embedding, (SIZE, SIZE), (SIZE, SIZE), tuple(scales))


def moved(output: Output, put: Callable[[Tensor], Tensor]) -> Output:
    embedding = put(output.embedding.clone().requires_grad_())
    return replace(
        output, logits=put(output.logits.clone().requires_grad_()), embedding=embedding,
        scales=tuple(put(scale) for scale in output.scales),
    )  # fmt: skip


@pytest.mark.parametrize("partial", [False, True], ids=["full labels", "partial labels"])
@pytest.mark.parametrize("name", METHODS)
def test_no_loss_waits_for_the_gpu(name: str, partial: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it comes to what it comes to on the host."""
    torch.manual_seed(0)
    method, (batch, output) = METHODS[name](), batch_and_output()
    batch = replace(batch, partial=partial)
    expected = method.losses(batch, moved(output, lambda one: one), Progress(99, 100))
    method = _fresh(name)
    move(method)
    with stand_in(monkeypatch):
        terms = method.losses(batch.to(GPU), moved(output, OnGPU), Progress(99, 100))
        method.after_step()
    assert terms.parts.keys() == expected.parts.keys()
    for key, part in terms.parts.items():
        assert isinstance(part, OnGPU)
        assert torch.allclose(part.values, expected.parts[key], rtol=1e-5), key


def _fresh(name: str) -> Method:
    torch.manual_seed(0)
    return METHODS[name]()


@pytest.mark.parametrize("options", [{"pixel_sampling": "hard"}, {"reliable_only": True}], ids=str)
def test_a_choice_by_predictions_waits_for_them(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As documented; without the wait these options could not work."""
    method, (batch, output) = hiposeg(**options)(), batch_and_output()
    move(method)
    with stand_in(monkeypatch), pytest.raises(Waits, match="copy to the host"):
        method.losses(batch.to(GPU), moved(output, OnGPU), Progress(99, 100))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; the stand-in covers what it can")
@pytest.mark.parametrize("name", METHODS)
def test_no_loss_waits_for_a_genuine_gpu(name: str) -> None:
    method, (batch, output) = _fresh(name).cuda(), batch_and_output()
    device = torch.device("cuda")
    found, on_device = moved(output, lambda one: one.to(device)), batch.pin_memory().to(device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        method.losses(on_device, found, Progress(99, 100)).total.backward()
        method.after_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
