"""A trained network as a graph of its own: what is traced, how it is written, and what must hold before it is kept.

The graph takes (B, 3, H, W) uint8 RGB pictures of any number and size and gives (B, F, h, w) float32 leaf scores on the
network's own grid, as `SegmentationNet` does: scaling and padding are inside, bringing scores to a photo's size is not, so
that predict decodes a graph as it decodes a network, bit for bit.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hiposeg_cli.errors import ConfigError, DataError, OutputError
from hiposeg_cli.infer.description import description
from hiposeg_cli.infer.model import Model
from hiposeg_cli.infer.onnx_net import INPUT, OUTPUT, OnnxNet
from hiposeg_cli.infer.traceable import Graph
from hiposeg_cli.learn.augment import resize_long_side
from hiposeg_cli.learn.batch import Output
from hiposeg_cli.learn.upsample import Scores
from hiposeg_cli.nets.net import STRIDE_PX, SegmentationNet

MOST_DIFFERING = 1e-4  # of all pixels may get another class
LARGEST_DIFFERENCE = 1e-3  # between scores, of the largest score


def trace(model: Model) -> torch.export.ExportedProgram:
    """The graph of a model, on the CPU in float32, for pictures of any number and size."""
    net = network_of(model)
    example = torch.zeros((2, 3, 5 * STRIDE_PX + 1, 4 * STRIDE_PX + 3), dtype=torch.uint8)
    free = torch.export.Dim.DYNAMIC
    with torch.no_grad():
        return torch.export.export(Graph(net), (example,), dynamic_shapes=({0: free, 2: free, 3: free},), strict=False)


def network_of(model: Model) -> SegmentationNet:
    """The network of a model. Raises ConfigError for one that is a graph already."""
    if not isinstance(model.net, SegmentationNet):
        raise ConfigError(model.checkpoint.path, "is exported already", "name the run or the .safetensors file it is of")
    return model.net


# -- the check ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Agreement:
    """How far a graph agrees with the network it is of, over pictures of several sizes.

    Attributes:
        n_differing: of `n_pixels` those with another class.
        largest_difference: between two scores; `largest_score` is that of the network.
    """

    n_pictures: int
    n_pixels: int
    n_differing: int
    largest_difference: float
    largest_score: float

    @property
    def is_good(self) -> bool:
        """False for scores that are no numbers, too."""
        few = self.n_differing <= MOST_DIFFERING * self.n_pixels
        return few and self.largest_difference <= LARGEST_DIFFERENCE * self.largest_score

    def __str__(self) -> str:
        return (
            f"{self.n_differing} of {self.n_pixels} pixels have another class than in torch, and scores differ by "
            f"{self.largest_difference:.1e} at most, the largest being {self.largest_score:.1f}"
        )


@torch.inference_mode()
def agreement(model: Model, graph: Callable[[Tensor], Output], photos: Sequence[NDArray[np.uint8]]) -> Agreement:
    """Compare a graph with the model's network, in float32 on the CPU.

    Args:
        photos: (H, W, 3) each, seen at the size of the model; a quarter of the first is seen, too, in a batch of two views.
    """
    net = copy.deepcopy(network_of(model)).cpu().float().eval()
    n_pixels = n_differing = n_pictures = 0
    differences, scores = [0.0], [0.0]
    for pictures in _batches([resize_long_side(photo, model.checkpoint.about["size"]) for photo in photos]):
        images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
        ours, theirs = net(images), graph(images)
        if ours.logits.shape != theirs.logits.shape or ours.padded_size != theirs.padded_size:
            return Agreement(len(pictures), ours.logits.numel(), ours.logits.numel(), float("inf"), 0.0)
        differences.append(float((ours.logits - theirs.logits).abs().max()))
        scores.append(float(ours.logits.abs().max()))
        for index in range(len(pictures)):
            first, second = (Scores.of(output, index, ours.size).best_ids() for output in (ours, theirs))
            n_pixels, n_differing = n_pixels + first.size, n_differing + int((first != second).sum())
        n_pictures += len(pictures)
    return Agreement(n_pictures, n_pixels, n_differing, float(np.max(differences)), float(np.max(scores)))


def _batches(photos: Sequence[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """(B, H, W, 3) each: every photo alone, then two views of a quarter of the first."""
    yield from (np.stack([photo]) for photo in photos)
    H, W = photos[0].shape[:2]
    quarter = photos[0][: H // 2 + 1, : W // 2 + 1]
    yield np.stack([quarter, quarter[:, ::-1]])


# -- the file ----------------------------------------------------------------------------------------------------------

Writer = Callable[[torch.export.ExportedProgram, dict[str, str], Path], Callable[[Tensor], Output]]


def export_network(
    model: Model, kind: str, out: Path, photos: Sequence[NDArray[np.uint8]], *, overwrite: bool = False
) -> Agreement:
    """Write a model's graph to a file, which is kept when it agrees with the network after it was read again.

    Args:
        kind: one of `KINDS`.
        photos: (H, W, 3) each, to compare on.
    Raises: ConfigError for a network that cannot be exported, or a missing package; DataError when the graph does not agree;
        OutputError when OUT exists already or cannot be written.
    """
    texts = description(network_of(model), model.checkpoint)
    if kind == "onnx":
        _require_packages()
    with _kept_when_good(out, overwrite=overwrite) as unproven:
        with _said_in_words(model):
            found = agreement(model, KINDS[kind](trace(model), texts, unproven), photos)
        if not found.is_good:
            raise DataError(out, f"the exported graph is not the network: {found}", "it was not kept; predict with the run")
    return found


def _require_packages() -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        if find_spec(package) is None:
            raise ConfigError("--as onnx", f"needs the package {package}", "pip install 'hiposeg-cli[onnx]'")


@contextmanager
def _said_in_words(model: Model) -> Iterator[None]:
    """Turn what torch's exporters raise into an error; their warnings concern torch."""
    about = model.checkpoint.about
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:  # whatever a network does not go through with
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        what = f"{about['architecture']} over {about['backbone']} cannot be exported for pictures of any size ({reason})"
        raise ConfigError(model.checkpoint.path, what, "use a convolutional --backbone, or predict with the run") from None


