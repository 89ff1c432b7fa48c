"""The training loop, the same for every method."""

import resource
import sys
import time
from collections.abc import Iterator
from functools import cached_property
from itertools import repeat

import torch
from lightning.fabric import Fabric
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch.optim import AdamW

from segkc_deploy.data.census import Census
from segkc_deploy.data.masks import read_sample
from segkc_deploy.data.samples import ImageSets
from segkc_deploy.errors import ConfigError, NonFiniteLossError, TrainingStoppedError
from segkc_deploy.training.batch_split import BatchSplit, random_seed
from segkc_deploy.training.batches import batches
from segkc_deploy.training.data.decoded_cache import DecodedCache
from segkc_deploy.training.data.skipped_files import SkippedFiles
from segkc_deploy.training.data_facts import changes_in_words, data_facts, remarks_on_changes
from segkc_deploy.training.evaluation.panels import comparison_panels
from segkc_deploy.training.evaluation.prediction import mask_predictor
from segkc_deploy.training.evaluation.scoring import shared_miou
from segkc_deploy.training.files.checkpoint import (
    CheckpointWriter,
    read_newest_checkpoint,
    restore_checkpoint,
    take_checkpoint,
)
from segkc_deploy.training.files.data_record import DataRecord, facts_of, record_of
from segkc_deploy.training.files.run_directory import RunDirectory
from segkc_deploy.training.gradients import measure_gradients
from segkc_deploy.training.methods.base import Batch, Method
from segkc_deploy.training.metric_accumulator import HOW_TO_GO_ON, MetricAccumulator
from segkc_deploy.training.recipe import Recipe
from segkc_deploy.training.resuming import how_to_resume
from segkc_deploy.training.run_log import Log
from segkc_deploy.training.run_networks import shipped_networks, write_networks
from segkc_deploy.training.schedule import learning_rate_factor, peak_learning_rate
from segkc_deploy.training.shared_flag import SharedFlag
from segkc_deploy.training.stop_request import StopRequest
from segkc_deploy.training.terms.sum_of_ranks import sum_of_ranks

_PANELS = 4


