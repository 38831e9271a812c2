"""The working directory: what lies where, and who holds it."""

import importlib.metadata
import platform
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from ltdd_jax import __version__, validation
from ltdd_jax.runtime import events, files, lock, log, processes
from ltdd_jax.types import UserError

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "chex")


class Workspace:
    """Paths of one run.

    The directory owns the seed and the data. Experts of any settings lie in it side by side, each
    kind under the hash of what made it. A distilled set lies at the root, or, with a name, in
    sets/NAME, so that several sets share the experts.

    Args:
      config: a validated config.
      workdir: root; need not exist.
      set_name: name of the distilled set; "" is the one at the root.

    Raises:
      UserError: a name that cannot be a directory, or event files that cannot be written.
    """

    def __init__(self, config: ConfigDict, workdir: str, set_name: str = ""):
        if set_name and not validation.is_set_name(set_name):
            raise UserError(
                f"--set={set_name} is not possible: it must be a file name of at most 100 letters, "
                "digits, '.', '_' and '-' (200 bytes)"
            )
        self.config = config
        self.root = files.resolve(workdir)
        path = config.experts.path
        self.experts = files.resolve(path) if path else self.root / "experts"
        self.teachers = (self.experts if path else self.root) / "teachers"
        self.accuracy = self.root / "accuracy"  # of experts and teachers
        self.preprocessing = self.root / "preprocessing.npz"
        self.baselines = self.root / "baselines"  # evaluations that no set has a part in
        self.set_name = set_name
        self.home = self.root / "sets" / set_name if set_name else self.root
        self.set_record = self.home / "set.json"
        self.distill = self.home / "distill"
        self.synthetic = self.home / "synthetic"
        self.evaluate = self.home / "evaluate"
        self.report = self.home / "report.json"
        self.report_text = self.home / "report.md"
        self.report_page = self.home / "report.html"
        self.seconds = self.home / "seconds.json"
        self.metrics = log.MetricLog(self.home / "metrics.jsonl", enabled=processes.is_first())
        self.expert_metrics = log.MetricLog(self.root / "metrics.jsonl", processes.is_first())
        shown = config.runtime.tensorboard
        self.events = events.EventLog(self.home / "tensorboard", shown)
        self.expert_events = events.EventLog(self.root / "tensorboard", shown)

    def hold(self) -> lock.Lock:
        """Holds the directory against other runs; use as a context manager."""
        return lock.Lock(self.root, "wait for it, stop it, or give another --workdir")

    def hold_experts(self) -> lock.Lock:
        """Holds the trajectories, which several working directories may share."""
        return lock.Lock(self.experts, "wait until it has trained the experts, or stop it")

    def read_or_set_aside(self, path: epath.Path) -> dict[str, Any] | None:
        """A sealed file of results that can be made again; a damaged one is moved and missing."""
        try:
            return files.read_sealed(path)
        except files.DamagedFileError as error:
            self.warn(f"{error}; moved to {files.set_aside(path).name}, making it again")
            return None

    def warn(self, message: str) -> None:
        """Tells of something that was wrong and is dealt with."""
        processes.warn(message)


def versions() -> dict[str, str]:
    """Versions of what computed the results."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return found | {"ltdd_jax": __version__, "python": platform.python_version()}
