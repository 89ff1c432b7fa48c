"""The training loop, the same for every method."""

import resource
import sys
import time
from collections.abc import Iterator
from itertools import repeat
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.optim import AdamW

from segkc_deploy.data.images import read_image
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.errors import ConfigError, NonFiniteLossError, UserError
from segkc_deploy.evaluation import evaluate
from segkc_deploy.machine import available_cores
from segkc_deploy.training.checkpoint import load_checkpoint, save_checkpoint
from segkc_deploy.training.data.datasets import Example, LabeledDataset, UnlabeledDataset, draw_loader
from segkc_deploy.training.loss_window import HOW_TO_GO_ON, LossWindow
from segkc_deploy.training.methods.base import Batch, Method
from segkc_deploy.training.network_file import NetworkCard, save_network
from segkc_deploy.training.panels import comparison_panels
from segkc_deploy.training.prediction import input_size, mask_predictor, to_float_images
from segkc_deploy.training.recipe import Recipe
from segkc_deploy.training.run_directory import RunDirectory
from segkc_deploy.training.run_log import RunLog
from segkc_deploy.training.schedule import learning_rate_factor

_PANELS = 4
_MOST_WORKERS = 16


class Trainer:
    """Runs a method from its first step, or from its last checkpoint, to its last step."""

    def __init__(
        self, recipe: Recipe, method: Method, sets: ImageSets, run: RunDirectory, steps: int, fabric: Fabric
    ) -> None:
        self.recipe, self.sets, self.run, self.steps, self.fabric = recipe, sets, run, steps, fabric
        optimizer = AdamW(
            parameter_groups(method, recipe), betas=recipe.optimizer.betas, weight_decay=recipe.optimizer.weight_decay
        )
        method = method.to(memory_format=torch.channels_last)
        self.wrapped, self.optimizer = fabric.setup(method, optimizer)
        self.method: Method = self.wrapped.module
        if recipe.compile:
            for network in self.method.networks().values():
                network.backbone.compile()
                network.decoder.compile()
        self.scores: dict[str, float] = {}
        self.saved_step = self.validated_step = 0

    def resume(self) -> int:
        """Restore the last checkpoint and return the steps done."""
        # Fabric wraps the optimizer; the checkpoint holds the state of the one inside.
        self.saved_step, extra = load_checkpoint(self.run.checkpoint, self.method, self.optimizer.optimizer)
        if extra["data"] != self._data_facts():
            raise ConfigError(
                f"{self.run.path}: the image lists or the classes have changed since the checkpoint; restore them,"
                " or start anew with --overwrite"
            )
        self.scores, self.validated_step = extra["scores"], extra["validated_step"]
        self.fabric.strategy.precision.load_state_dict(extra["precision"])
        return self.saved_step

    def fit(self, log: RunLog) -> None:
        """Train until the last step, reporting, validating and checkpointing on the way."""
        window = LossWindow()
        batches = self._batches(log.first_step)
        self.method.train()
        if self._is_validated(log.first_step) and self.validated_step != log.first_step:
            self._validate(log.first_step, log)  # the run was interrupted between this checkpoint and its validation
        started, images = time.perf_counter(), 0
        for step in range(log.first_step, self.steps):
            images += self._train_step(step, batches, window)
            done = step + 1
            validates = self._is_validated(done)
            saves = validates or done % self.recipe.checkpoint_every == 0
            if saves or done % self.recipe.log_every == 0:
                values = window.flush(self._last_checkpoint())
                values["lr"] = self.optimizer.param_groups[0]["lr"]
                values["images_per_s"] = images / (time.perf_counter() - started)
                values["memory_mib"] = self._peak_memory_mib()
                log.training(done, values)
                started, images = time.perf_counter(), 0
            if saves:
                self._refuse_bad_weights(done)
                self._save(done)
            if validates:
                self._validate(done, log)
                started = time.perf_counter()

    def _is_validated(self, step: int) -> bool:
        return step > 0 and (step == self.steps or step % self.recipe.validation.every == 0)

    def _train_step(self, step: int, batches: Iterator[Batch], window: LossWindow) -> int:
        """Take one optimizer step and return the number of images it saw."""
        factor = learning_rate_factor(
            step, self.steps, self.recipe.schedule.warmup_steps, self.recipe.schedule.poly_power
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        passes = self.recipe.batch.accumulation
        images = 0
        for index in range(passes):
            batch = next(batches)
            with self.fabric.no_backward_sync(self.wrapped, enabled=index < passes - 1):
                output = self.wrapped(batch, step)
                total = output.total()
                self.fabric.backward(total / passes)
            window.add(step + 1, output, total)
            images += len(batch.labeled["image"]) + (len(batch.unlabeled["weak"]) if batch.unlabeled else 0)
        if self.recipe.optimizer.clip_norm is not None:
            self.fabric.clip_gradients(
                self.wrapped, self.optimizer, max_norm=self.recipe.optimizer.clip_norm, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.update_average(step)
        return images

    def _validate(self, step: int, log: RunLog) -> None:
        """Write the networks to their files, score every one on the validation set, and draw panels."""
        self.scores = {}  # the last validation's are not this step's, should this one fail
        self._write_networks(step)
        if self.sets.val:
            self.method.eval()
            predictors = {
                name: mask_predictor(network, self.fabric.device, self.recipe.validation.size)
                for name, network in self.method.networks().items()
            }
            self.scores = {
                name: evaluate(predict, self.sets, f"validating {name}").scores.miou
                for name, predict in predictors.items()
            }
            log.validation(step, self.scores)
            suffix = "_ema" if self.recipe.ship == "ema" else ""
            shown = {role: predictors[role + suffix] for role in ("junior", "senior") if role + suffix in predictors}
            log.pictures(step, comparison_panels(shown, self.sets, _PANELS))
            self.method.train()
            self._write_networks(step)
        self.validated_step = step
        self._save(step)  # a second time, with the scores

    def _refuse_bad_weights(self, step: int) -> None:
        """Refuse weights that the last update made NaN or infinite: no loss has seen them yet."""
        tensors = [tensor for tensor in self.method.learners.state_dict().values() if tensor.is_floating_point()]
        if not bool(torch.isfinite(torch.stack(torch._foreach_norm(tensors))).all()):
            raise NonFiniteLossError(
                f"step {step}: the update made weights NaN or infinite; last good checkpoint:"
                f" {self._last_checkpoint()}; {HOW_TO_GO_ON}"
            )

    def _write_networks(self, step: int) -> None:
        suffix = "_ema" if self.recipe.ship == "ema" else ""
        networks = self.method.networks()
        for role in ("junior", "senior"):
            if role + suffix not in networks:
                continue
            network = networks[role + suffix]
            card = NetworkCard(
                role=role,
                network=network.spec,
                labels=self.sets.labels,
                input_size=self._usual_input_size(network.size_multiple),
                recipe=self.recipe.name,
                method=self.recipe.method["name"],
                step=step,
                averaged=bool(suffix),
                scores={name: score for name, score in self.scores.items() if name.startswith(role)},
            )
            save_network(self.run.network(role), network, card)

    def _usual_input_size(self, multiple: int) -> tuple[int, int]:
        """The network's input size for the first validation image, or for the crop where there is none."""
        size = self.recipe.validation.size or self.recipe.crop_size
        if self.recipe.validation.size is None and self.sets.val:
            image = read_image(self.sets.val[0].image)
            size = (image.shape[0], image.shape[1])
        return input_size(size, multiple, None)

    def _save(self, step: int) -> None:
        extra = {
            "data": self._data_facts(),
            "scores": self.scores,
            "validated_step": self.validated_step,
            "precision": self.fabric.strategy.precision.state_dict(),
        }
        save_checkpoint(self.run.checkpoint, step, self.method, self.optimizer.optimizer, extra)
        self.saved_step = step

    def _last_checkpoint(self) -> str:
        return f"{self.run.checkpoint} (step {self.saved_step})" if self.saved_step else "none yet"

    def _data_facts(self) -> dict[str, Any]:
        """What every later step depends on, as JSON values: the same ids in the same order give the same draws."""
        return {
            "labeled": [sample.id for sample in self.sets.labeled],
            "unlabeled": [sample.id for sample in self.sets.unlabeled],
            "labels": self.sets.labels.model_dump(mode="json"),
            "label_mapping": [list(pair) for pair in sorted(self.sets.label_mapping.items())],
        }

    def _batches(self, first_step: int) -> Iterator[Batch]:
        """Batches on the device, from those of 0-based `first_step` on."""
        recipe = self.recipe
        passes = recipe.batch.accumulation
        first, count = first_step * passes, self.steps * passes
        total_workers = min(available_cores() - 1, _MOST_WORKERS) if recipe.workers is None else recipe.workers
        # Unlabeled images have more views; where there is one worker, it is theirs.
        workers = total_workers // 2 if self.method.strong_views else total_workers
        pin_memory = self.fabric.device.type == "cuda"
        labeled = draw_loader(
            LabeledDataset(self.sets, recipe), recipe.batch.labeled // passes, first, count, workers, pin_memory
        )
        unlabeled: Iterator[Example | None] = repeat(None)
        if self.method.strong_views:
            dataset = UnlabeledDataset(self.sets, recipe, self.method.strong_views)
            unlabeled = iter(
                draw_loader(
                    dataset, recipe.batch.unlabeled // passes, first, count, total_workers - workers, pin_memory
                )
            )
        for labeled_part, unlabeled_part in zip(labeled, unlabeled, strict=False):
            yield Batch(self._to_device(labeled_part), self._to_device(unlabeled_part) if unlabeled_part else None)

    def _to_device(self, loaded: Example) -> dict[str, Tensor]:
        if isinstance(loaded, UserError):
            raise loaded
        moved: dict[str, Tensor] = {}
        for name, tensor in loaded.items():
            tensor = tensor.to(self.fabric.device, non_blocking=True)
            if tensor.dtype == torch.uint8:
                tensor = to_float_images(tensor).contiguous(memory_format=torch.channels_last)
            moved[name] = tensor
        return moved

    def _peak_memory_mib(self) -> float:
        """Peak of the GPU's allocated memory, or of the process's resident memory on a CPU."""
        if self.fabric.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.fabric.device) / 2**20
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def parameter_groups(method: Method, recipe: Recipe) -> list[dict[str, object]]:
    """Split the learners' parameters into backbones and everything else, each with its peak learning rate."""
    backbone: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in method.learners.named_parameters():
        (backbone if ".backbone." in name else rest).append(parameter)
    lr = recipe.optimizer.lr
    groups = [(backbone, lr), (rest, lr * recipe.optimizer.decoder_lr_multiplier)]
    return [{"params": params, "lr": rate, "peak_lr": rate} for params, rate in groups]
