"""Loss terms of the steps since the last report, kept on the device so that no step waits for the host."""

from collections.abc import Callable

import torch
from torch import Tensor

from segkc_deploy.errors import NonFiniteLossError
from segkc_deploy.training.methods.base import StepOutput

#: A resumed run is the same run and ends the same way; other settings make another run.
HOW_TO_GO_ON = (
    "start anew (--overwrite, or another --out) with a lower optimizer.lr, with optimizer.clip_norm,"
    " or with precision=bf16 instead of fp16"
)


class MetricAccumulator:
    """Collects each step's terms and monitors; `flush` averages them and refuses NaN and infinity."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.names: list[str] = []
        self.term_count = 0
        self.rows: list[Tensor] = []

    def add(self, step: int, output: StepOutput, total: Tensor) -> None:
        """Keep the values of 1-based `step`; with accumulation a step adds several."""
        values = {"loss": total, **output.terms, **output.monitors}
        self.names = list(values)
        self.term_count = 1 + len(output.terms)
        self.steps.append(step)
        self.rows.append(torch.stack([value.detach().float().reshape(()) for value in values.values()]))

    def flush(self, last_checkpoint: Callable[[], str], of_all_ranks: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return the mean of each value since the last flush, by name.

        Args:
            last_checkpoint: returns where training can continue from, for the message.
            of_all_ranks: from this rank's tensor to those of all ranks, stacked along a new first axis.

        Raises:
            NonFiniteLossError: a term was NaN or infinite on some rank; the message names the first step and term.
        """
        tables = of_all_ranks(torch.stack(self.rows)).cpu()
        terms = tables[..., : self.term_count]
        # Where ranks differ, NaN and infinity win: every rank then stops at the same step.
        worst = terms.gather(0, (~torch.isfinite(terms)).long().argmax(dim=0, keepdim=True))[0]
        bad = (~torch.isfinite(worst)).nonzero()
        if len(bad):
            row = int(bad[0, 0])
            # The total is bad whenever a term is; the term tells more.
            columns = [int(column) for column in bad[bad[:, 0] == row, 1]]
            column = columns[1] if len(columns) > 1 else columns[0]
            raise NonFiniteLossError(
                f"step {self.steps[row]}: the loss term {self.names[column]} is {worst[row, column].item()};"
                f" last good checkpoint: {last_checkpoint()}; {HOW_TO_GO_ON}"
            )
        means = dict(zip(self.names, tables.mean(dim=0).mean(dim=0).tolist(), strict=True))
        self.steps, self.rows = [], []
        return means
