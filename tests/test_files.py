"""Files are written whole or not at all."""

import errno
import os

import pytest

from lm.errors import UserError
from lm.files import reason, write_atomically


def test_text_and_bytes_replace_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    for content in ("old", "new: \N{GREEK SMALL LETTER ALPHA}", b"\xff\x00"):
        write_atomically(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_may_be_read_as_the_umask_says(tmp_path):
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(("number", "said"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "no permission")])
def test_a_failure_is_one_line_and_leaves_the_old_file_alone(tmp_path, monkeypatch, number, said):
    path = tmp_path / "a.json"
    path.write_text("old")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match=rf"can't write .*a\.json: {said}.*what was there before is whole") as caught:
        write_atomically(path, "new")
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_reason_of_an_error_that_has_no_number():
    assert reason(RuntimeError("write failed [os_error_code='28']\nmore")).startswith("the disk is full")
    assert reason(ValueError("first\nsecond")) == "first"
    assert reason(KeyError()) == "KeyError"
