"""The working directory: what lies where, and to which run it belongs."""

import importlib.metadata
import json
import platform

from etils import epath
from ml_collections import ConfigDict

from ltdd_jax import __version__, records
from ltdd_jax import config as configs
from ltdd_jax.runtime import log
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
        self.root = epath.Path(workdir).expanduser()
        if "://" not in str(workdir):
            self.root = self.root.absolute()
        self.experts = (
            epath.Path(config.experts.path).expanduser().absolute()
            if config.experts.path
            else self.root / "experts"
        )
        self.preprocessing = self.root / "preprocessing.npz"
        self.distill = self.root / "distill"
        self.synthetic = self.root / "synthetic"
        self.evaluate = self.root / "evaluate"
        self.report = self.root / "report.json"
        self.report_text = self.root / "report.md"
        self.metrics = log.MetricLog(self.root / "metrics.jsonl")

    def claim(self, fingerprint: str) -> None:
        """Makes the directory this run's, or checks that it already is.

        Args:
          fingerprint: SHA-256 of the data.

        Raises:
          UserError: it belongs to another run (the fields that differ are listed), its
            config.json is damaged, or it cannot be written.
        """
        record = {
            "config": self._config.to_dict(),
            "identity": configs.identity(self._config) | {"data_fingerprint": fingerprint},
        }
        path = self.root / "config.json"
        if not path.exists():
            try:
                log.write_json(path, record)
            except OSError as error:
                raise UserError(f"cannot write {path}: {error}; give another --workdir") from error
            return
        try:
            found = json.loads(path.read_text())["identity"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is damaged ({error!r}); restore it or give another --workdir"
            ) from error
        changed = records.differences(found, record["identity"])
        if changed:
            raise UserError(
                f"{self.root} holds another run: {'; '.join(changed)}; give another --workdir "
                "or restore these values"
            )

    def read_json(self, path: epath.Path):
        """A JSON file of this directory, None if there is none; UserError if it is damaged."""
        if not path.exists():
            return None
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise UserError(
                f"{path} is damaged ({error}); delete it and run the same command again"
            ) from error


def versions() -> dict[str, str]:
    """Versions of what computed the results."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return found | {"ltdd_jax": __version__, "python": platform.python_version()}
