"""Whether PyTorch's compiler finds the compiler that it needs itself."""

import os
import shutil

from segkc_deploy.errors import MissingDependencyError


def require_compiler(what: str, device: str) -> None:
    """Raise a MissingDependencyError that begins with `what` where `torch.compile` finds no compiler for `device`."""
    if device == "cpu":
        require_cpp_compiler(what)
    elif not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):  # as Triton looks for one
        raise MissingDependencyError(
            f"{what} compiles C and finds no compiler; install gcc (apt install gcc) or name one in CC"
        )


def require_cpp_compiler(what: str) -> None:
    """Raise a MissingDependencyError that begins with `what` where PyTorch finds no C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise MissingDependencyError(
            f"{what} compiles C++ and finds no compiler; install g++ (apt install g++) or name one in CXX"
        ) from None
