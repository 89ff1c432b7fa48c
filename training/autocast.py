"""Training in a recipe's precision: in 16 bits by autocast, which chooses for each operation."""

from typing import Any, Literal

from lightning.fabric.plugins.precision import MixedPrecision, Precision

_IN_FABRIC: dict[str, Literal["bf16-mixed", "16-mixed"]] = {"bf16": "bf16-mixed", "fp16": "16-mixed"}


def precision_plugin(precision: Literal["fp32", "bf16", "fp16"], accelerator: str) -> Precision:
    """Return the plugin for Fabric that computes in `precision` on `accelerator`, `cuda` or `cpu`."""
    if precision == "fp32":
        return Precision()
    return _Autocast(_IN_FABRIC[precision], accelerator)


class _Autocast(MixedPrecision):
    def convert_input(self, data: Any) -> Any:
        """Leave the images as they are.

        Fabric would round them before they are normalized: BF16 has 8 significant bits, of which a 16-bit image with
        little contrast at a high level keeps next to none, and validation and artifacts see what was not rounded.
        """
        return data
