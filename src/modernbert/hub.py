"""Finding a model's folder: one that is here, or one of the hub, fetched when need be."""

import re
from collections.abc import Sequence
from pathlib import Path

from modernbert.errors import ModernBertError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def find_folder(
    folder_or_hub_id: Path | str,
    *,
    patterns: Sequence[str],
    content: str,
    error: type[ModernBertError],
) -> Path:
    """The local folder itself, or that of the hub's files, fetched when need be.

    patterns: which files to fetch from the hub, such as "*.json"; a local folder is not looked at.
    content: what a folder should hold, for the message about something that is no folder.
    error: the class to raise.

    Raises:
        error: a path where no folder is, or a hub id that cannot be fetched.
    """
    folder = Path(folder_or_hub_id).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists():
        raise error(f"{folder}: is a file; expected a folder with {content}")
    if isinstance(folder_or_hub_id, Path) or not _may_be_hub_id(folder_or_hub_id):
        raise error(f"{folder}: no such folder")
    return _fetch(folder_or_hub_id, patterns, error)


def _may_be_hub_id(name: str) -> bool:
    """Whether a name that is no folder reads as `model` or `owner/model`, and not as a path."""
    return bool(_HUB_ID.fullmatch(name)) and not ("/" in name and Path(name).parent.is_dir())


def _fetch(hub_id: str, patterns: Sequence[str], error: type[ModernBertError]) -> Path:
    import huggingface_hub  # slow to import, and most calls name a folder

    try:
        return Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=list(patterns)))
    except Exception as failure:  # the hub client's errors share no base class
        reason = (str(failure) or type(failure).__name__).splitlines()[0]
        raise error(
            f"{hub_id}: no such folder here, and the hub did not give it: {reason}"
        ) from None
