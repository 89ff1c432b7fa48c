"""Push packages to, and pull them from, a hub that speaks the protocol of Hugging Face."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from segkc_deploy.errors import ConfigError, HubError, MissingDependencyError
from segkc_deploy.prediction_files import prepare_folder
from segkc_deploy.sharing.package import INDEX, Package, PackageIndex, read_index, verify

#: Bytes of an index, which has about 130 for each file.
_LARGEST_INDEX = 1 << 20


class Hub:
    """A hub. The token is the one of `hf auth login`, or of the environment variable HF_TOKEN.

    Args:
        endpoint: its address; by default that of HF_ENDPOINT, or huggingface.co.

    Raises:
        MissingDependencyError: `huggingface_hub` is not installed.
    """

    def __init__(self, endpoint: str | None = None) -> None:
        try:
            from huggingface_hub import HfApi
        except ImportError:
            raise MissingDependencyError(
                'a hub needs huggingface_hub, which is not installed: pip install "segkc-deploy[hub]"'
            ) from None
        self._api = HfApi(endpoint=endpoint, library_name="segkc-deploy")

    def push(self, package: Package, repo: str, private: bool, message: str) -> str:
        """Push all files of a package and their index in one commit, and return the commit's address.

        The repository is made where it does not exist; files that an earlier package left in it are not deleted.

        Raises:
            HubError: the hub cannot be reached, or refuses; or `private` is set and the repository is public.
        """
        from huggingface_hub import CommitOperationAdd

        index = package.index().model_dump_json(indent=2).encode() + b"\n"
        operations = [
            CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
            for name, content in (package.files | {INDEX: index}).items()
        ]
        with _explained(repo):
            if private:
                self._require_not_public(repo)
            self._api.create_repo(repo, private=private or None, exist_ok=True)
            with _transfer(repo):
                commit = self._api.create_commit(repo, operations, commit_message=message)
        return str(commit.commit_url)

    def pull(self, repo: str, out: Path, revision: str | None, overwrite: bool) -> tuple[PackageIndex, str]:
        """Pull a package into the folder `out` and return its index and the commit that it is of.

        Only the files in the index are downloaded, all of one commit, and nothing is in `out` before every checksum is
        right.

        Raises:
            ConfigError: `out` is not empty and `overwrite` is not set, or has a folder in place of a file.
            HubError: the hub cannot be reached, the repository holds no package, or a file is damaged.
        """
        prepare_folder(out, overwrite)
        with _explained(repo), tempfile.TemporaryDirectory(dir=out, prefix=".pull-") as temporary:
            folder = Path(temporary)
            info = self._api.model_info(repo, revision=revision, files_metadata=True)
            commit = info.sha
            assert commit is not None
            sizes = {one.rfilename: one.size for one in info.siblings or () if one.size is not None}
            if sizes.get(INDEX, 0) > _LARGEST_INDEX:
                raise HubError(f"{repo}: {INDEX} is damaged: it has {sizes[INDEX]} bytes; push again")
            index = read_index(self._download(repo, INDEX, commit, folder), repo)
            _require_sizes(index, sizes, repo)
            _require_no_folders(index, out)
            for name, packed in index.files.items():
                verify(self._download(repo, name, commit, folder), packed, repo)
            # The one that makes the folder usable comes last.
            for name in sorted(index.files, key=lambda name: name in (index.main, "config.yaml")):
                (folder / name).replace(out / name)
        return index, commit

    def _download(self, repo: str, name: str, commit: str, folder: Path) -> Path:
        with _transfer(repo):
            return Path(self._api.hf_hub_download(repo, name, revision=commit, local_dir=folder))

    def _require_not_public(self, repo: str) -> None:
        from huggingface_hub import errors

        try:
            info = self._api.model_info(repo)
        except errors.RepositoryNotFoundError:
            return  # it will be made
        if not info.private:
            raise HubError(f"{repo}: is there and public; make it private on the hub, or leave --private out")


def _require_sizes(index: PackageIndex, sizes: Mapping[str, int], repo: str) -> None:
    """Raise HubError where a file is not as large as the index says, before it is downloaded."""
    for name, packed in index.files.items():
        if sizes.get(name, packed.bytes) != packed.bytes:
            raise HubError(
                f"{repo}: {name} is damaged: it has {sizes[name]} bytes, and {packed.bytes} by {INDEX}; push again"
            )


def _require_no_folders(index: PackageIndex, out: Path) -> None:
    """Raise ConfigError where a file cannot be put into place, which would leave a mixture of two packages."""
    for name in index.files:
        if (out / name).is_dir():
            raise ConfigError(f"{out / name}: a folder is in the place of a file; choose another --out")


@contextmanager
def _transfer(repo: str) -> Iterator[None]:
    """Turn what `hf_xet` raises, which moves large files, into one line."""
    from huggingface_hub import errors

    xet = getattr(errors, "XetDownloadError", RuntimeError)  # newer versions of huggingface_hub have it
    try:
        yield
    except (RuntimeError, xet) as error:
        reason = " ".join(str(error).split())[:200]
        raise HubError(f"{repo}: the files could not be transferred ({reason}); try again") from None


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Turn what `huggingface_hub` raises into one line that says what to do."""
    from huggingface_hub import errors

    # A package of another name in each major version.
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        yield
    except httpx.InvalidURL:
        raise ConfigError(f"{repo}: the hub's address is no URL; check --endpoint and HF_ENDPOINT") from None
    except errors.HFValidationError:
        raise ConfigError(f"{repo}: not the name of a repository; write OWNER/NAME") from None
    except errors.RevisionNotFoundError:
        raise HubError(f"{repo}: has no such revision; leave --revision out for the newest one") from None
    except errors.RepositoryNotFoundError:
        raise HubError(f"{repo}: no such repository, or it is private: check the name, or `hf auth login`") from None
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise HubError(f"{repo}: the hub cannot be reached; check the network and HF_ENDPOINT") from None
        raise HubError(f"{repo}: holds no package of segkc-deploy, or a file of it is missing; push again") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        hint = "; run `hf auth login` with a token that may write" if status in (401, 403) else ""
        raise HubError(f"{repo}: the hub answers {status}{hint}") from None
    except (errors.OfflineModeIsEnabled, httpx.HTTPError) as error:
        raise HubError(f"{repo}: the hub cannot be reached ({type(error).__name__}); check the network") from None
