"""Exported networks: a file is the network it is of, says everything about itself, and predicts as the run does."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command_line import refused
from command_line import run as command
from conftest import TOY_YAML
from predict_toys import ByColour, ids, noise, results, run, save_untrained, toy_model, write_photos
from torch import Tensor, nn

from hiposeg_cli.config import Layer
from hiposeg_cli.convert import PrepareOptions, prepare
from hiposeg_cli.errors import ConfigError, DataError, HiposegError, OutputError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import dump_hierarchy, parse_hierarchy
from hiposeg_cli.infer import portable
from hiposeg_cli.infer.description import SCHEMA, description, parse_description
from hiposeg_cli.infer.model import Model, load_model, with_decode
from hiposeg_cli.infer.portable import Agreement, agreement, export_network
from hiposeg_cli.infer.traceable import BinMeans, PaddedConv
from hiposeg_cli.infer.views import Views
from hiposeg_cli.infer.windows import Tiling
from hiposeg_cli.learn.batch import Output
from hiposeg_cli.learn.decode import Decode
from hiposeg_cli.run import write_run_files
from hiposeg_cli.run_config import resolve_config
from hiposeg_cli.store import sha256_file

SIZES = {"a": (40, 50), "b": (40, 50), "c": (64, 30), "d": (90, 200)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, toy_hierarchy: Hierarchy) -> Path:
    return save_untrained(tmp_path_factory.mktemp("run") / "toy.safetensors", toy_hierarchy)


@pytest.fixture
def model(weights: Path) -> Model:
    return load_model(weights, device="cpu")


# -- a small ONNX file made by hand ------------------------------------------------------------------------------------


def by_colour(n_classes: int) -> ByColour:
    """`ByColour` with weights of few digits, so that every way of adding up gives the same bits."""
    net = ByColour(n_classes)
    net.weight = (8 * net.weight).round() / 8
    return net


def write_by_colour(path: Path, toy: Hierarchy, **changed: str) -> Path:
    """`by_colour` with a stride of 1 as an ONNX file; `changed` replaces texts of its description, or adds some."""
    from onnx import TensorProto, checker, helper, numpy_helper, save

    sides: Sequence[Any] = ("B", 3, "H", "W")
    weight = by_colour(toy.n_fine).weight.numpy()[:, :, None, None]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "shift"], ["centred"]),
        helper.make_node("Conv", ["centred", "weight"], ["logits"]),
    ]
    values = {"scale": np.float32(64), "shift": np.float32(2), "weight": weight}
    graph = helper.make_graph(
        nodes, "by colour",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, sides)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("B", weight.shape[0], "H", "W"))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )  # fmt: skip
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    texts = {"schema": SCHEMA, "hierarchy": dump_hierarchy(toy), "about": '{"size": null}', "stride_px": "1"}
    helper.set_model_props(made, {key: text for key, text in (texts | changed).items() if text})
    checker.check_model(made)
    save(made, path)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch": 3},
        {"tiling": Tiling(32, 8)},
        {"views": Views((0.75, 1.0), flip=True)},
        {"save": ("probs", "confidence")},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
@pytest.mark.parametrize("rule", [Decode(), Decode("top-down"), Decode("back-off", 0.6)], ids=lambda rule: rule.name)
def test_whatever_predict_can_do_it_does_with_an_onnx_file(
    options: dict[str, Any], rule: Decode, toy_hierarchy: Hierarchy, tmp_path: Path
) -> None:
    """Breaks when the scores of a file are on another grid, in other order or of another size than those of a network."""
    photos = write_photos(tmp_path / "photos", SIZES)
    file = write_by_colour(tmp_path / "toy.onnx", toy_hierarchy)
    for name, model in {"onnx": load_model(file), "torch": toy_model(tmp_path, by_colour(7))}.items():
        assert run(with_decode(model, rule), photos, tmp_path / name, **options).done == len(SIZES)
    ours, theirs = results(tmp_path / "torch"), results(tmp_path / "onnx")
    assert ours.pop("predictions.json") != theirs.pop("predictions.json")  # they name the weights
    assert ours == theirs


def test_the_command_predicts_with_an_onnx_file_and_continues(toy_hierarchy: Hierarchy, tmp_path: Path) -> None:
    photos, out = write_photos(tmp_path / "photos", SIZES), tmp_path / "out"
    file = write_by_colour(tmp_path / "toy.onnx", toy_hierarchy)
    assert command("predict", file, photos, "--out", out).exit_code == 0
    again = json.loads(command("predict", file, photos, "--out", out, "--resume", "--compile", "--json").stdout)
    assert again["data"]["skipped"] == len(SIZES)
    assert "--compile has no effect" in again["warnings"][0]
    other = write_by_colour(tmp_path / "other.onnx", toy_hierarchy, about='{"size": 64}')
    refused(command("predict", other, photos, "--out", out), "another model")


def test_onnx_files_that_are_none_of_ours_or_damaged_are_said_to_be(toy_hierarchy: Hierarchy, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", SIZES)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no protobuf at all")
    cases: list[tuple[Path, list[str]]] = [
        (tmp_path / "none.onnx", ["no such ONNX file"]),
        (broken, ["is not a readable ONNX file"]),
        (write_by_colour(tmp_path / "1.onnx", toy_hierarchy, schema=""), ["was not written by hiposeg", "export"]),
        (write_by_colour(tmp_path / "2.onnx", toy_hierarchy, schema="hiposeg/network@9"), ["network@9", SCHEMA]),
        (write_by_colour(tmp_path / "3.onnx", toy_hierarchy, hierarchy="- 1"), ["3.onnx", "damaged"]),
        (write_by_colour(tmp_path / "4.onnx", toy_hierarchy, about="[]"), ["damaged description", "size"]),
        (write_by_colour(tmp_path / "5.onnx", toy_hierarchy, about='{"size": "wide"}'), ["size 'wide'"]),
        (write_by_colour(tmp_path / "6.onnx", toy_hierarchy, stride_px="0"), ["stride_px 0"]),
    ]
    for path, words in cases:
        refused(command("predict", path, photos, "--out", tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


def test_a_graph_of_other_classes_than_its_hierarchy_is_said_to_have_them(toy_hierarchy: Hierarchy, tmp_path: Path) -> None:
    lines = [line for line in TOY_YAML.splitlines() if "_light" not in line]
    fewer = "\n".join(lines[: lines.index("sources:")])
    file = write_by_colour(tmp_path / "toy.onnx", toy_hierarchy, hierarchy=fewer)
    with pytest.raises(DataError, match=r"gives scores of shape \(1, 7, 8, 8\) for 5 classes"):
        load_model(file).segment(noise(8, 8))


def test_gpus_and_files_that_may_hold_code_are_refused(toy_hierarchy: Hierarchy, tmp_path: Path) -> None:
    file = write_by_colour(tmp_path / "toy.onnx", toy_hierarchy)
    with pytest.raises(ConfigError, match=r"--device cuda"):
        load_model(file, device="cuda")
    (tmp_path / "toy.pt2").write_bytes(b"whatever: it is not opened")
    with pytest.raises(DataError, match="never read"):
        load_model(tmp_path / "toy.pt2")


def test_without_the_package_the_extra_is_named(
    toy_hierarchy: Hierarchy, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_by_colour(tmp_path / "toy.onnx", toy_hierarchy)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"needs the package onnxruntime - pip install 'hiposeg-cli\[onnx\]'"):
        load_model(file)
    monkeypatch.setattr(portable, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=r"needs the package onnx - pip install 'hiposeg-cli\[onnx\]'"):
        export_network(model, "onnx", tmp_path / "out.onnx", [noise(40, 50)])


# -- what is traced ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 6, (2, 5)])
def test_means_over_bins_are_adaptive_pooling(size: Any) -> None:
    for h, w in ((7, 9), (6, 6), (3, 2), (1, 1), (13, 4)):
        maps = torch.randn(2, 3, h, w, generator=torch.Generator().manual_seed(h))
        torch.testing.assert_close(BinMeans(size)(maps), nn.AdaptiveAvgPool2d(size)(maps))


@pytest.mark.parametrize("kernel", [1, 3, (5, 4)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_fixed_padding_is_that_of_conv2d_same(kernel: Any, stride: int, dilation: int) -> None:
    from hiposeg_cli.nets.compat import import_torchvision

    import_torchvision()
    from timm.layers.conv2d_same import Conv2dSame

    conv = Conv2dSame(4, 6, kernel, stride=stride, dilation=dilation, groups=2)
    for h, w in ((8, 6), (2, 16)):
        maps = torch.randn(2, 4, h, w)
        assert torch.equal(PaddedConv(conv)(maps), conv(maps))


# -- the description ---------------------------------------------------------------------------------------------------


def test_a_description_says_everything_and_reads_back(model: Model, tmp_path: Path) -> None:
    texts = description(portable.network_of(model), model.checkpoint)
    assert {
        "schema",
        "hierarchy",
        "classes",
        "palette",
        "mean",
        "std",
        "size",
        "stride_px",
        "hiposeg_version",
        "input",
    } <= set(texts)
    assert texts["weights_sha256"] == sha256_file(model.checkpoint.path)
    assert json.loads(texts["classes"])["fine"] == list(model.hierarchy.fine.names)
    assert json.loads(texts["palette"])["coarse"] == [list(node.color) for node in model.hierarchy.coarse.nodes]
    assert json.loads(texts["mean"]) == pytest.approx([127.5] * 3)  # lite0's own scaling, on the scale 0..255
    assert json.loads(texts["size"]) is None
    found = parse_description(texts, tmp_path / "x.onnx")
    assert found.hierarchy.digest == model.hierarchy.digest
    assert found.about == model.checkpoint.about
    assert found.stride_px == 32


# -- the check ---------------------------------------------------------------------------------------------------------


def altered(model: Model, change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Output]:
    """The model's network with other scores."""

    def graph(image: Tensor) -> Output:
        output = model.net(image)
        return Output(change(output.logits), output.embedding, output.size, output.padded_size)

    return graph


