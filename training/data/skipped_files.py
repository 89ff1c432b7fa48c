"""The files that a training could not read and replaced by others: counted, listed at its end, and limited."""

from collections.abc import Callable, Iterable

from segkc_deploy.errors import DataError


class SkippedFiles:
    """The unreadable files that a training has met, each once, on all ranks.

    Args:
        limit: how many there may be.
        messages: those that an interrupted run had met; each begins with its file.
        how_to_go_on: returns what is done with the run once there are too many.
    """

    def __init__(
        self,
        limit: int,
        messages: Iterable[str] = (),
        how_to_go_on: Callable[[], str] = lambda: "continue with --resume",
    ) -> None:
        self.limit = limit
        self._how_to_go_on = how_to_go_on
        self._messages = dict.fromkeys(messages)
        self._new: dict[str, None] = {}

    @property
    def messages(self) -> tuple[str, ...]:
        """What was wrong with each file, in the order in which they were met."""
        return tuple(self._messages)

    def add(self, messages: Iterable[str]) -> None:
        """Add the files that one batch of this rank met.

        Raises:
            DataError: there are more than the limit allows.
        """
        self._new |= dict.fromkeys(message for message in messages if message not in self._messages)
        self._refuse_many()

    def collect(self, of_all_ranks: Callable[[list[str]], list[list[str]]]) -> list[str]:
        """Return the messages that any rank has added since the last call; every rank has to call this.

        Args:
            of_all_ranks: from this rank's messages to those of each rank.

        Raises:
            DataError: together the ranks met more than the limit allows.
        """
        found = dict.fromkeys(message for messages in of_all_ranks(list(self._new)) for message in messages)
        new = [message for message in found if message not in self._messages]
        self._messages |= dict.fromkeys(new)
        self._new = {}
        self._refuse_many()
        return new

    def _refuse_many(self) -> None:
        met = [*self._messages, *self._new]
        if len(met) > self.limit:
            raise DataError(
                f"{met[-1]}; {len(met)} unreadable image or mask {'file' if len(met) == 1 else 'files'} so far, and"
                f" unreadable_files = {self.limit} may be skipped: restore the file, or"
                f" {self._how_to_go_on()} -o unreadable_files={2 * len(met)}"
            )
