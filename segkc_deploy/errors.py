"""Everything this package raises on purpose.

SegKCError
├── UserError                 a user's mistake: one line that names the file and the fix; exit code 2
│   ├── ConfigError           a recipe, a data spec or a command-line value
│   ├── DataError             an image, a mask or a list of them
│   │   └── UnreadableFileError   a file of an image or a mask that is missing or damaged
│   ├── ArtifactError         an artifact or its manifest: damaged, missing, or made for something else
│   ├── RunDirectoryError     a run directory that is missing or incomplete, or a folder in use
│   ├── HubError              a hub that cannot be reached, refuses, or has something else than expected
│   └── MissingDependencyError   an optional package that the command needs
├── BuildError                an engine's own builder refused the graph or failed; exit code 1
├── VerificationError         an exported artifact that does not agree with its network; exit code 1
├── NonFiniteLossError        training diverged; exit code 1
├── RankDiedError             a process of a training on several devices has died; exit code 1
└── TrainingStoppedError      a signal stopped a training that can be resumed; exit code 75

The command line alone turns these into exit codes (`segkc_deploy.cli`).
"""


class SegKCError(Exception):
    """Base of every error raised on purpose by this package."""

    exit_code = 1


class UserError(SegKCError):
    """A mistake that the user can fix; the one-line message says where and how."""

    exit_code = 2


class ConfigError(UserError):
    """A recipe, a data spec or a command-line value that cannot be used."""


class DataError(UserError):
    """An image, a mask or a list of them that cannot be used."""


class UnreadableFileError(DataError):
    """A file of an image or a mask that is missing, damaged, or of no format that is read."""


class ArtifactError(UserError):
    """An artifact or its manifest that is damaged, missing, or made for something else."""


class RunDirectoryError(UserError):
    """A run directory that is missing, incomplete or holds another run; or a folder that another process writes to."""


class HubError(UserError):
    """A hub that cannot be reached or refuses, or a repository that does not hold what is expected."""


class MissingDependencyError(UserError):
    """An optional package that the command needs is not installed."""


class BuildError(SegKCError):
    """An engine's own builder refused the graph or failed."""


class VerificationError(SegKCError):
    """An exported artifact does not agree with the network it came from; `reason` says so without naming a file."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class NonFiniteLossError(SegKCError):
    """A loss term became NaN or infinite during training."""


class RankDiedError(SegKCError):
    """A process of a training on several devices has died, killed or with its machine, which ends all of them."""


class TrainingStoppedError(SegKCError):
    """A signal stopped a training, which has saved its state and can be resumed.

    75 is EX_TEMPFAIL of `sysexits.h`: the same command with `--resume` continues.
    """

    exit_code = 75
