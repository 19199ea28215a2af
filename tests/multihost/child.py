"""The command `lm` in one of several processes. SLOW: seconds that it takes longer for a dispatch."""

import os
import sys
import time

from lm import launch

launch.prepare_jax()

from lm.cli import main  # noqa: E402
from lm.sharding import Layout  # noqa: E402

put = Layout.put


def slow(self, *arguments, **options):
    time.sleep(float(os.environ.get("SLOW", "0")))
    return put(self, *arguments, **options)


Layout.put = slow
main(sys.argv[1:])
