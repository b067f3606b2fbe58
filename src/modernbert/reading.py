"""Files of strangers that are read as a whole: regular ones, of bounded size."""

import errno
import os
import stat
from pathlib import Path

_MAX_BYTES = 1 << 28  # the largest tokenizers have a twentieth


def read_regular(path: Path, *, max_bytes: int = _MAX_BYTES) -> bytes:
    """Read a file that is read as a whole; a pipe or a device would be waited for without an end.

    Raises:
        OSError: It cannot be read, is no regular file, or is larger than `max_bytes`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        if status.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"is larger than {max_bytes:,} bytes", str(path))
        return file.read()
