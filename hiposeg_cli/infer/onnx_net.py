"""A network in an ONNX file of `hiposeg export`, run by onnxruntime on the CPU in the place of one in torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hiposeg_cli.errors import ConfigError, DataError
from hiposeg_cli.infer.description import Described, parse_description
from hiposeg_cli.learn.batch import Output

INPUT, OUTPUT = "image", "logits"  # the names in the graph


class OnnxNet(nn.Module):
    """An ONNX file behind the seam of `SegmentationNet`; it has no embedding, so its scores stand there, too.

    Attributes:
        described: what the file says about itself.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.session = path, _session(path)
        self.described: Described = parse_description(self.session.get_modelmeta().custom_metadata_map, path)
        self._require_fitting_graph()

    def _require_fitting_graph(self) -> None:
        ends = [*self.session.get_inputs(), *self.session.get_outputs()]
        found = [(end.name, end.type, len(end.shape)) for end in ends]
        if found != [(INPUT, "tensor(uint8)", 4), (OUTPUT, "tensor(float)", 4)]:
            raise DataError(self.path, f"holds another graph than hiposeg writes ({found})", "export it again")

    def forward(self, image: Tensor) -> Output:
        """(B, 3, H, W) uint8 on the CPU -> scores, as `SegmentationNet.forward`. Raises DataError for a damaged graph."""
        B, _, H, W = image.shape
        logits = torch.from_numpy(self._run(image))
        if logits.shape[:2] != (B, self.described.hierarchy.n_fine):
            what = f"gives scores of shape {tuple(logits.shape)} for {self.described.hierarchy.n_fine} classes"
            raise DataError(self.path, what, "export it again")
        stride = self.described.stride_px
        return Output(logits, logits, (H, W), (H + -H % stride, W + -W % stride))

    def _run(self, image: Tensor) -> Any:
        try:
            return self.session.run([OUTPUT], {INPUT: image.contiguous().numpy()})[0]
        except _ort_errors() as error:
            if "allocate memory" in str(error):
                raise MemoryError(str(error)) from None
            raise DataError(self.path, f"cannot be run ({_first_line(error)})", "export it again") from None


def _session(path: Path) -> Any:
    """An onnxruntime session on as many threads as torch uses. Raises ConfigError without the package, DataError."""
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigError(path, "needs the package onnxruntime", "pip install 'hiposeg-cli[onnx]'") from None
    if not path.is_file():
        raise DataError(path, "no such ONNX file", "check the path, or export it first")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what is wrong is raised, too
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _ort_errors() as error:
        raise DataError(path, f"is not a readable ONNX file ({_first_line(error)})", "export it again") from None


def _ort_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises: kinds without a common parent of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # type: ignore[import-untyped]

    kinds = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (RuntimeError, *kinds)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
