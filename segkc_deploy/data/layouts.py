"""The folder structures that need no explanation in a data spec: one description each, `LAYOUTS` by name.

To add one, describe it here and list it in `LAYOUTS`; a data spec can still set every part itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from segkc_deploy.data import class_names
from segkc_deploy.labels import Color, default_palette


@dataclass(frozen=True)
class Split:
    """Where the images and masks of one split are; every path is relative to the data spec's root.

    `masks` and `lists` are tried in order, mask by mask and list by list; without a list every image belongs.
    """

    images: str | None = None
    masks: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()


@dataclass(frozen=True)
class MaskName:
    """A mask is named id + `ending` + suffix; its values mean what `mapping` says, which may use `IGNORED`."""

    ending: str = ""
    mapping: Mapping[int, int] = field(default_factory=dict)


#: Stands for the spec's `ignore_index` in a layout's mapping.
IGNORED = -1


@dataclass(frozen=True)
class Layout:
    """A data set's folders, names and classes.

    `image_ending` is what an image's name has after the id. Of `mask_names` the first one with a file is the data
    set's. `unlabeled` are folders that are used, beside the rest of the training images, where they exist.
    """

    train: Split = Split()
    val: Split = Split()
    unlabeled: tuple[str, ...] = ()
    image_ending: str = ""
    mask_names: tuple[MaskName, ...] = (MaskName(),)
    classes: Mapping[str, Color] | None = None


FOLDERS = Layout()

_VOC_MASKS = ("SegmentationClassAug", "SegmentationClass")
_VOC_LISTS = "ImageSets/Segmentation"

VOC = Layout(
    train=Split(
        "JPEGImages", _VOC_MASKS, tuple(f"{_VOC_LISTS}/{name}.txt" for name in ("train_aug", "trainaug", "train"))
    ),
    # The extra masks (SBD) are coarser than the original ones: validation prefers the latter.
    val=Split("JPEGImages", _VOC_MASKS[::-1], (f"{_VOC_LISTS}/val.txt",)),
    classes={
        "background": (0, 0, 0),
        "aeroplane": (128, 0, 0),
        "bicycle": (0, 128, 0),
        "bird": (128, 128, 0),
        "boat": (0, 0, 128),
        "bottle": (128, 0, 128),
        "bus": (0, 128, 128),
        "car": (128, 128, 128),
        "cat": (64, 0, 0),
        "chair": (192, 0, 0),
        "cow": (64, 128, 0),
        "dining table": (192, 128, 0),
        "dog": (64, 0, 128),
        "horse": (192, 0, 128),
        "motorbike": (64, 128, 128),
        "person": (192, 128, 128),
        "potted plant": (0, 64, 0),
        "sheep": (128, 64, 0),
        "sofa": (0, 192, 0),
        "train": (128, 192, 0),
        "tv monitor": (0, 64, 128),
    },
)

# The `labelIds` of the 19 classes in the order of their `labelTrainIds`; the other ids up to 33 are not scored.
_CITYSCAPES_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

CITYSCAPES = Layout(
    train=Split("leftImg8bit/train", ("gtFine/train",)),
    val=Split("leftImg8bit/val", ("gtFine/val",)),
    unlabeled=("leftImg8bit/train_extra",),
    image_ending="_leftImg8bit",
    mask_names=(
        MaskName("_gtFine_labelTrainIds"),
        MaskName(
            "_gtFine_labelIds",
            dict.fromkeys(range(34), IGNORED)
            | {label_id: index for index, label_id in enumerate(_CITYSCAPES_LABEL_IDS)},
        ),
    ),
    classes={
        "road": (128, 64, 128),
        "sidewalk": (244, 35, 232),
        "building": (70, 70, 70),
        "wall": (102, 102, 156),
        "fence": (190, 153, 153),
        "pole": (153, 153, 153),
        "traffic light": (250, 170, 30),
        "traffic sign": (220, 220, 0),
        "vegetation": (107, 142, 35),
        "terrain": (152, 251, 152),
        "sky": (70, 130, 180),
        "person": (220, 20, 60),
        "rider": (255, 0, 0),
        "car": (0, 0, 142),
        "truck": (0, 0, 70),
        "bus": (0, 60, 100),
        "train": (0, 80, 100),
        "motorcycle": (0, 0, 230),
        "bicycle": (119, 11, 32),
    },
)

# The 480x360 form with 11 classes that SegNet introduced; its masks hold 11 where nothing is labeled.
CAMVID = Layout(
    train=Split("images/train", ("masks/train",)),
    val=Split("images/val", ("masks/val",)),
    mask_names=(MaskName(mapping={11: IGNORED}),),
    classes={
        "sky": (128, 128, 128),
        "building": (128, 0, 0),
        "pole": (192, 192, 128),
        "road": (128, 64, 128),
        "pavement": (0, 0, 192),
        "tree": (128, 128, 0),
        "sign symbol": (192, 128, 128),
        "fence": (64, 64, 128),
        "car": (64, 0, 128),
        "pedestrian": (64, 64, 0),
        "bicyclist": (0, 128, 192),
    },
)


def _colored(names: Sequence[str]) -> Mapping[str, Color]:
    return dict(zip(names, default_palette(len(names)), strict=True))


# SceneParse150, as the challenge's archive ships: 0 is "other objects", 1 to 150 are the classes.
ADE20K = Layout(
    train=Split("images/training", ("annotations/training",)),
    val=Split("images/validation", ("annotations/validation",)),
    mask_names=(MaskName(mapping={0: IGNORED} | {value: value - 1 for value in range(1, 151)}),),
    classes=_colored(class_names.ADE20K),
)

# The same with masks that already hold 0 to 149 and 255, as UniMatch V2 distributes them.
ADE20K_SHIFTED = replace(ADE20K, mask_names=(MaskName(),))

# The 81 classes that semi-supervised segmentation is scored on: background, then the objects in the order of their ids.
COCO = Layout(
    train=Split("train2017", ("masks/train2017", "masks", "annotations/instances_train2017.json")),
    val=Split("val2017", ("masks/val2017", "masks", "annotations/instances_val2017.json")),
    classes=_colored(("background", *class_names.COCO_THINGS)),
)

# The category ids that COCO reserved and never used; stuffthingmaps hold id - 1.
_COCO_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
_COCO_STUFF_VALUES = tuple(value for value in range(182) if value + 1 not in _COCO_UNUSED_IDS)

COCO_STUFF = Layout(
    train=Split("train2017", ("stuffthingmaps/train2017",)),
    val=Split("val2017", ("stuffthingmaps/val2017",)),
    mask_names=(
        MaskName(
            mapping=dict.fromkeys(range(182), IGNORED)
            | {value: class_id for class_id, value in enumerate(_COCO_STUFF_VALUES)}
        ),
    ),
    classes=_colored(class_names.COCO_THINGS + class_names.COCO_STUFF),
)

LAYOUTS: Mapping[str, Layout] = {
    "folders": FOLDERS,
    "voc": VOC,
    "cityscapes": CITYSCAPES,
    "camvid": CAMVID,
    "ade20k": ADE20K,
    "ade20k-shifted": ADE20K_SHIFTED,
    "coco": COCO,
    "coco-stuff": COCO_STUFF,
}
