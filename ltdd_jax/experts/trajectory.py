"""Trajectories on disk: the per-epoch parameters of experts, written in segments, read singly.

Layout: STAGE/group_0000_0007/epochs_0000_0010 is one checkpoint with the snapshots of epochs
0..10 of experts 0..7 and the training state after the last of them. A group grows by segments,
so a run that was cut continues at the end of its last one.
"""

import collections
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from ltdd_jax import records
from ltdd_jax.runtime import checkpoint
from ltdd_jax.types import Params, UserError

_GROUP = re.compile(r"group_(\d{4,})_(\d{4,})")
_SEGMENT = re.compile(r"epochs_(\d{4,})_(\d{4,})")


class Trajectories:
    """The trajectories of one stage.

    Args:
      directory: of the stage; need not exist yet.
      identity: what made the trajectories (settings, data fingerprint, seed), nested dict.
      num_epochs: epochs of a complete trajectory.
      cache_bytes: snapshots kept in memory at most; the least recently used leave first.

    Raises:
      UserError: the directory holds trajectories of another identity.
    """

    def __init__(
        self,
        directory: epath.Path,
        identity: Mapping[str, Any],
        num_epochs: int,
        cache_bytes: int = 0,
    ):
        self._directory = epath.Path(directory)
        self._identity = dict(identity)
        self._num_epochs = num_epochs
        self._cache_bytes = cache_bytes
        self._cache: collections.OrderedDict[tuple[int, int], Params] = collections.OrderedDict()
        self._records: dict[epath.Path, dict[str, Any]] = {}
        self._segments: dict[tuple[int, int], list[tuple[int, int, epath.Path]]] = {}
        for group, path in _matching(self._directory, _GROUP):
            segments = [(*span, p) for span, p in _matching(path, _SEGMENT)]
            self._segments[group] = _chain(s for s in segments if checkpoint.is_complete(s[2]))
        self._check_identity()

    @property
    def num_epochs(self) -> int:
        """Epochs of a complete trajectory."""
        return self._num_epochs

    def groups(self) -> list[tuple[range, int]]:
        """(experts, last epoch on disk) of every group that was begun, in order."""
        return [
            (range(first, last + 1), segments[-1][1])
            for (first, last), segments in sorted(self._segments.items())
            if segments
        ]

    def complete_experts(self) -> list[int]:
        """Numbers of the experts whose last epoch is on disk."""
        return [e for experts, end in self.groups() if end == self._num_epochs for e in experts]

    def losses(self, experts: range) -> np.ndarray:
        """Mean training loss of every finished epoch, float [epochs, experts]."""
        parts = [self._record(path)["losses"] for _, _, path in self._segments[_span(experts)]]
        return np.asarray([row for part in parts for row in part]).reshape(-1, len(experts))

    def append(
        self,
        writer: checkpoint.Writer,
        experts: range,
        snapshots: Mapping[int, Params],
        state: Any,
        losses: Sequence[Sequence[float]],
    ) -> None:
        """Writes the next segment of a group; a snapshot has a leading expert axis.

        Args:
          writer: does the writing, possibly after this returns.
          experts: numbers of the group.
          snapshots: epoch -> parameters, consecutive, following what is on disk.
          state: training state after the last epoch.
          losses: mean loss of each epoch, one row of len(experts) per epoch (none for epoch 0).

        Raises:
          UserError: see `checkpoint.Writer.save`.
        """
        epochs = sorted(snapshots)
        span = (epochs[0], epochs[-1])
        path = self._group_path(experts) / f"epochs_{span[0]:04d}_{span[1]:04d}"
        tree = {"state": state}
        for place, expert in enumerate(experts):
            tree[_expert_name(expert)] = {
                _epoch_name(epoch): jax.tree.map(lambda x, i=place: x[i], snapshots[epoch])
                for epoch in epochs
            }
        record = {
            "identity": self._identity,
            "experts": [experts.start, experts.stop - 1],
            "epochs": list(span),
            "losses": np.asarray(losses, np.float64).tolist(),
        }
        writer.save(path, tree, record)
        self._segments.setdefault(_span(experts), []).append((*span, path))

    def read_state(self, experts: range, like: Any) -> Any:
        """The training state after the last epoch on disk of a group that was begun."""
        path = self._segments[_span(experts)][-1][2]
        return checkpoint.read_tree(path, {"state": like}, self._record(path))["state"]

    def read(self, expert: int, epoch: int, like: Params) -> Params:
        """One snapshot, float32 NumPy arrays; epoch -1 is the last.

        Args:
          expert: number.
          epoch: 0..num_epochs, or -1.
          like: shapes and dtypes of the parameters (`jax.eval_shape`).

        Raises:
          UserError: there is no such snapshot.
          checkpoint.CorruptCheckpointError: it is damaged.
        """
        epoch = self._num_epochs if epoch == -1 else epoch
        if (expert, epoch) in self._cache:
            self._cache.move_to_end((expert, epoch))
            return self._cache[expert, epoch]
        path = self._find(expert, epoch)
        item = {_expert_name(expert): {_epoch_name(epoch): like}}
        got = checkpoint.read_tree(path, item, self._record(path))
        snapshot = got[_expert_name(expert)][_epoch_name(epoch)]
        self._remember((expert, epoch), snapshot)
        return snapshot

    def _find(self, expert, epoch):
        for (first, last), segments in self._segments.items():
            if first <= expert <= last:
                for begin, end, path in segments:
                    if begin <= epoch <= end:
                        return path
        raise UserError(
            f"{self._directory} has no snapshot of expert {expert} at epoch {epoch}; run "
            "--stage=experts with the same --workdir"
        )

    def _remember(self, name, snapshot):
        self._cache[name] = snapshot
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(snapshot))
        while len(self._cache) > 1 and len(self._cache) * size > self._cache_bytes:
            self._cache.popitem(last=False)

    def _record(self, path):
        if path not in self._records:
            self._records[path] = checkpoint.read_record(path)
        return self._records[path]

    def _group_path(self, experts):
        return self._directory / f"group_{experts.start:04d}_{experts.stop - 1:04d}"

    def _check_identity(self):
        for segments in self._segments.values():
            for _, _, path in segments[:1]:
                found = records.differences(self._record(path)["identity"], self._identity)
                if found:
                    raise UserError(
                        f"the trajectories in {self._directory} were made with other settings: "
                        f"{'; '.join(found)}; restore these, or give another --workdir or "
                        "--config.experts.path"
                    )


def _span(experts):
    return experts.start, experts.stop - 1


def _expert_name(expert):
    return f"expert_{expert:04d}"


def _epoch_name(epoch):
    return f"{epoch:04d}"


def _matching(directory, pattern) -> Iterator[tuple[tuple[int, int], epath.Path]]:
    if directory.exists():
        for child in sorted(directory.iterdir()):
            if match := pattern.fullmatch(child.name):
                yield (int(match.group(1)), int(match.group(2))), child


def _chain(segments):
    """The segments that follow each other without a gap from epoch 0 on."""
    chained, expected = [], 0
    for begin, end, path in sorted(segments):
        if begin == expected:
            chained.append((begin, end, path))
            expected = end + 1
    return chained
