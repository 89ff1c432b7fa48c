"""Data set files of other tools, recognized by their keys and answered with the way to a data spec."""

from typing import Any

_TOOLS = {
    "Ultralytics YOLO": {"names", "nc", "train", "test", "path", "download", "kpt_shape", "roboflow"},
    "MMSegmentation": {"dataset_type", "data_root", "train_dataloader", "reduce_zero_label", "img_suffix"},
    "TorchVision or Lightning": {"train_dir", "val_dir", "num_classes", "data_dir", "root_dir", "batch_size"},
}


def foreign_spec(data: dict[str, Any]) -> str | None:
    """Return what to do with a mapping that has another tool's keys; None for one that has none of them, or our own."""
    if {"labeled", "layout", "classes"} & set(data):
        return None
    for tool, keys in _TOOLS.items():
        if found := [key for key in data if key in keys]:
            keys_found = "keys" if len(found) > 1 else "key"
            return (
                f"a file of {tool} (the {keys_found} {', '.join(map(repr, found))}), no data spec;"
                " `segkc-deploy init FOLDER` writes one for the folder that holds the images, or see docs/data.md"
            )
    return None
