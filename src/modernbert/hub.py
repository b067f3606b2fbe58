"""Model folders, found locally or on the hub, and pushed there.

`kinds` tells which folders are models.
"""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modernbert.errors import FolderWarning, HubError, ModelFolderError, ModernBertError
from modernbert.kinds import (
    CONFIG_FILE,
    MODEL_KINDS,
    NAMES,
    Kind,
    ModelKind,
    find_kind,
    model_folder,
)
from modernbert.reading import user_path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]*")


def find_folder(
    folder_or_hub_id: Path | str,
    *,
    patterns: Sequence[str],
    content: str,
    error: type[ModernBertError],
) -> Path:
    """Return a local folder, or that of the hub's files, which are fetched if necessary.

    Args:
        folder_or_hub_id: A folder, or `model`, `owner/model` or `owner/model@revision` on the hub;
            a revision is a commit, a tag or a branch, and a commit stays what it is.
        patterns: Which files to fetch from the hub, such as "*.json"; a local folder is not looked
            at.
        content: What a folder should hold, for the message about something that is no folder.
        error: The class to raise.

    Raises:
        error: A path where no folder is, or a hub id that cannot be fetched.
    """
    folder = user_path(folder_or_hub_id)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise error(f"{folder}: is a file; expected a folder with {content}")
    hub_id, revision = split_revision(str(folder_or_hub_id))
    if isinstance(folder_or_hub_id, Path) or not _may_be_hub_id(hub_id):
        if "://" in (address := str(folder_or_hub_id)):
            raise error(f"{address}: is an address; name a model of the hub as OWNER/NAME")
        raise error(f"{folder}: no such folder")
    if revision is not None and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise error(f"{folder_or_hub_id}: expected a commit, a tag or a branch after the @")
    return _fetch(hub_id, revision, patterns, error)


def split_revision(folder_or_hub_id: str) -> tuple[str, str | None]:
    """Return a hub id without its revision, and the revision; a folder stays as it is.

    >>> split_revision("owner/model@v1.0")
    ('owner/model', 'v1.0')
    """
    hub_id, separator, revision = folder_or_hub_id.partition("@")
    if not separator or user_path(folder_or_hub_id).exists():
        return folder_or_hub_id, None
    return hub_id, revision


def at_revision(hub_id: str, revision: str) -> str:
    """Return the name of a hub model at a commit, a tag or a branch.

    Args:
        hub_id: The id of the model, without a revision.
        revision: The commit, the tag or the branch.

    Raises:
        HubError: It is not a hub id, or names a revision already.
    """
    if "@" in hub_id and split_revision(hub_id)[1] is not None:
        raise HubError(f"{hub_id}: names a revision already; leave out --revision")
    if user_path(hub_id).exists() or not _may_be_hub_id(hub_id):
        raise HubError(f"{hub_id}: is not a hub id, and only these have revisions")
    return f"{hub_id}@{revision}"


def require_model(folder_or_hub_id: Path | str, wanted: tuple[ModelKind, ...] = ()) -> None:
    """Check that a model is there and of a kind, before anything slow is imported.

    Args:
        folder_or_hub_id: A folder, also that of a run, or a hub id, whose configuration
            is fetched.
        wanted: What the model is to be for; anything when empty.

    Raises:
        ModelFolderError: There is none, or it is of another kind.
    """
    folder = find_folder(
        folder_or_hub_id,
        patterns=["*.json"],
        content=f"a {CONFIG_FILE}",
        error=ModelFolderError,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FolderWarning)  # whoever loads the model says it
        model_folder(folder, wanted)


def _may_be_hub_id(name: str) -> bool:
    """Return whether a name that is no folder looks like `model` or `owner/model`, not a path."""
    return bool(_HUB_ID.fullmatch(name)) and not ("/" in name and Path(name).parent.is_dir())