class Trainer:
    """Runs a method from its first step, or from its last checkpoint, to its last step.

    With several devices there is a trainer on each rank: all compute, and rank 0 alone writes.
    """

    def __init__(
        self,
        recipe: Recipe,
        method: Method,
        sets: ImageSets,
        run: RunDirectory,
        steps: int,
        split: BatchSplit,
        fabric: Fabric,
        census: Census | None = None,
    ) -> None:
        self.recipe, self.sets, self.run, self.steps, self.split = recipe, sets, run, steps, split
        self.fabric, self.census = fabric, census
        if split.ranks > 1 and fabric.device.type == "cuda":
            method = convert_sync_batchnorm(method)
        optimizer = AdamW(
            parameter_groups(method, recipe),
            betas=recipe.optimizer.betas,
            weight_decay=recipe.optimizer.weight_decay,
            # A third of the time on a CPU. It unscales fp16 gradients by itself, so they could not be clipped before.
            fused=recipe.precision != "fp16",
        )
        method = method.to(memory_format=torch.channels_last)
        self.wrapped, self.optimizer = fabric.setup(method, optimizer)
        self.method: Method = self.wrapped.module
        if recipe.activation_checkpointing:
            for role, network in self.method.networks().items():
                if not role.endswith("_ema"):  # these run without gradients
                    network.backbone.checkpoint_activations()
        if recipe.compile:
            for network in self.method.networks().values():
                network.backbone.compile()
                network.decoder.compile()
        self.statistics = _statistics(self.method)
        self.scores: dict[str, float] = {}
        self.writer = CheckpointWriter(run)
        self.validated_step = 0
        self._told_nothing_labeled = False
        self._stop_flag = SharedFlag(fabric.device)
        self.skipped = SkippedFiles(recipe.unreadable_files, (), self._how_to_go_on)
        self.cache = DecodedCache.of(recipe.cache)

    def resume(self) -> tuple[int, list[str]]:
        """Restore the newest undamaged checkpoint; return the steps taken and remarks on a damaged one and the data."""
        checkpoint, remark = read_newest_checkpoint(self.run)
        extra = checkpoint.extra
        # First: with other classes the weights would not even fit.
        before = facts_of(extra["data"], checkpoint.tensors)
        now = data_facts(self.sets)
        if changes := changes_in_words(before, now, str(self.run.path)):
            raise ConfigError(f"{self.run.path}: {changes}")
        # Fabric wraps the optimizer; the checkpoint holds the state of the one inside.
        restore_checkpoint(checkpoint, self.method, self.optimizer.optimizer)
        self.scores, self.validated_step = extra["scores"], extra["validated_step"]
        skipped = extra.get("skipped_files", ())
        self.skipped = SkippedFiles(self.recipe.unreadable_files, skipped, self._how_to_go_on)
        self.fabric.strategy.precision.load_state_dict(extra["precision"])
        self.writer.step = checkpoint.step
        self.fabric.barrier()
        if remark and self.fabric.is_global_zero:
            # Otherwise the next checkpoint would move the damaged one to the place of this one.
            self.run.previous_checkpoint.replace(self.run.checkpoint)
        return checkpoint.step, [*([remark] if remark else []), *remarks_on_changes(before, now)]

    def fit(self, first_step: int, log: Log, stop: StopRequest) -> None:
        """Train until the last step, reporting, validating and checkpointing on the way.

        Raises:
            TrainingStoppedError: `stop` was set; the state after the last step is saved.
            NonFiniteLossError: training diverged.
        """
        try:
            self._fit(first_step, log, stop)
        finally:
            self.writer.close()

    def _fit(self, first_step: int, log: Log, stop: StopRequest) -> None:
        window = MetricAccumulator(skips_overflows=self.recipe.precision == "fp16")
        own_batches = self._batches(first_step)
        self.method.train()
        if self._is_validated(first_step) and self.validated_step != first_step:
            self._validate(first_step, log)  # the run was interrupted between this checkpoint and its validation
        started, images = time.perf_counter(), 0
        for step in range(first_step, self.steps):
            images += self._train_step(step, own_batches, window)
            done = step + 1
            validates = self._is_validated(done)
            # Read once: a signal that arrives later in this step would end the training without its checkpoint.
            stops = self._is_to_stop(stop) and done < self.steps
            saves = validates or stops or done % self.recipe.checkpoint_every == 0
            if saves or done % self.recipe.log_every == 0:
                values = window.flush(self._last_checkpoint, self._of_all_ranks)
                values["lr"] = self.optimizer.param_groups[0]["lr"]
                values["images_per_s"] = images / (time.perf_counter() - started)
                values["memory_mib"] = self._peak_memory_mib()
                log.training(done, values)
                if values.get("supervised_junior") == 0 and not self._told_nothing_labeled:
                    self._told_nothing_labeled = True
                    log.line(
                        f"warning: the labeled crops until step {done} had no labeled pixel, so nothing was learned"
                        " from them; look at the masks with `segkc-deploy check`"
                    )
                for message in self.skipped.collect(self._texts_of_all_ranks):
                    log.line(f"skipped, another image took its place: {message}")
                started, images = time.perf_counter(), 0
            if saves:
                self._refuse_bad_weights(done)
                self._save(done)
            if stops:
                self._stop(done, stop.name)
            if validates:
                self._validate(done, log)
                started = time.perf_counter()

    def _how_to_go_on(self) -> str:
        self.writer.wait()
        return "continue with --resume" if self.run.existing_checkpoints() else "start anew with --overwrite"

    def _stop(self, step: int, signal_name: str) -> None:
        if not self.fabric.is_global_zero:
            self.fabric.barrier()  # until rank 0 has saved and ends, and the others with it
        self.writer.wait()
        raise TrainingStoppedError(
            f"stopped by {signal_name} after step {step}, which is saved; continue with:"
            f" {how_to_resume(self.run.path, self.split.ranks)}"
        )

    def _is_validated(self, step: int) -> bool:
        return step > 0 and (step == self.steps or step % self.recipe.validation.every == 0)

    def _train_step(self, step: int, own_batches: Iterator[Batch], window: MetricAccumulator) -> int:
        """Take one optimizer step and return the number of images it saw."""
        if self.split.ranks > 1:
            torch.manual_seed(random_seed(self.recipe.seed, self.fabric.global_rank, step))
        factor = learning_rate_factor(
            step, self.steps, self.recipe.schedule.warmup_steps, self.recipe.schedule.poly_power
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        micro_batches = self.split.accumulation
        for index in range(micro_batches):
            batch = next(own_batches)
            with self.fabric.no_backward_sync(self.wrapped, enabled=index < micro_batches - 1):
                output = self.wrapped(batch, step)
                total = output.total()
                self.fabric.backward(total / micro_batches)
            window.add(step + 1, output, total)
        precision, clip_norm = self.fabric.strategy.precision, self.recipe.optimizer.clip_norm
        window.add_gradients(
            step + 1, measure_gradients(self.method.online, self.optimizer.optimizer, precision, clip_norm)
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.split.ranks > 1:
            self._average_buffers()
        self.method.update_ema(step)
        return self.split.labeled + self.split.unlabeled

    def try_step(self, batch: Batch) -> None:
        """Take one optimizer step of which every micro-batch is `batch`, and record nothing."""
        self._train_step(0, repeat(batch), MetricAccumulator())

    def _average_buffers(self) -> None:
        """Give all ranks the mean of what each has counted on its own images, such as running statistics."""
        if not self.statistics:
            return
        own = torch.cat([statistic.float().flatten() for statistic in self.statistics])
        of_ranks = self._of_all_ranks(own)
        # Where ranks agree already (synchronized batch normalization, constants), a mean would only round.
        agreed = torch.where((of_ranks == of_ranks[0]).all(dim=0), of_ranks[0], of_ranks.mean(dim=0))
        parts = agreed.split([statistic.numel() for statistic in self.statistics])
        for statistic, part in zip(self.statistics, parts, strict=True):
            statistic.copy_(part.view_as(statistic))

    def _of_all_ranks(self, tensor: Tensor) -> Tensor:
        """Return every rank's tensor, stacked along a new first axis."""
        slots = tensor.new_zeros(self.split.ranks, *tensor.shape)
        slots[self.fabric.global_rank] = tensor
        return sum_of_ranks(slots)  # a sum with zeros: exact, and NaN stays NaN

    def _is_to_stop(self, stop: StopRequest) -> bool:
        """Whether training stops after this step; several ranks answer together, one step late."""
        return bool(stop) if self.split.ranks == 1 else self._stop_flag.exchange(bool(stop))

    def _texts_of_all_ranks(self, texts: list[str]) -> list[list[str]]:
        gathered = [texts] * self.split.ranks
        if self.split.ranks > 1:
            torch.distributed.all_gather_object(gathered, texts)
        return gathered

    def _validate(self, step: int, log: Log) -> None:
        """Write the networks to their files, score every one on the validation set, and draw panels."""
        self.scores = {}  # the last validation's are not this step's, should this one fail
        self._write_networks(step)
        if self.sets.val:
            self.method.eval()
            read = self.cache.sample if self.cache else read_sample
            predictors = {
                name: mask_predictor(network, self.fabric.device, self.recipe.validation)
                for name, network in self.method.networks().items()
            }
            self.scores = shared_miou(predictors, self.sets, self.fabric, read)
            log.validation(step, self.scores)
            if self.fabric.is_global_zero:
                shown = {role: predictors[name] for role, name in shipped_networks(self.recipe, self.method).items()}
                log.pictures(step, comparison_panels(shown, self.sets, _PANELS))
            self.method.train()
            self._write_networks(step)
        self.validated_step = step
        self._save(step)  # a second time, with the scores

    def _refuse_bad_weights(self, step: int) -> None:
        """Refuse weights that the last update made NaN or infinite: no loss has seen them yet."""
        tensors = [tensor for tensor in self.method.online.state_dict().values() if tensor.is_floating_point()]
        if not bool(torch.isfinite(torch.stack(torch._foreach_norm(tensors))).all()):
            raise NonFiniteLossError(
                f"step {step}: the update made weights NaN or infinite; last good checkpoint:"
                f" {self._last_checkpoint()}; {HOW_TO_GO_ON}"
            )

    def _write_networks(self, step: int) -> None:
        if self.fabric.is_global_zero:
            write_networks(self.run, self.recipe, self.method, self.sets, step, self.scores)

    @cached_property
    def _data_record(self) -> DataRecord:
        """Made once: the ids of a million images take longer to encode than a step."""
        return record_of(data_facts(self.sets))

    def _save(self, step: int) -> None:
        if not self.fabric.is_global_zero:
            return
        record = self._data_record
        extra = {
            "data": record.header,
            "scores": self.scores,
            "validated_step": self.validated_step,
            "skipped_files": self.skipped.messages,
            "precision": self.fabric.strategy.precision.state_dict(),
        }
        self.writer.save(take_checkpoint(step, self.method, self.optimizer.optimizer, extra, record.tensors))

    def _last_checkpoint(self) -> str:
        self.writer.wait()
        return f"{self.run.checkpoint} (step {self.writer.step})" if self.writer.step else "none yet"

    def _batches(self, first_step: int) -> Iterator[Batch]:
        steps, views, rank = range(first_step, self.steps), self.method.strong_views, self.fabric.global_rank
        device = self.fabric.device
        return batches(self.recipe, self.sets, self.census, views, self.split, rank, steps, device, self.skipped)

    def _peak_memory_mib(self) -> float:
        """Peak of the GPU's allocated memory, or of the process's resident memory on a CPU."""
        if self.fabric.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.fabric.device) / 2**20
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def parameter_groups(method: Method, recipe: Recipe) -> list[dict[str, object]]:
    """Split the online networks' parameters into backbones and everything else, each with its peak learning rate."""
    backbone: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in method.online.named_parameters():
        (backbone if ".backbone." in name else rest).append(parameter)
    lr = peak_learning_rate(recipe)
    groups = [(backbone, lr), (rest, lr * recipe.optimizer.decoder_lr_multiplier)]
    return [{"params": params, "lr": rate, "peak_lr": rate} for params, rate in groups]


def _statistics(method: Method) -> list[Tensor]:
    """Return the online networks' buffers that forward passes change and checkpoints store."""
    stored = method.state_dict().keys()
    return [
        buffer
        for name, buffer in method.named_buffers()
        if name in stored and buffer.is_floating_point() and not name.startswith("ema.")
    ]
