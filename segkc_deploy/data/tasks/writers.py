"""The labeling tools by name."""

from segkc_deploy.data.tasks.cvat_tasks import CVATTasks
from segkc_deploy.data.tasks.fiftyone_tasks import FiftyOneTasks
from segkc_deploy.data.tasks.label_studio_tasks import LabelStudioTasks
from segkc_deploy.data.tasks.task_image import TaskWriter

WRITERS: dict[str, type[TaskWriter]] = {
    "cvat": CVATTasks,
    "label-studio": LabelStudioTasks,
    "fiftyone": FiftyOneTasks,
}
