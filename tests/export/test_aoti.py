"""AOTInductor packages: the outputs of PyTorch, and no native code run on a machine or a batch it was not built for.

One small network is compiled once, since a compiler takes seconds for any.
"""

import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tiny_artifact import manifest_of
from torch import Tensor, nn
from torch.nn import functional as F

from segkc_deploy.errors import ArtifactError, BuildError, ConfigError, MissingDependencyError
from segkc_deploy.export.engines.aoti_engine import AOTIEngine
from segkc_deploy.export.engines.base import BuildOptions, BuildRequest, Built, Range
from segkc_deploy.manifest import Build, Contract, Manifest, TensorContract
from segkc_deploy.runners.aoti_runner import AOTIRunner, instruction_sets

OUTPUTS = ("masks", "confidence", "logits")
CONTRACT = Contract(
    input=TensorContract(name="images", dtype="uint8", layout="NHWC"),
    outputs=tuple(TensorContract(name=name, dtype="", layout="") for name in OUTPUTS),
    size=(8, 12),
    size_multiple=4,
)


class Network(nn.Module):
    """Convolutions, a normalization, attention over all pixels and upsampling, for sides that are multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Conv2d(16, 5, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = self.patches(images.float().permute(0, 3, 1, 2) / 255)
        tokens = self.norm(maps.flatten(2).transpose(1, 2))[:, None]
        attended = F.scaled_dot_product_attention(tokens, tokens, tokens)[:, 0]
        low = self.head(attended.transpose(1, 2).unflatten(2, maps.shape[2:]))
        logits = F.interpolate(low, images.shape[1:3], mode="bilinear")
        masks = logits.argmax(dim=1).to(torch.uint8)
        return masks, logits.softmax(dim=1).amax(dim=1), low.permute(0, 2, 3, 1).contiguous()


def build(network: nn.Module, path: Path) -> Built:
    sizes = {"batch": Range(1, 1, 4), "heights": Range(4, 8, 32), "widths": Range(4, 12, 32)}
    request = BuildRequest(
        model=onnx.ModelProto(), network=network, contract=CONTRACT, precision="fp32", path=path, **sizes
    )
    return AOTIEngine().build(request)


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture(scope="module")
def package(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Build]:
    path = tmp_path_factory.mktemp("aoti") / ".junior.pt2.unverified"
    built = build(network, path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert built.build is not None
    return path, built.build


@pytest.fixture
def manifest(package: tuple[Path, Build]) -> Manifest:
    path, build = package
    return manifest_of(path, engine="aoti", contract=CONTRACT, build=build)


def with_build(manifest: Manifest, options: dict[str, Any] | None = None, **changes: Any) -> Manifest:
    """Return the manifest of a package that was built with other `options`, or with `changes` to other fields."""
    assert manifest.build is not None
    build = manifest.build.model_copy(update={"options": manifest.build.options | (options or {}), **changes})
    return manifest.model_copy(update={"build": build})


def refusal(path: Path, manifest: Manifest, device: str = "auto") -> str:
    with pytest.raises((ArtifactError, ConfigError)) as refused:
        AOTIRunner(path, manifest, device).activate()
    message = str(refused.value)
    assert "\n" not in message
    assert path.name in message
    return message


def test_outputs_are_those_of_pytorch_for_any_batch_and_size(
    network: nn.Module, package: tuple[Path, Build], manifest: Manifest
) -> None:
    with AOTIRunner(package[0], manifest) as runner:
        for shape in ((1, 8, 12, 3), (4, 32, 4, 3), (1, 4, 32, 3), (2, 16, 16, 3), (1, 8, 12, 3)):
            images = random_images(*shape)
            images.flags.writeable = False
            outputs = runner.infer(images)
            with torch.inference_mode():
                masks, confidence, logits = (value.numpy() for value in network(torch.tensor(images)))
            assert tuple(outputs) == OUTPUTS
            assert outputs["masks"].dtype == np.uint8
            np.testing.assert_array_equal(outputs["masks"], masks)
            np.testing.assert_allclose(outputs["confidence"], confidence, atol=1e-5)
            np.testing.assert_allclose(outputs["logits"], logits, atol=1e-5)


def test_the_build_says_what_it_is_for(package: tuple[Path, Build]) -> None:
    _, build = package
    assert (build.builder, build.version, build.onnx_sha256) == ("torch", torch.__version__, None)
    assert build.options["instruction_sets"] == instruction_sets()
    assert {name: build.options[name] for name in ("batch", "height", "width")} == {
        "batch": [1, 4],
        "height": [4, 32],
        "width": [4, 32],
    }


def test_a_package_holds_nothing_that_is_unpickled(package: tuple[Path, Build]) -> None:
    names = zipfile.ZipFile(package[0]).namelist()
    code = [name for name in names if "/data/aotinductor/model/" in name]
    assert any(name.endswith(".so") for name in code)
    # The archive's own marks: format, versions, byte order.
    assert {name.partition("/")[2] for name in names if name not in code} <= {
        *("archive_format", "archive_version", "byteorder", "version", ".data/version", ".data/serialization_id")
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="compiled for the GPU")
def test_the_number_of_threads_is_not_compiled_in(package: tuple[Path, Build], manifest: Manifest) -> None:
    """The tests run with one thread, and a device may have more."""
    archive = zipfile.ZipFile(package[0])
    (kernels,) = (name for name in archive.namelist() if name.endswith(".kernel.cpp"))
    assert b"#pragma omp parallel" in archive.read(kernels)
    before = torch.get_num_threads()
    with AOTIRunner(package[0], manifest, threads=before + 1) as runner:
        assert torch.get_num_threads() == before + 1
        assert runner.infer(random_images(1, 8, 12, 3))["masks"].shape == (1, 8, 12)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    "images",
    [
        random_images(5, 8, 12, 3),
        random_images(0, 8, 12, 3),
        random_images(1, 36, 12, 3),
        random_images(1, 8, 14, 3),
        random_images(1, 8, 12, 4),
        random_images(8, 12, 3),
        random_images(1, 8, 12, 3).astype(np.float32),
    ],
    ids=lambda images: f"{images.dtype}-{'x'.join(map(str, images.shape))}",
)
def test_a_batch_it_was_not_built_for_never_reaches_the_code(
    package: tuple[Path, Build], manifest: Manifest, images: np.ndarray
) -> None:
    with AOTIRunner(package[0], manifest) as runner, pytest.raises(ArtifactError, match="1 to 4 images of height 4 to"):
        runner.infer(images)


@pytest.mark.parametrize(
    ("options", "changes", "words"),
    [
        ({}, {"version": "1.13.1"}, "PyTorch 1.13.1"),
        ({"machine": "vax"}, {}, "built for vax"),
        ({"instruction_sets": ["avx512_of_tomorrow"]}, {}, "a CPU with avx512_of_tomorrow"),
    ],
)
def test_code_for_another_machine_is_not_loaded(
    package: tuple[Path, Build],
    manifest: Manifest,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    changes: dict[str, Any],
    words: str,
) -> None:
    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path: pytest.fail("it was loaded"))
    message = refusal(package[0], with_build(manifest, options, **changes))
    assert words in message
    assert "segkc-deploy export runs/tiny --engine aoti" in message


def test_another_patch_release_of_pytorch_is_accepted(package: tuple[Path, Build], manifest: Manifest) -> None:
    release = ".".join(torch.__version__.split(".")[:2])
    with AOTIRunner(package[0], with_build(manifest, version=f"{release}.99+elsewhere")) as runner:
        assert runner.infer(random_images(1, 8, 12, 3))


@pytest.mark.parametrize(("built", "asked"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_package_keeps_to_its_device(package: tuple[Path, Build], manifest: Manifest, built: str, asked: str) -> None:
    assert f"was built for {built}" in refusal(package[0], with_build(manifest, {"device": built}), asked)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_package_for_a_gpu_needs_one(package: tuple[Path, Build], manifest: Manifest) -> None:
    with pytest.raises(ConfigError, match="a GPU is needed, but"):
        AOTIRunner(package[0], with_build(manifest, {"device": "cuda"})).activate()


def test_a_manifest_that_does_not_say_what_built_it_is_refused(package: tuple[Path, Build], manifest: Manifest) -> None:
    assert manifest.build is not None
    for build in (None, manifest.build.model_copy(update={"options": {"device": "cpu"}})):
        message = refusal(package[0], manifest.model_copy(update={"build": build}))
        assert "does not say what built it" in message


@pytest.mark.parametrize("kept", [0, 0.5, 0.999])
def test_a_package_that_is_cut_short_gets_one_line(
    package: tuple[Path, Build], manifest: Manifest, tmp_path: Path, kept: float, capfd: pytest.CaptureFixture[str]
) -> None:
    content = package[0].read_bytes()
    (tmp_path / "cut.pt2").write_bytes(content[: int(len(content) * kept)])
    assert "PyTorch cannot load it" in refusal(tmp_path / "cut.pt2", manifest)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("arguments", [{"device": "tpu"}, {"threads": 0}])
def test_what_does_not_exist_is_refused(manifest: Manifest, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="use "):
        AOTIRunner("tiny.pt2", manifest, **arguments)


def test_a_device_without_torch_is_told_what_it_lacks(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match="pip install torch"):
        AOTIRunner("tiny.pt2", manifest).activate()


def test_a_missing_compiler_is_named() -> None:
    from torch._inductor import config, cpp_builder

    AOTIEngine().check(BuildOptions(), "fp32")
    cpp_builder.cpp_compiler_search.cache_clear()
    # Not by `monkeypatch`, after which these settings do not exist any more.
    without = config.patch({"cpp.cxx": ("no-such-compiler",)})
    with without, pytest.raises(MissingDependencyError, match=r"install g\+\+"):
        AOTIEngine().check(BuildOptions(), "fp32")
    cpp_builder.cpp_compiler_search.cache_clear()


def test_a_missing_cuda_toolkit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils import cpp_extension

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for home in (None, str(tmp_path)):
        monkeypatch.setattr(cpp_extension, "CUDA_HOME", home)
        with pytest.raises(MissingDependencyError, match="CUDA_HOME"):
            AOTIEngine().check(BuildOptions(), "fp32")
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "cuda.h").touch()
    AOTIEngine().check(BuildOptions(), "fp32")


def test_options_of_other_builders_are_refused() -> None:
    with pytest.raises(ConfigError, match="--engine aoti"):
        AOTIEngine().check(BuildOptions(optimization_level=3), "fp32")


def test_a_network_that_cannot_be_traced_leaves_nothing_behind(tmp_path: Path) -> None:
    class Undecided(nn.Module):
        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            return (images[..., 0] if images.float().mean() > 3 else images[..., 1],)

    with pytest.raises(BuildError, match="AOTInductor could not compile it") as refused:
        build(Undecided(), tmp_path / "undecided.pt2")
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []
