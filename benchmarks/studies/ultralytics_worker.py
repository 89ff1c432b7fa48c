"""What the comparison with Ultralytics runs in an environment of its own: train, export or predict.

It imports nothing of this package, whose environment has no Ultralytics. What a call prints as its last line is JSON.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def train(network: str, data: str, minutes: str, size: str, out: str) -> None:
    """Train a semantic network from random weights for so many minutes, and print the path of its weights.

    Everything but the time, the input size and the threads is Ultralytics' default; validation is left out, so that all
    of the time is training.
    """
    import torch
    from ultralytics import YOLO  # type: ignore[import-not-found]

    model = YOLO(network)
    # Ultralytics sets a number of its own when it chooses the device.
    model.add_callback("on_train_start", lambda trainer: torch.set_num_threads(_threads()))
    model.train(
        data=data, time=float(minutes) / 60, imgsz=int(size), batch=8, device="cpu", workers=0, seed=0, val=False,
        plots=False, amp=False, cache="ram", patience=0, project=out, name="run", exist_ok=True,
    )  # fmt: skip
    print(json.dumps({"weights": str(Path(out, "run", "weights", "last.pt"))}))


def export(weights: str, size: str) -> None:
    """Export to OpenVINO's format, in which Ultralytics runs fastest on a CPU, and print its path."""
    from ultralytics import YOLO

    model = YOLO(weights)
    parameters = sum(parameter.numel() for parameter in model.model.parameters())
    exported = model.export(format="openvino", imgsz=int(size), device="cpu")
    print(json.dumps({"exported": str(exported), "parameters": parameters}))


def predict(model: str, size: str) -> None:
    """Answer requests until stdin ends: a line names an image and a mask file (`.npy`) and how often it is timed."""
    import torch
    from ultralytics import YOLO

    network = YOLO(model, task="semantic")

    def mask_of(image: np.ndarray) -> np.ndarray:
        (result,) = network.predict(image, imgsz=int(size), device="cpu", verbose=False)
        return np.asarray(result.semantic_mask.data).squeeze().astype(np.uint8)

    mask_of(np.zeros((64, 64, 3), np.uint8))
    torch.set_num_threads(_threads())  # Ultralytics has set a number of its own by now
    answer(lambda image: mask_of(np.ascontiguousarray(image[..., ::-1])))  # BGR, as OpenCV reads


def answer(mask_of: Callable[[np.ndarray], np.ndarray]) -> None:
    """Answer requests with `mask_of`, from uint8 (H, W, 3) RGB to uint8 (H, W): write the mask, print the seconds."""
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        image = np.load(request["image"])
        np.save(request["mask"], mask_of(image))  # the first one warms up
        seconds = []
        for _ in range(request["times"]):
            started = time.perf_counter()
            mask_of(image)
            seconds.append(time.perf_counter() - started)
        print(json.dumps(seconds), flush=True)


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "1"))


if __name__ == "__main__":
    commands: dict[str, Callable[..., None]] = {"train": train, "export": export, "predict": predict}
    commands[sys.argv[1]](*sys.argv[2:])
