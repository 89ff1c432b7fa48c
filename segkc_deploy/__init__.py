"""Run exported segmentation networks, and the commands that train, export and benchmark them.

    import segkc_deploy

    predictor = segkc_deploy.load("junior-fp32.onnx")
    mask = predictor.predict("street.jpg")  # uint8, the image's own height and width

Importing this package loads neither torch nor anything else heavy.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segkc_deploy.predictor import Predictor, connect, load

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__", "connect", "load"]


def __getattr__(name: str) -> Any:
    if name in ("Predictor", "connect", "load"):
        from segkc_deploy import predictor

        return getattr(predictor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
