"""A process that compiles without end doesn't run out of mapped regions."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from lm.train import programs


def compiled() -> list[jax.stages.Wrapped]:
    made = [jax.jit(lambda x, i=i: jnp.sin(x * i).sum()) for i in range(10)]
    for one in made:
        one(jnp.ones(3))
    return made


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system doesn't list what a process has mapped")
def test_programs_are_forgotten_when_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    made = compiled()
    programs.make_room()
    assert all(one._cache_size() for one in made)
    monkeypatch.setattr(programs, "MAPS", 1)
    programs.make_room()
    assert not any(one._cache_size() for one in made)
