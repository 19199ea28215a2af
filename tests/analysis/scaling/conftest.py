"""Published tables of runs lie beside the repository, in ../shared/reference; tests that read them skip without."""

from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[4] / "shared" / "reference"


@pytest.fixture(scope="session")
def reference():
    """The folder of a published table."""

    def folder(name: str) -> Path:
        if not (REFERENCE / name).is_dir():
            pytest.skip(f"the published runs aren't here: ../shared/reference/{name}")
        return REFERENCE / name

    return folder
