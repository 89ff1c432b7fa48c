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


#: FP16 halves its loss scale after each step that overflows: from 65536, as many in a row leave it below 1e-4.
_MOST_OVERFLOWS = 30


class MetricAccumulator:
    """Collects each step's terms, monitors and gradient norms; `flush` averages them and refuses NaN and infinity.

    Args:
        skips_overflows: whether steps whose gradients are not finite are skipped, as the loss scaling of FP16 does;
            such steps are then counted.
    """

    def __init__(self, skips_overflows: bool = False) -> None:
        self.steps: list[int] = []
        self.names: list[str] = []
        self.term_count = 0
        self.rows: list[Tensor] = []
        self.skips_overflows = skips_overflows
        self.parts: list[str] = []
        self.norms: dict[int, Tensor] = {}
        self.overflows_in_row = 0

    def add(self, step: int, output: StepOutput, total: Tensor) -> None:
        """Keep the values of 1-based `step`; with accumulation a step adds several."""
        values = {"loss": total, **output.terms, **output.monitors}
        self.names = list(values)
        self.term_count = 1 + len(output.terms)
        self.steps.append(step)
        self.rows.append(torch.stack([value.detach().float().reshape(()) for value in values.values()]))

    def add_gradients(self, step: int, norms: dict[str, Tensor]) -> None:
        """Keep the norms of the gradients of 1-based `step`, by part of the networks."""
        self.parts = list(norms)
        self.norms[step] = torch.stack(list(norms.values())).float()

    def flush(self, last_checkpoint: Callable[[], str], of_all_ranks: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return the mean of each value since the last flush, by name.

        Args:
            last_checkpoint: returns where training can continue from, for the message.
            of_all_ranks: from this rank's tensor to those of all ranks, stacked along a new first axis.

        Raises:
            NonFiniteLossError: a term or a gradient was NaN or infinite on some rank; the message names the first step,
                and the term or the part of the networks.
        """
        tables = of_all_ranks(torch.stack(self.rows)).cpu()
        terms = tables[..., : self.term_count]
        # Where ranks differ, NaN and infinity win: every rank then stops at the same step.
        worst = terms.gather(0, (~torch.isfinite(terms)).long().argmax(dim=0, keepdim=True))[0]
        # The same on all ranks, which have averaged their gradients.
        norms = torch.stack(list(self.norms.values())).cpu() if self.norms else torch.zeros(0, 1)
        # A bad gradient makes the losses of the next step bad: the earlier one is the cause.
        found = [mistake for mistake in (self._bad_term(worst), self._bad_gradient(norms, worst)) if mistake]
        if found:
            step, what = min(found, key=lambda mistake: mistake[0])
            raise NonFiniteLossError(f"step {step}: {what}; last good checkpoint: {last_checkpoint()}; {HOW_TO_GO_ON}")
        means = dict(zip(self.names, tables.mean(dim=0).mean(dim=0).tolist(), strict=True))
        finite = norms[torch.isfinite(norms).all(dim=1)]
        if len(finite):
            means["gradient_norm"] = float(torch.linalg.vector_norm(finite, dim=1).mean())
        if self.skips_overflows:
            means["skipped_steps"] = float(len(norms) - len(finite))
        self.steps, self.rows, self.norms = [], [], {}
        return means

    def _bad_term(self, terms: Tensor) -> tuple[int, str] | None:
        """Return the first step with a term that is not finite, and which it is; `terms` is (rows, terms)."""
        bad = (~torch.isfinite(terms)).nonzero()
        if not len(bad):
            return None
        row = int(bad[0, 0])
        # The total is bad whenever a term is; the term tells more.
        columns = [int(column) for column in bad[bad[:, 0] == row, 1]]
        column = columns[1] if len(columns) > 1 else columns[0]
        return self.steps[row], f"the loss term {self.names[column]} is {terms[row, column].item()}"

    def _bad_gradient(self, norms: Tensor, terms: Tensor) -> tuple[int, str] | None:
        """Return the first step whose gradients are not finite and not skipped; `norms` is (steps, parts)."""
        allowed = _MOST_OVERFLOWS if self.skips_overflows else 0
        for step, row in zip(self.norms, norms, strict=True):
            bad = (~torch.isfinite(row)).nonzero()
            self.overflows_in_row = self.overflows_in_row + 1 if len(bad) else 0
            if self.overflows_in_row > allowed:
                part = int(bad[0])
                values = terms[self.steps.index(step), 1:].tolist()
                losses = ", ".join(f"{name} {value:.4g}" for name, value in zip(self.names[1:], values, strict=False))
                repeated = f" for the {allowed + 1}st step in a row" if allowed else ""
                return (
                    step,
                    f"the gradients of {self.parts[part]} are {row[part].item()}{repeated}; its losses: {losses}",
                )
        return None
