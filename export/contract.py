"""What an artifact of a network takes and gives."""

from collections.abc import Sequence

from segkc_deploy.export.deploy_graph import CONFIDENCE, INPUT_NAME, LOGITS, MASKS
from segkc_deploy.manifest import Contract, TensorContract
from segkc_deploy.training.models.segmenter import Segmenter

_OUTPUTS = {
    MASKS: TensorContract(name=MASKS, dtype="uint8", layout="NHW"),
    CONFIDENCE: TensorContract(name=CONFIDENCE, dtype="float32", layout="NHW"),
    LOGITS: TensorContract(name=LOGITS, dtype="float32", layout="NHWC"),
}


def contract_of(
    network: Segmenter,
    size: tuple[int, int],
    outputs: Sequence[str] = (MASKS,),
    batch: int = -1,
    max_batch: int | None = None,
    free_size: bool = False,
    min_size: tuple[int, int] | None = None,
    max_size: tuple[int, int] | None = None,
) -> Contract:
    """Return the contract of an artifact of `network`; see `Contract` for the values."""
    return Contract(
        input=TensorContract(name=INPUT_NAME, dtype=f"uint{network.pixels.bits}", layout="NHWC"),
        outputs=tuple(_OUTPUTS[name] for name in outputs),
        size=size,
        batch=batch,
        max_batch=max_batch,
        size_multiple=network.size_multiple if free_size else None,
        min_size=min_size,
        max_size=max_size,
        align_corners=network.decoder.align_corners,
        bands=network.pixels.bands,
        color="RGB" if network.pixels.is_rgb else "bands",
    )