def _fetch(
    hub_id: str, revision: str | None, patterns: Sequence[str], error: type[ModernBertError]
) -> Path:
    import huggingface_hub  # slow to import, and most calls name a folder

    try:
        return Path(
            huggingface_hub.snapshot_download(
                hub_id, revision=revision, allow_patterns=list(patterns)
            )
        )
    except Exception as failure:  # the hub client's errors share no base class
        reason = (str(failure) or type(failure).__name__).splitlines()[0]
        raise error(
            f"{hub_id}{'@' + revision if revision else ''}: no such folder, and the hub could not "
            f"provide it: {reason}"
        ) from None


CARD = "README.md"
_DATASETS: tuple[Kind, ...] = ("shards", "index", "vectors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill")
_REASONS = {
    401: "the token was refused; run `hf auth login` again",
    403: "the token may not write there; it needs the right to write to that owner",
    404: "no such owner, or the token may not see it",
}


def push_folder(
    folder: Path | str, hub_id: str, *, private: bool = False, message: str | None = None
) -> str:
    """Push a folder of a model, a tokenizer, an export, shards or an index to the hub.

    The repository is created if necessary; files there that the folder lacks stay. Hidden files and
    what killed writers left are not pushed.

    Args:
        folder: What to push, with a README.md that becomes its card.
        hub_id: `owner/name`.
        private: For a repository that is made now; one that is there stays as it is.
        message: Of the commit.

    Returns:
        The address of the repository.

    Raises:
        HubError: A folder that is not fit for the hub, no token, or a refusal by the hub.
    """
    path = user_path(folder)
    path = model_folder(path) if find_kind(path) == "run" else path
    repository_type = check_folder(path)
    if not _HUB_ID.fullmatch(hub_id) or "/" not in hub_id:
        raise HubError(f"{hub_id}: expected the form owner/name")
    import huggingface_hub  # slow to import
    from huggingface_hub import constants  # no attribute of the package until it is imported

    if constants.HF_HUB_OFFLINE:
        raise HubError(f"{hub_id}: HF_HUB_OFFLINE is set, so nothing can be pushed")
    if huggingface_hub.get_token() is None:
        raise HubError(f"{hub_id}: found no token; run `hf auth login`, or set HF_TOKEN")
    place: dict[str, Any] = {"repo_id": hub_id, "repo_type": repository_type}
    api = huggingface_hub.HfApi()
    try:
        address = api.create_repo(**place, private=private, exist_ok=True)
        api.upload_folder(
            **place,
            folder_path=path,
            commit_message=message or f"Push {path.resolve().name}",
            ignore_patterns=[".*", "**/.*"],
        )
    except Exception as failure:  # the hub client's errors share no base class
        raise HubError(f"{hub_id}: nothing was pushed: {_reason(failure)}") from None
    return str(address)


def check_folder(folder: Path) -> str:
    """Check that a folder is fit for the hub, and return the kind of its repository.

    Raises:
        HubError: No folder, one of an unknown kind, without a card, or with pickles.
    """
    if not folder.is_dir():
        raise HubError(f"{folder}: no such folder")
    kind = find_kind(folder)
    if kind not in (*MODEL_KINDS, "tokenizer", *_DATASETS):
        found = "nothing that is known" if kind is None else NAMES[kind]
        raise HubError(
            f"{folder}: holds {found}; expected a model, a tokenizer, an export, shards or an index"
        )
    for path in sorted(folder.rglob("*")):
        if path.suffix in _PICKLES:
            raise HubError(
                f"{path}: may be a pickle, which can run code; push safetensors and remove it"
            )
    card = folder / CARD
    if not card.is_file() or not card.read_text(encoding="utf-8", errors="replace").strip():
        raise HubError(
            f"{folder}: has no card; write {CARD}: what it is, what it was trained on, what it is "
            "for and not for, and its licence"
        )
    return "dataset" if kind in _DATASETS else "model"


def _reason(failure: Exception) -> str:
    """Return one line about an error of the hub's client."""
    status = getattr(getattr(failure, "response", None), "status_code", None)
    text = (str(failure) or type(failure).__name__).splitlines()[0]
    return _REASONS.get(status, text) if isinstance(status, int) else text
