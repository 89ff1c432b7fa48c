"""Run the command line in this process, as `segkc-deploy` would."""

import sys
from dataclasses import dataclass

import pytest

from segkc_deploy import cli


@dataclass(frozen=True)
class Finished:
    """What a command did: its exit code and what it printed."""

    code: int
    out: str
    err: str


class CommandLine:
    """Runs commands; made by a fixture from pytest's own ones."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capfd = monkeypatch, capfd

    def __call__(self, *arguments: object) -> Finished:
        self._monkeypatch.setattr(sys, "argv", ["segkc-deploy", *map(str, arguments)])
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as finished:
            cli.main()
        printed = self._capfd.readouterr()
        return Finished(int(finished.value.code or 0), printed.out, printed.err)

    def refused(self, *arguments: object) -> str:
        """Run a command that has to end in exit code 2 and one line; return that line."""
        finished = self(*arguments)
        assert finished.code == 2, finished
        assert finished.out == ""
        (line,) = finished.err.splitlines()
        assert line.startswith("error: ")
        return line
