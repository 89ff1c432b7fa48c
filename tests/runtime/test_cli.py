"""The command line as a whole: its help, its start, and its exit codes."""

import re
import shlex
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest
import typer
from command_line import CommandLine
from typer.main import get_command

from segkc_deploy import cli
from segkc_deploy.cli import app
from segkc_deploy.errors import NonFiniteLossError, SegKCError, UserError, VerificationError

COMMANDS = (
    "check",
    "init",
    "convert",
    "recipes",
    "train",
    "eval",
    "label-next",
    "pseudo-label",
    "import-weights",
    "export",
    "predict",
    "serve",
    "benchmark",
    "compare",
    "report",
    "card",
    "push",
    "pull",
    "demo",
    "doctor",
)

#: What help must not import: each of these would make every `--help` wait for it. (typer itself imports pydantic.)
HEAVY = {"numpy", "cv2", "PIL", "yaml", "torch", "timm", "lightning", "onnx", "onnxruntime", "openvino"}


def test_every_command_is_known() -> None:
    assert set(get_command(app).commands) == set(COMMANDS)  # type: ignore[attr-defined]


def example_of(name: str) -> list[str]:
    """The arguments of the example in a command's help."""
    text = get_command(app).commands[name].help  # type: ignore[attr-defined]
    (line,) = [line for line in text.splitlines() if line.startswith("Example: `")]
    program, *arguments = shlex.split(line.removeprefix("Example: `").removesuffix("`"))
    assert program == "segkc-deploy"
    return arguments


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_in_the_help_can_be_parsed(name: str) -> None:
    command, *arguments = example_of(name)
    assert command == name
    known = get_command(app).commands[name]  # type: ignore[attr-defined]
    with known.make_context(name, arguments):
        pass


def documented_commands() -> list[str]:
    """Every command line in a code block of the documentation; options in brackets are taken as given."""
    root = Path(__file__).parents[2]
    texts = [path.read_text() for path in (root / "README.md", root / "CONTRIBUTING.md", *(root / "docs").glob("*.md"))]
    blocks = [block for text in texts for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return sorted({re.sub(r"[\[\]]", "", line) for line in lines if line.startswith("segkc-deploy ")})


def words_of(line: str) -> list[str]:
    """The words of a command line, up to a pipe or a redirection."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|>")
    lexer.whitespace_split = True
    return list(takewhile(lambda word: word not in ("|", ">"), lexer))


@pytest.mark.parametrize("line", documented_commands())
def test_documented_commands_can_be_parsed(line: str) -> None:
    name, *arguments = words_of(line)[1:]
    with get_command(app).commands[name].make_context(name, arguments):  # type: ignore[attr-defined]
        pass


def test_the_documentation_shows_every_command() -> None:
    shown = {line.split()[1] for line in documented_commands()}
    assert shown >= set(COMMANDS) - {"demo"}  # the documentation starts the demo by make


@pytest.mark.parametrize("name", COMMANDS)
def test_help_describes_every_option(name: str, command: CommandLine) -> None:
    finished = command(name, "--help")
    assert finished.code == 0
    assert f"segkc-deploy {name}" in finished.out and "Example:" in finished.out
    known = get_command(app).commands[name]  # type: ignore[attr-defined]
    assert [param.name for param in known.params if not getattr(param, "help", None)] == []


@pytest.mark.parametrize("arguments", [("--help",), ("demo", "--help"), ("predict", "--help")])
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    program = (
        "import atexit, sys; from segkc_deploy import cli; "
        "atexit.register(lambda: print('loaded', *sorted({name.partition('.')[0] for name in sys.modules})));"
        "cli.main()"
    )
    finished = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    help_text, _, loaded = finished.stdout.rpartition("loaded ")
    assert "Usage: " in help_text
    assert {"typer", "segkc_deploy"} <= set(loaded.split())
    assert HEAVY.isdisjoint(loaded.split())


@pytest.mark.parametrize(
    ("error", "code"),
    [(UserError, 2), (VerificationError, 1), (NonFiniteLossError, 1), (SegKCError, 1)],
)
def test_errors_become_one_line_and_an_exit_code(
    error: type[SegKCError], code: int, command: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = typer.Typer()

    @failing.command()
    def fail() -> None:
        raise error("data.yaml: [labeled] is missing; add it")

    monkeypatch.setattr(cli, "app", failing)
    finished = command()
    assert (finished.code, finished.out) == (code, "")
    assert finished.err == "error: data.yaml: [labeled] is missing; add it\n"


def test_faults_of_ours_are_not_hidden(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = typer.Typer(pretty_exceptions_enable=False)

    @failing.command()
    def fail() -> None:
        raise AssertionError("ours")

    monkeypatch.setattr(cli, "app", failing)
    monkeypatch.setattr(sys, "argv", ["segkc-deploy"])
    with pytest.raises(AssertionError, match="ours"):
        cli.main()


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("check",),
        ("train", "--no-such-option"),
        ("benchmark", "--samples", "0"),
        ("demo", "--steps", "0"),
        ("demo", "--seed", "many"),
    ],
)
def test_a_wrong_call_exits_with_2(arguments: tuple[str, ...], command: CommandLine) -> None:
    finished = command(*arguments)
    assert finished.code == 2
    assert "Usage: " in finished.err and "Traceback" not in finished.err
