"""Where the results folder of a sweep is kept, so that all its workers see one and the same."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from lm.config import ConfigError, config
from lm.sweep.launchers.work import LaunchError, Work


@config
class Storage:
    """A folder that is mounted on every worker's machine."""

    mount: str = "/results"

    def __post_init__(self) -> None:
        if not self.mount.startswith("/") or self.mount == "/" or ":" in self.mount or ".." in self.mount:
            raise ConfigError(f"mount must be an absolute path other than '/', like /results, got '{self.mount}'")

    def seen(self, manifest: Path) -> Path:
        """Where a manifest RESULTS/NAME/manifest.jsonl is found there."""
        return Path(self.mount, *manifest.parts[-2:])


@config
class Volume(Storage):
    """A volume that many machines may write to at once (Kubernetes: access mode ReadWriteMany, e.g. Filestore)."""

    name: str


@config
class Bucket(Storage):
    """A bucket of an object store, or a folder of one, that each worker's machine mounts as a folder.

    Such a folder knows no hard links and no locks between machines. A worker that needs them to hold a run ends with
    an error that says so; a volume has both.
    """

    url: str
    """gs://bucket or gs://bucket/folder; s3:// and others where the engine knows them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = urlsplit(self.url)
        if not parts.scheme or not parts.netloc or parts.query or parts.fragment:
            raise ConfigError(f"Bucket.url must be like gs://bucket or gs://bucket/folder, got '{self.url}'")

    @property
    def scheme(self) -> str:
        return urlsplit(self.url).scheme

    @property
    def name(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def folder(self) -> str:
        return urlsplit(self.url).path.strip("/")


def check_seen(work: Work, storage: Volume | Bucket) -> None:
    """Raises LaunchError if the work's manifest isn't in the storage as the workers mount it."""
    if not work.manifest.is_relative_to(storage.mount):
        raise LaunchError(
            f"the workers would not find the manifest {work.manifest}: the results are mounted at {storage.mount}, "
            f"so it must be given as {storage.mount}/NAME/manifest.jsonl"
        )
