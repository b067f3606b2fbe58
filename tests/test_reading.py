"""Files that a user names, and what is said of those that cannot be read."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from modernbert import Embedder
from modernbert.errors import InputError, ModelFolderError
from modernbert.reading import read_text, user_path


@pytest.mark.parametrize("content", [b"caf\xe9\n", b"\xff\xfea\0", b"a\xed\xa0\x80"])
def test_bytes_that_are_no_utf8_are_named_with_their_place(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ids.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"ids.txt: is no text in UTF-8 \(.* at byte \d\)"):
        read_text(tmp_path / "ids.txt")


def test_what_is_no_file_is_one_line(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match="cannot be read"):
            read_text(place)


def test_a_pipe_of_the_user_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=(tmp_path / "pipe").write_text, args=("a\nb\n",)).start()
    assert read_text(tmp_path / "pipe") == "a\nb\n"


@pytest.mark.parametrize("given", ["", None, 5])
def test_what_is_no_path(given: Any) -> None:
    with pytest.raises(InputError, match=r"^got .*, expected the path of a file or folder$"):
        user_path(given)


def test_an_address_is_no_model() -> None:
    with pytest.raises(ModelFolderError, match=r"^https://.*: is an address; name a model of the"):
        Embedder.from_pretrained("https://example.org/owner/name")
