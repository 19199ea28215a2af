"""The command `lm` in one of several processes. SLOW: seconds that it takes longer for a dispatch. FULL: a file of
rows on a disk that is full."""

import os
import sys
import time

from lm import launch

launch.prepare_jax()

from lm.cli import main  # noqa: E402
from lm.sharding import Layout  # noqa: E402
from lm.train.rows import Rows, RowsError  # noqa: E402

put, append = Layout.put, Rows.append


def slow(self, *arguments, **options):
    time.sleep(float(os.environ.get("SLOW", "0")))
    return put(self, *arguments, **options)


def fill(self, row):
    if self.path.name == os.environ.get("FULL"):
        raise RowsError(f"can't write a row to {self.path}: the disk is full")
    append(self, row)


Layout.put, Rows.append = slow, fill
main(sys.argv[1:])
