"""The working directory: what lies where, to which run it belongs, who holds it."""

import importlib.metadata
import platform
import re
from collections.abc import Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from ltdd_jax import __version__, records
from ltdd_jax import config as configs
from ltdd_jax.runtime import files, lock, log, processes
from ltdd_jax.types import UserError

_OWN = (".lock", "experts")  # what may be there before the first run
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "chex")


FORMAT_VERSION = 3  # of a directory; 3: every artefact carries its own identity
_NAME = re.compile(r"\w[\w.-]{0,99}")


class Workspace:
    """Paths of one run, and to what they belong.

    The directory owns the seed and the data. Experts of any settings lie in it side by side, each
    kind under the hash of what made it. A distilled set lies at the root, or, with a name, in
    sets/NAME, so that several sets share the experts.

    Args:
      config: a validated config.
      workdir: root; need not exist.
      set_name: name of the distilled set; "" is the one at the root.

    Raises:
      UserError: a name that cannot be a directory.
    """

    def __init__(self, config: ConfigDict, workdir: str, set_name: str = ""):
        if set_name and not _NAME.fullmatch(set_name):
            raise UserError(
                f"--set={set_name} is not possible: it must be a file name of at most 100 letters, "
                "digits, '.', '_' and '-'"
            )
        self._config = config
        self.root = files.resolve(workdir)
        path = config.experts.path
        self.experts = files.resolve(path) if path else self.root / "experts"
        self.accuracy = self.root / "accuracy"  # of experts
        self.preprocessing = self.root / "preprocessing.npz"
        self.baselines = self.root / "baselines"  # evaluations that no set has a part in
        self.home = self.root / "sets" / set_name if set_name else self.root
        self.set_record = self.home / "set.json"
        self.distill = self.home / "distill"
        self.synthetic = self.home / "synthetic"
        self.evaluate = self.home / "evaluate"
        self.report = self.home / "report.json"
        self.report_text = self.home / "report.md"
        self.seconds = self.home / "seconds.json"
        self.metrics = log.MetricLog(self.home / "metrics.jsonl", enabled=processes.is_first())
        self.expert_metrics = log.MetricLog(self.root / "metrics.jsonl", processes.is_first())

    def hold(self) -> lock.Lock:
        """Holds the directory against other runs; use as a context manager."""
        return lock.Lock(self.root, "wait for it, stop it, or give another --workdir")

    def hold_experts(self) -> lock.Lock:
        """Holds the trajectories, which several working directories may share."""
        return lock.Lock(self.experts, "wait until it has trained the experts, or stop it")

    def claim(self, fingerprint: str) -> None:
        """Makes the directory that of this seed and data, or checks that it already is.

        Args:
          fingerprint: SHA-256 of the data.

        Raises:
          UserError: it belongs to another seed or other data (the fields that differ are listed),
            to another version of the program or to something else; its config.json is damaged,
            or it cannot be written.
        """
        found = configs.identity(self._config, ("seed", "data"))
        record = {
            "format_version": FORMAT_VERSION,
            "identity": found | {"data_fingerprint": fingerprint},
        }
        path = self.root / "config.json"
        before = self._read_record(path)
        if before is None:
            self._refuse_foreign(path)
            files.write_sealed(path, record)
            return
        changed = records.differences(before["identity"], record["identity"])
        if changed:
            raise UserError(
                f"{self.root} is of another seed or other data: {'; '.join(changed)}; give "
                "another --workdir or restore these values"
            )

    def claim_set(self, identity: Mapping[str, Any]) -> None:
        """Makes the place of the set that of the set with this identity, or checks that it is.

        Raises:
          UserError: it holds a set that other settings made; nothing is overwritten.
        """
        before = self.read_set_record()
        if before is None:
            files.write_sealed(
                self.set_record,
                {
                    "format_version": FORMAT_VERSION,
                    "identity": dict(identity),
                    "config": self._config.to_dict(),
                },
            )
            return
        changed = records.differences(before["identity"], identity)
        if changed:
            raise UserError(
                f"{self.home} holds a set that was made with other settings: "
                f"{'; '.join(changed)}; nothing is overwritten: give --set=NAME to keep both in "
                "this directory with the same experts, or another --workdir, or restore these "
                "values"
            )

    def read_set_record(self) -> dict[str, Any] | None:
        """Identity and config of the set that is here; None if there is none.

        Raises:
          UserError: it is damaged, missing beside results, or of another format version.
        """
        found = self._read_record(self.set_record)
        if found is None and (self.distill.exists() or self.synthetic.exists()):
            raise UserError(
                f"{self.set_record} is missing, so nobody knows what made the set in "
                f"{self.home}; restore it or give another --workdir"
            )
        return found

    def _read_record(self, path):
        try:
            found = files.read_sealed(path)
        except files.DamagedFileError as error:
            raise UserError(f"{error}; restore it or give another --workdir") from error
        if found is not None and found["format_version"] != FORMAT_VERSION:
            raise UserError(
                f"{path.parent} was written in format version {found['format_version']}, this "
                f"program has {FORMAT_VERSION}; give another --workdir or use the version of the "
                "program that wrote it"
            )
        return found

    def _refuse_foreign(self, path):
        """A directory with something in it that is not ours is left alone."""
        if not self.root.exists():
            return
        if not self.root.is_dir():
            raise UserError(f"--workdir={self.root} is a file: give a directory")
        there = [c.name for c in self.root.iterdir() if not c.name.startswith(_OWN)]
        if there:
            raise UserError(
                f"--workdir={self.root} is not empty ({sorted(there)[0]} is there) and has no "
                f"{path.name} of this program; give a new or an empty directory, or restore that "
                "file"
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
        processes.warn(message)


def versions() -> dict[str, str]:
    """Versions of what computed the results."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return found | {"ltdd_jax": __version__, "python": platform.python_version()}
