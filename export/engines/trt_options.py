"""What a user may choose of a build with TensorRT, refused before any work where it cannot be done."""

from collections.abc import Mapping

from segkc_deploy.engines import number_formats
from segkc_deploy.errors import ConfigError
from segkc_deploy.export.engines.base import BuildOptions

_MAX_LEVEL = 5

#: The least compute capability that has the number format.
_NEEDED_CAPABILITY = {"bf16": (8, 0), "fp8": (8, 9)}


def check_common_options(options: BuildOptions) -> None:
    """Raise a ConfigError for a value that no TensorRT takes."""
    level = options.optimization_level
    if level is not None and not 0 <= level <= _MAX_LEVEL:
        raise ConfigError(
            f"a builder level of {level} is not possible; use 0 (built soon) to {_MAX_LEVEL} (fast on the device)"
        )
    if options.workspace_mib is not None and options.workspace_mib < 1:
        raise ConfigError(f"a workspace of {options.workspace_mib} MiB is not possible; use 1 or more")


def refuse(options: BuildOptions, engine: str, unknown: Mapping[str, str]) -> None:
    """Raise a ConfigError where a field of `options` is set that `engine` does not know.

    Args:
        unknown: such fields, each with what to do instead.
    """
    default = BuildOptions()
    for name, instead in unknown.items():
        if getattr(options, name) != getattr(default, name):
            raise ConfigError(f"{name.replace('_', ' ')} is not for the engine {engine}: {instead}")


def check_precision(precision: str, capability: str, whose: str) -> None:
    """Raise a ConfigError where a GPU of `capability`, such as `8.6`, lacks the number format of `precision`.

    Args:
        whose: what has that capability, with its verb, for the message.
    """
    needed = max(_NEEDED_CAPABILITY.get(part, (0, 0)) for part in number_formats(precision))
    if parse_capability(capability) < needed:
        raise ConfigError(
            f"precision {precision} needs a GPU of compute capability {needed[0]}.{needed[1]}, and {whose}"
            f" {capability}; use fp16 or int8"
        )


def parse_capability(capability: str) -> tuple[int, ...]:
    """Return (8, 9) for `8.9`."""
    return tuple(int(part) for part in capability.split("."))