@contextmanager
def _kept_when_good(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A path beside OUT to write to; it becomes OUT when the block ends well, and is deleted otherwise."""
    if out.is_dir():
        raise OutputError(out, "is a folder", "name a file")
    if out.exists() and not overwrite:
        raise OutputError(out, "exists", "choose another OUT, or pass --overwrite")
    unproven = out.with_name(f".{out.stem}.{os.getpid()}.tmp{out.suffix}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield unproven
        os.replace(unproven, out)
    except OSError as error:
        what = f"cannot be written ({error.strerror or error})"
        raise OutputError(out, what, "free disk space or choose another folder") from None
    finally:
        with suppress(OSError):
            unproven.unlink(missing_ok=True)


def _write_onnx(program: torch.export.ExportedProgram, texts: dict[str, str], path: Path) -> Callable[[Tensor], Output]:
    """One ONNX file with the texts as metadata_props, read again by onnxruntime."""
    converted = torch.onnx.export(
        program, input_names=[INPUT], output_names=[OUTPUT], dynamo=True, external_data=False, verbose=False
    )
    assert converted is not None, "only the exporter through TorchScript gives none"
    converted.model.metadata_props.update(texts)
    converted.save(path, external_data=False)
    return OnnxNet(path)


def _write_torch(program: torch.export.ExportedProgram, texts: dict[str, str], path: Path) -> Callable[[Tensor], Output]:
    """A .pt2 archive with the texts as extra files. Reading one unpickles: only this one, just written here, is read."""
    torch.export.save(program, path, extra_files=dict(texts))
    module = torch.export.load(path).module()

    def forward(image: Tensor) -> Output:
        logits, (H, W) = module(image), image.shape[2:]
        return Output(logits, logits, (H, W), (H + -H % STRIDE_PX, W + -W % STRIDE_PX))

    return forward


KINDS: dict[str, Writer] = {"onnx": _write_onnx, "torch": _write_torch}
