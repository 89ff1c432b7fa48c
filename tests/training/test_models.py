"""Networks: published sizes, input sizes, and the messages for names that do not exist."""

import pytest
import torch

from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.training.files.starting_weights import build_network
from segkc_deploy.training.models.backbone import taps_of
from segkc_deploy.training.models.fixed_size import at_fixed_size
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec


def millions(module: torch.nn.Module) -> float:
    return round(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 1)


@pytest.mark.parametrize(
    ("backbone", "whole", "encoder", "decoder"),
    [("vit_small_patch14_dinov2", 24.8, 22.1, 2.7), ("vit_base_patch14_dinov2", 97.5, 86.6, 10.9)],
)
def test_the_published_networks_have_their_published_sizes(
    backbone: str, whole: float, encoder: float, decoder: float
) -> None:
    with torch.device("meta"):
        network = Segmenter(NetworkSpec(backbone=backbone), num_classes=21)
    assert (millions(network), millions(network.backbone), millions(network.decoder)) == (whole, encoder, decoder)


def test_vits_are_tapped_as_published() -> None:
    assert taps_of(12) == (2, 5, 8, 11)
    assert taps_of(24) == (4, 11, 17, 23)


@pytest.mark.parametrize(
    "backbone", ["vit_tiny_patch16_224", "resnet10t", "convnext_atto", "mobilenetv4_conv_small_035"]
)
def test_logits_have_the_inputs_size(backbone: str) -> None:
    network = Segmenter(NetworkSpec(backbone=backbone, decoder_channels=16), num_classes=4).eval()
    size = (2 * network.size_multiple, 3 * network.size_multiple)
    assert network(torch.rand(1, 3, *size)).shape == (1, 4, *size)


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3", "resnet10t"])
def test_a_fixed_size_changes_nothing_but_the_sizes_taken(backbone: str) -> None:
    torch.manual_seed(0)
    network = Segmenter(NetworkSpec(backbone=backbone, decoder_channels=16), num_classes=4).eval()
    for parameter in network.parameters():
        parameter.data.normal_(std=0.05)  # fresh ViTs have zero embeddings, which every resampling keeps
    size = (2 * network.size_multiple, 5 * network.size_multiple)
    images = torch.rand(2, 3, *size)
    with torch.inference_mode():
        torch.testing.assert_close(at_fixed_size(network, size)(images), network(images), rtol=1e-5, atol=1e-5)


def test_normalization_is_inside() -> None:
    network = Segmenter(NetworkSpec(backbone="resnet10t", decoder_channels=16), num_classes=4).eval()
    images = torch.rand(1, 3, 32, 32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = network.backbone((images - mean) / std)
    torch.testing.assert_close(network.features(images)[-1], expected[-1])


def test_unknown_backbones_come_with_the_closest_names() -> None:
    with pytest.raises(ConfigError, match=r"did you mean .*resnet18"):
        Segmenter(NetworkSpec(backbone="resnet_18"), 3)


@pytest.mark.parametrize(("backbone", "decoder"), [("resnet10t", "dpt"), ("vit_tiny_patch16_224", "fpn")])
def test_decoders_that_do_not_fit_are_refused(backbone: str, decoder: str) -> None:
    with pytest.raises(ConfigError, match="use decoder"):
        Segmenter(NetworkSpec.model_validate({"backbone": backbone, "decoder": decoder}), 3)


def test_sizes_that_do_not_fit_are_told_the_closest() -> None:
    network = Segmenter(NetworkSpec(backbone="resnet10t", decoder_channels=16), num_classes=4)
    with pytest.raises(ConfigError, match="multiples of 32; the closest is 352x480"):
        at_fixed_size(network, (360, 480))


def test_local_pretrained_weights_are_loaded(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import timm
    from safetensors.torch import save_file

    source = timm.create_model("resnet10t")
    path = tmp_path / "weights.safetensors"
    save_file(source.state_dict(), path)
    network = build_network(NetworkSpec(backbone="resnet10t", pretrained=path), 3)
    loaded = network.backbone.network.state_dict()
    assert loaded
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in loaded.items())


def test_pretrained_weights_that_do_not_fit_are_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    save_file({"other.weight": torch.zeros(3)}, path)
    with pytest.raises(DataError, match="pretrained weights of resnet10t could not be loaded"):
        build_network(NetworkSpec(backbone="resnet10t", pretrained=path), 3)
    with pytest.raises(ConfigError, match="no such weights file"):
        build_network(NetworkSpec(backbone="resnet10t", pretrained=tmp_path / "none.safetensors"), 3)


def test_logits_grow_in_fp32_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Segmenter(NetworkSpec(backbone="resnet10t", decoder_channels=16), num_classes=4)
    found = {}
    interpolate = torch.nn.functional.interpolate

    def noted(values: torch.Tensor, *arguments: object, **options: object) -> torch.Tensor:
        found["last"] = values.dtype
        return interpolate(values, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.nn.functional, "interpolate", noted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network.decoder(network.features(torch.rand(2, 3, 64, 64))).dtype is torch.bfloat16
        network(torch.rand(2, 3, 64, 64))
    assert found["last"] is torch.float32
