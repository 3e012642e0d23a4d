"""`hf://ORG/NAME@REVISION`: repositories of the Hugging Face hub as local folders, cache first."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub import errors as hub

from convert.errors import ConversionError

# A path loses one of its slashes when it passes through pathlib.
_REPOSITORY = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+)(?:@([\w./-]+))?/?")
_FILE = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+)/(.+)")  # a name may have an @ in it
_WANTED = (
    "*.safetensors",
    "*.json",
    "*.model",
    "voices.tgz",
    "README.md",
    "LICENSE*",
    "SHA256SUMS",
)
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


def is_hub(source: str | os.PathLike[str]) -> bool:
    """Whether a source names something on the hub."""
    return str(source).startswith("hf:/")


def local(source: str | os.PathLike[str]) -> Path:
    """The local folder or file that a source is; a repository is fetched unless it is here.

    What the hub's cache holds is used without asking the hub: `@revision` says which state is
    wanted when that matters.

    Raises:
      ConversionError: the repository is gated, does not exist, or is not here and the hub cannot be
        reached.
    """
    if not is_hub(source):
        return Path(source)
    found = _REPOSITORY.fullmatch(str(source))
    if not found:
        problem = "not a repository, expected hf://ORG/NAME or hf://ORG/NAME@REVISION"
        raise ConversionError([problem], subject=str(source))
    repository, revision = found.groups()

    def fetch(offline: bool) -> Path:
        folder = Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(_WANTED),
                local_files_only=offline,
            )
        )
        if not any(next(folder.glob(pattern), None) for pattern in _WEIGHTS):
            raise hub.LocalEntryNotFoundError("what is here of it has no weights")
        return folder

    return _offline_first(fetch, str(source), repository, revision)


def local_file(reference: str) -> Path:
    """The local copy of `hf://ORG/NAME/FILE`, as configs refer to files of other repositories.

    Raises:
      ConversionError: as for `local`, or there is no such file.
    """
    found = _FILE.fullmatch(reference)
    if not found:
        problem = "not a file of a repository, expected hf://ORG/NAME/FILE"
        raise ConversionError([problem], subject=reference)
    repository, name = found.groups()

    def fetch(offline: bool) -> Path:
        return Path(hf_hub_download(repository, name, local_files_only=offline))

    return _offline_first(fetch, reference, repository, None)


def repository_of(source: str | os.PathLike[str] | None) -> str | None:
    """The repository that a source names; None for a local one."""
    found = _REPOSITORY.fullmatch(str(source)) if source is not None else None
    return found[1] if found else None


def push(folder: Path, repository: str) -> str:
    """Uploads a folder as a repository, made private if it is new; returns where it is.

    Raises:
      ConversionError: the hub refused, or cannot be reached.
    """
    try:
        api = HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder)
    except (hub.HfHubHTTPError, hub.HFValidationError, hub.LocalTokenNotFoundError) as error:
        problem = f"the hub refused ({_reason(error)}); log in with a token that may write there"
        raise ConversionError([problem], subject=repository) from error
    except OSError as error:
        problem = f"the hub cannot be reached ({_reason(error)}); {folder} is complete, upload it"
        raise ConversionError([problem], subject=repository) from error
    return f"https://huggingface.co/{repository}"


def _reason(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def _offline_first(
    fetch: Callable[[bool], Path], subject: str, repository: str, revision: str | None
) -> Path:
    try:
        return fetch(True)
    except (hub.LocalEntryNotFoundError, hub.IncompleteSnapshotError, FileNotFoundError):
        pass
    page = f"https://huggingface.co/{repository}"
    try:
        return fetch(False)
    except hub.GatedRepoError:
        problem = (
            f"the repository is gated: accept its terms at {page} while logged in, then give the"
            " token of that account (`hf auth login`, or the variable HF_TOKEN)"
        )
    except hub.RevisionNotFoundError:
        problem = f"has no revision {revision!r}; look at {page}/commits/main"
    except hub.RepositoryNotFoundError:
        problem = f"no such repository, or a private one: look at {page}, or give a token for it"
    except hub.EntryNotFoundError as error:
        if isinstance(error, hub.LocalEntryNotFoundError):
            problem = _unreachable(error)
        else:
            problem = f"the repository has no such file; look at {page}/tree/main"
    except (hub.HfHubHTTPError, OSError) as error:
        problem = _unreachable(error)
    raise ConversionError([problem], subject=subject)


def _unreachable(error: Exception) -> str:
    reason = _reason(error)
    return (
        f"not in the local cache, and the hub cannot be reached ({reason}); fetch it where it can"
    )
