"""An image's mask with ONNX Runtime and OpenCV, and nothing of segkc-deploy.

pip install onnxruntime opencv-python
python run_onnx.py junior-fp32.onnx street.jpg mask.png
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if image.shape[0] > 2 * height or image.shape[1] > 2 * width:
        # Bilinear interpolation would skip pixels. Averaging by area can only shrink: the other side is left for below.
        shrunk = min(image.shape[1], width), min(image.shape[0], height)
        image = cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)


def main(artifact: str, source: str, target: str) -> None:
    session = onnxruntime.InferenceSession(artifact, providers=["CPUExecutionProvider"])
    _, height, width, _ = session.get_inputs()[0].shape  # uint8 [N, height, width, 3]

    bgr = cv2.imread(source)
    if bgr is None:
        sys.exit(f"{source}: missing, or not an image that OpenCV reads")
    image = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    batch = resize(image, height, width)[None]
    (masks,) = session.run(["masks"], {"images": batch})  # uint8 [N, height, width]: class ids
    mask = cv2.resize(masks[0], image.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)

    cv2.imwrite(target, mask)
    names = json.loads(session.get_modelmeta().custom_metadata_map.get("names", "{}"))
    for class_id, pixels in enumerate(cv2.calcHist([mask], [0], None, [256], [0, 256]).ravel()):
        if pixels:
            print(f"{class_id:3} {names.get(str(class_id), '')} {pixels / mask.size:.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
