"""The compiler that `torch.compile` needs is asked for before anything is written."""

from pathlib import Path

import pytest
from tiny_data import tiny_recipe, write_recipe

from segkc_deploy.errors import MissingDependencyError
from segkc_deploy.training.models.compiler import require_compiler
from segkc_deploy.training.train import train_run


def test_without_a_compiler_nothing_is_compiled(data: Path, tmp_path: Path) -> None:
    from torch._inductor import config, cpp_builder

    recipe = str(write_recipe(tmp_path / "tiny.yaml", tiny_recipe()))
    cpp_builder.cpp_compiler_search.cache_clear()
    # Not by `monkeypatch`, after which these settings do not exist any more.
    without = config.patch({"cpp.cxx": ("no-such-compiler",)})
    with without, pytest.raises(MissingDependencyError, match=r"^recipe: compile.*install g\+\+"):
        train_run(data, recipe, tmp_path / "run", ["compile=true"], device="cpu")
    cpp_builder.cpp_compiler_search.cache_clear()
    assert not (tmp_path / "run").exists()


def test_on_a_gpu_it_is_the_compiler_that_triton_looks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"^torch.compile compiles C and.*or name one in CC$"):
        require_compiler("torch.compile", "cuda")
    (tmp_path / "gcc").touch(mode=0o755)
    require_compiler("torch.compile", "cuda")
    (tmp_path / "gcc").unlink()
    monkeypatch.setenv("CC", "/opt/cc")
    require_compiler("torch.compile", "cuda")