def test_agreement_counts_pixels_and_the_largest_difference(model: Model) -> None:
    photos = [noise(40, 50), noise(33, 64, 1)]
    same = agreement(model, altered(model, lambda logits: logits), photos)
    assert same.is_good
    assert (same.n_pictures, same.n_pixels) == (4, 40 * 50 + 33 * 64 + 2 * 21 * 26)
    assert (same.n_differing, same.largest_difference) == (0, 0.0)
    off = agreement(model, altered(model, lambda logits: logits + 0.5), photos)
    assert off.n_differing == 0  # all classes alike: no class changes, and yet it is another graph
    assert off.largest_difference == pytest.approx(0.5, rel=1e-4)
    turned = agreement(model, altered(model, lambda logits: logits.flip(1)), photos)
    assert turned.n_differing > 0.5 * turned.n_pixels
    for bad in (off, turned):
        assert not bad.is_good


@pytest.mark.parametrize(
    "change",
    [lambda logits: logits * torch.nan, lambda logits: logits[..., :-1], lambda logits: logits[:1]],
    ids=["not numbers", "smaller", "one picture of two"],
)
def test_scores_that_are_no_numbers_or_of_another_shape_never_agree(
    change: Callable[[Tensor], Tensor], model: Model
) -> None:
    assert not agreement(model, altered(model, change), [noise(40, 50)]).is_good


def test_a_tiny_share_of_pixels_is_allowed_and_no_more() -> None:
    assert Agreement(1, 10_000, 1, 1e-4, 1.0).is_good
    assert not Agreement(1, 10_000, 2, 1e-4, 1.0).is_good
    assert not Agreement(1, 10_000, 0, 2e-3, 1.0).is_good


def test_a_file_that_fails_the_check_is_not_kept(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "net.onnx"
    out.write_bytes(b"an earlier one")

    def writer(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
        def write(program: object, texts: dict[str, str], path: Path) -> Callable[[Tensor], Output]:
            path.write_bytes(b"a graph")
            return altered(model, change)

        return write

    monkeypatch.setattr(portable, "trace", lambda model: None)
    monkeypatch.setitem(portable.KINDS, "onnx", writer(lambda logits: logits.roll(1, 1)))
    with pytest.raises(DataError, match=r"is not the network: .* pixels have another class"):
        export_network(model, "onnx", out, [noise(40, 50)], overwrite=True)
    with pytest.raises(OutputError, match=r"exists.*--overwrite"):
        export_network(model, "onnx", out, [noise(40, 50)])
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]
    assert out.read_bytes() == b"an earlier one"
    monkeypatch.setitem(portable.KINDS, "onnx", writer(lambda logits: logits))
    assert export_network(model, "onnx", out, [noise(40, 50)], overwrite=True).is_good
    assert out.read_bytes() == b"a graph"
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_a_network_that_cannot_be_traced_is_said_to_be(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(model: Model) -> None:
        raise RuntimeError("\nsizes 7 and 9 must agree\n  at line 3")

    monkeypatch.setattr(portable, "trace", fail)
    with pytest.raises(ConfigError, match=r"fpn over tf_efficientnet_lite0 cannot be exported .*sizes 7 and 9 must agree"):
        export_network(model, "torch", tmp_path / "net.pt2", [noise(40, 50)])
    assert not list(tmp_path.iterdir())


# -- the command -------------------------------------------------------------------------------------------------------


def test_kind_and_argument_must_fit(weights: Path, toy_hierarchy: Hierarchy, toy_data: Path, tmp_path: Path) -> None:
    refused(command("export", toy_data, "--as", "onnx"), "is a prepared dataset", "name a run")
    refused(command("export", weights, tmp_path / "out", "--as", "mmseg"), "is a run", "--as onnx or torch")
    refused(command("export", toy_data, "--as", "mmseg"), "OUT", "is missing")
    refused(command("export", weights, "--as", "onx"), "export format 'onx'", "did you mean 'onnx'")
    refused(command("export", tmp_path / "none", "--as", "torch"), "no such run")
    refused(command("export", weights, tmp_path / "x.onnx", "--as", "onnx", "--split", "val"), "--split", "for data only")
    refused(command("export", toy_data, tmp_path / "x", "--as", "hf", "--weights", "last"), "--weights", "for networks only")
    refused(command("export", weights, tmp_path / "x.bin", "--as", "onnx"), "x.bin", "ends in .onnx")
    refused(command("export", weights, "--as", "onnx", "--weights", "bets"), "did you mean 'best'")
    file = write_by_colour(tmp_path / "toy.onnx", toy_hierarchy)
    refused(command("export", file, tmp_path / "x.onnx", "--as", "onnx"), "is exported already")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy.onnx"]


@pytest.fixture(scope="module")
def toy_data(tmp_path_factory: pytest.TempPathFactory, toy_yaml: Path) -> Path:
    """A prepared dataset of three validation photos."""
    from PIL import Image

    root = tmp_path_factory.mktemp("toy")
    for split, count in (("train", 1), ("val", 3)):
        write_photos(root / "raw" / split / "images", {f"{split}{n}": (40 + n, 50) for n in range(count)})
        (root / "raw" / split / "labels").mkdir()
        for number in range(count):
            Image.fromarray(np.zeros((40 + number, 50), np.uint8)).save(
                root / "raw" / split / "labels" / f"{split}{number}.png"
            )
    prepare("masks", root / "raw", root / "data", PrepareOptions(hierarchy=str(toy_yaml)))
    return root / "data"


def test_it_is_checked_on_the_runs_own_photos_where_they_are(
    toy_hierarchy: Hierarchy, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []

    def record(model: Model, kind: str, out: Path, photos: list[Any], **options: Any) -> Agreement:
        seen.extend(photo.shape[:2] for photo in photos)
        out.write_bytes(b"a graph")
        return Agreement(1, 1, 0, 0.0, 1.0)

    monkeypatch.setattr(portable, "export_network", record)
    run_dir = tmp_path / "run"
    weights = write_run(run_dir, toy_hierarchy, toy_data)
    for named in (run_dir, weights):
        answer = json.loads(command("export", named, "--as", "onnx", "--json").stdout)["data"]
        assert answer["checked_on"] == f"3 val photos of {toy_data}"
        assert answer["out"] == str(run_dir / "weights" / "best.onnx")
    assert seen == [(40, 50), (41, 50), (42, 50)] * 2
    write_run(run_dir, toy_hierarchy, tmp_path / "gone")
    shown = command("export", run_dir, tmp_path / "x.pt2", "--as", "torch")
    assert "checked on 4 drawn photos of 480x480 px" in shown.stderr


def write_run(run_dir: Path, hierarchy: Hierarchy, data: Path) -> Path:
    """A run folder that trained nothing."""
    config = resolve_config([Layer("--test", {"data.path": str(data), "method.name": "flat"})])
    write_run_files(run_dir, config, hierarchy)
    return save_untrained(run_dir / "weights" / "best.safetensors", hierarchy)


# -- the whole way -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("net", "backbone"), [("fpn", "tf_efficientnet_lite0"), ("upernet", "resnet10t")])
def test_an_exported_network_predicts_as_the_run_does(
    net: str, backbone: str, toy_hierarchy: Hierarchy, tmp_path: Path
) -> None:
    weights = save_untrained(tmp_path / "net.safetensors", toy_hierarchy, net, backbone)
    result = command("export", weights, tmp_path / "net.onnx", "--as", "onnx", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)["data"]
    assert answer["n_differing"] <= 1e-4 * answer["n_pixels"]
    photos = write_photos(tmp_path / "photos", SIZES)
    for name, file in (("torch", weights), ("onnx", tmp_path / "net.onnx")):
        assert command("predict", file, photos, "--out", tmp_path / name, "--batch", 2, "--device", "cpu").exit_code == 0
    for path in tmp_path.joinpath("torch").rglob("*.png"):
        ours, theirs = ids(path), ids(tmp_path / "onnx" / path.relative_to(tmp_path / "torch"))
        assert np.count_nonzero(ours != theirs) <= 1e-3 * ours.size
    ours, theirs = load_model(weights, device="cpu").net, load_model(tmp_path / "net.onnx").net
    for size in ((1, 3, 5, 7), (3, 3, 64, 32), (1, 3, 97, 31)):
        image = torch.randint(0, 256, size, dtype=torch.uint8)
        with torch.inference_mode():
            expected, found = ours(image), theirs(image)
        assert (found.size, found.padded_size) == (expected.size, expected.padded_size)
        torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4 * float(expected.logits.abs().max()))


@pytest.mark.slow
def test_torch_export_holds_the_description_and_any_size(toy_hierarchy: Hierarchy, tmp_path: Path) -> None:
    weights = save_untrained(tmp_path / "net.safetensors", toy_hierarchy, "unet", "resnet10t")
    assert command("export", weights, "--as", "torch").exit_code == 0
    texts = dict.fromkeys(["schema", "hierarchy", "weights_sha256"], "")
    module = torch.export.load(tmp_path / "net.pt2", extra_files=texts).module()  # made here, so it may be read
    assert texts["schema"] == SCHEMA
    assert parse_hierarchy(texts["hierarchy"], "net.pt2").digest == toy_hierarchy.digest
    assert texts["weights_sha256"] == sha256_file(weights)
    assert zipfile.is_zipfile(tmp_path / "net.pt2")
    for size in ((1, 3, 40, 50), (2, 3, 129, 33)):
        image = torch.randint(0, 256, size, dtype=torch.uint8)
        H, W = (side + -side % 32 for side in size[2:])
        logits = module(image)
        assert tuple(F.interpolate(logits, size=(H, W)).shape) == (size[0], toy_hierarchy.n_fine, H, W)
    with pytest.raises(HiposegError, match="never read"):
        load_model(tmp_path / "net.pt2")
