"""Rows survive crashes and full disks, and a resumed run doubles none."""

import json
import math
import os
import resource

import jax.numpy as jnp
import numpy as np
import pytest

from lm.train.rows import Rows, RowsError, read


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "run" / "rows.jsonl"
    rows = [{"step": 1, "loss": 2.5, "split": "train"}, {"step": 2, "loss": 0.1 + 0.2, "note": "é\n"}]
    with Rows(path) as writer:
        for row in rows:
            writer.append(row)
            assert read(path)[-1] == row  # at once, not at close
    assert read(path) == rows
    assert read(tmp_path / "absent.jsonl") == []


def test_scalars_of_numpy_and_jax(tmp_path):
    with Rows(tmp_path / "rows.jsonl") as writer:
        writer.append({"a": np.float32(0.5), "b": jnp.float32(0.25), "c": np.int64(3), "d": None, "e": [1, 2]})
        with pytest.raises(RowsError, match="can't hold"):
            writer.append({"a": object()})
    assert read(tmp_path / "rows.jsonl") == [{"a": 0.5, "b": 0.25, "c": 3, "d": None, "e": [1, 2]}]


def test_numbers_that_arent_finite_are_kept_in_plain_json(tmp_path):
    path = tmp_path / "rows.jsonl"
    with Rows(path) as writer:
        writer.append({"step": 1, "loss": math.nan, "norm": np.float32("inf"), "low": -math.inf})
    strict = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} isn't JSON"))
    assert strict["loss"] is None and strict["nonfinite"] == {"loss": "nan", "norm": "inf", "low": "-inf"}
    (row,) = read(path)
    assert math.isnan(row["loss"]) and row["norm"] == math.inf and row["low"] == -math.inf and "nonfinite" not in row


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', '{"step": 3, "lo\n', "\x00" * 8, "{"])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    path = tmp_path / "rows.jsonl"
    whole = '{"step": 1}\n{"step": 2}\n'
    path.write_text(whole + torn)
    assert read(path) == [{"step": 1}, {"step": 2}]
    with Rows(path) as writer:
        assert path.read_text() == whole
        writer.append({"step": 3})
    assert [row["step"] for row in read(path)] == [1, 2, 3]


def test_a_bad_line_inside_is_an_error_with_its_number(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\noops\n{"step": 2}\n')
    with pytest.raises(RowsError, match="line 2"):
        read(path)


def test_truncate_after_removes_what_will_be_done_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    with Rows(path) as writer:
        for step in range(1, 7):
            writer.append({"step": step, "split": "train"})
            writer.append({"step": step, "split": "heldout"})
        writer.append({"note": "no step"})
        writer.truncate_after(4)
        assert [row.get("step") for row in read(path)] == [1, 1, 2, 2, 3, 3, 4, 4, None]
        writer.append({"step": 5, "split": "train"})
        writer.sync()
    assert [row.get("step") for row in read(path)] == [1, 1, 2, 2, 3, 3, 4, 4, None, 5]
    assert os.listdir(tmp_path) == ["rows.jsonl"]


def test_a_full_disk_loses_nothing_written(tmp_path):
    path = tmp_path / "rows.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Rows(path) as writer:
        writer.append({"step": 1})
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))  # the second row gets 8 bytes in, as on a full disk
        try:
            with pytest.raises(RowsError, match=r"rows.jsonl: the disk is full"):
                writer.append({"step": 2})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_text() == '{"step": 1}\n'
        writer.append({"step": 2})
    assert [row["step"] for row in read(path)] == [1, 2]


def test_refused_writes_are_said_plainly(tmp_path):
    with pytest.raises(RowsError, match="can't write a row to /dev/full: the disk is full"):
        writer = object.__new__(Rows)
        writer.path, writer._file = "/dev/full", os.open("/dev/full", os.O_RDWR)
        writer.append({"step": 1})
    (tmp_path / "file").write_text("")
    with pytest.raises(RowsError, match="can't write rows to"):
        Rows(tmp_path / "file" / "rows.jsonl")
