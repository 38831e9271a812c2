"""The working directory: what lies where, to which run it belongs, who holds it."""

import importlib.metadata
import platform
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from ltdd_jax import __version__, records
from ltdd_jax import config as configs
from ltdd_jax.runtime import checkpoint, files, lock, log, processes
from ltdd_jax.types import UserError

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "chex")


class Workspace:
    """Paths of one run.

    Args:
      config: a validated config.
      workdir: root; need not exist.
    """

    def __init__(self, config: ConfigDict, workdir: str):
        self._config = config
        self.root = files.resolve(workdir)
        path = config.experts.path
        self.experts = files.resolve(path) if path else self.root / "experts"
        self.preprocessing = self.root / "preprocessing.npz"
        self.distill = self.root / "distill"
        self.synthetic = self.root / "synthetic"
        self.evaluate = self.root / "evaluate"
        self.report = self.root / "report.json"
        self.report_text = self.root / "report.md"
        self.seconds = self.root / "seconds.json"
        self.metrics = log.MetricLog(self.root / "metrics.jsonl", enabled=processes.is_first())

    def hold(self) -> lock.Lock:
        """Holds the directory against other runs; use as a context manager."""
        return lock.Lock(self.root, "wait for it, stop it, or give another --workdir")

    def hold_experts(self) -> lock.Lock:
        """Holds the trajectories, which several working directories may share."""
        return lock.Lock(self.experts, "wait until it has trained the experts, or stop it")

    def claim(self, fingerprint: str) -> None:
        """Makes the directory this run's, or checks that it already is.

        Args:
          fingerprint: SHA-256 of the data.

        Raises:
          UserError: it belongs to another run (the fields that differ are listed) or to another
            version of the program, its config.json is damaged, or it cannot be written.
        """
        record = {
            "config": self._config.to_dict(),
            "format_version": checkpoint.FORMAT_VERSION,
            "identity": configs.identity(self._config) | {"data_fingerprint": fingerprint},
        }
        path = self.root / "config.json"
        try:
            found = files.read_sealed(path)
        except files.DamagedFileError as error:
            raise UserError(f"{error}; restore it or give another --workdir") from error
        if found is None:
            if self.distill.exists() or self.synthetic.exists() or self.evaluate.exists():
                raise UserError(
                    f"{path} is missing, so nobody knows which run the results in {self.root} "
                    "belong to; restore it or give another --workdir"
                )
            files.write_sealed(path, record)
            return
        if found["format_version"] != checkpoint.FORMAT_VERSION:
            raise UserError(
                f"{self.root} was written in format version {found['format_version']}, this "
                f"program has {checkpoint.FORMAT_VERSION}; give another --workdir or use the "
                "version of the program that wrote it"
            )
        changed = records.differences(found["identity"], record["identity"])
        if changed:
            raise UserError(
                f"{self.root} holds another run: {'; '.join(changed)}; give another --workdir "
                "or restore these values"
            )

    def read_or_set_aside(self, path: epath.Path) -> dict[str, Any] | None:
        """A sealed file of results that can be made again; a damaged one is moved and missing."""
        try:
            return files.read_sealed(path)
        except files.DamagedFileError as error:
            self.warn(f"{error}; moved to {files.set_aside(path).name}, making it again")
            return None

    def warn(self, message: str) -> None:
        """Tells of something that was wrong and is dealt with."""
        processes.say(f"warning: {message}")


def versions() -> dict[str, str]:
    """Versions of what computed the results."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return found | {"ltdd_jax": __version__, "python": platform.python_version()}
