"""Whether PyTorch's compiler finds the C++ compiler that it needs."""

from segkc_deploy.errors import MissingDependencyError


def require_cpp_compiler(what: str) -> None:
    """Raise a MissingDependencyError that begins with `what`, the option that compiles, where there is no compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise MissingDependencyError(
            f"{what} compiles C++ and finds no compiler; install g++ (apt install g++) or name one in CXX"
        ) from None
