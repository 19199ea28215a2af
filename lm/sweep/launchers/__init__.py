"""Who runs the workers of a sweep, and how they are told."""

from lm.sweep.launchers.base import Launcher, Rendered
from lm.sweep.launchers.gke import GKE, GPU
from lm.sweep.launchers.local import Local
from lm.sweep.launchers.skypilot import SkyPilot
from lm.sweep.launchers.slurm import Slurm
from lm.sweep.launchers.storage import Bucket, Volume
from lm.sweep.launchers.tpu import TPU

__all__ = ["GKE", "GPU", "TPU", "Bucket", "Launcher", "Local", "Rendered", "SkyPilot", "Slurm", "Volume"]
