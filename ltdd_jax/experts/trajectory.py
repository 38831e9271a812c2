"""Trajectories on disk: the per-epoch parameters of experts, written in segments, read singly.

Layout: STAGE/group_0000_0007/epochs_0000_0010 is one checkpoint with the snapshots of epochs
0..10 of experts 0..7 and the training state after the last of them. A group grows by segments,
so a run that was cut continues at the end of its last one.
"""

import collections
import dataclasses
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from ltdd_jax import records
from ltdd_jax.runtime import checkpoint, files
from ltdd_jax.types import Params, UserError

_GROUP = re.compile(r"group_(\d{4,})_(\d{4,})")
_SEGMENT = re.compile(r"epochs_(\d{4,})_(\d{4,})")


class DamagedSegmentError(UserError):
    """A segment that is there but cannot be trusted.

    Attributes:
      path: its directory, for `set_aside`.
    """

    def __init__(self, message: str, path: epath.Path):
        super().__init__(message)
        self.path = path


@dataclasses.dataclass(frozen=True)
class Group:
    """Experts that are trained together.

    Attributes:
      experts: their numbers.
      last_epoch: what is on disk; -1 if nothing is.
      width: experts per compiled call when the group was begun, padding included; None if
        nothing is on disk.
    """

    experts: range
    last_epoch: int
    width: int | None


class Trajectories:
    """The trajectories of one kind of experts.

    Args:
      directory: of the kind; need not exist yet.
      identity: what made the trajectories (settings, data fingerprint, seed), nested dict.
      num_epochs: epochs of a complete trajectory.
      cache_bytes: snapshots kept in memory at most; the least recently used leave first.

    Raises:
      UserError: the directory holds trajectories of another identity.
      DamagedSegmentError: a segment is incomplete or out of place, or its record is damaged.
    """

    def __init__(
        self,
        directory: epath.Path,
        identity: Mapping[str, Any],
        num_epochs: int,
        cache_bytes: int = 0,
    ):
        self.num_epochs = num_epochs
        self._segments = _Segments(epath.Path(directory), dict(identity))
        self._cache = _Cache(cache_bytes)

    def groups(self) -> list[Group]:
        """Every group that was begun, in order."""
        return self._segments.groups()

    def complete_experts(self) -> list[int]:
        """Numbers of the experts whose last epoch is on disk."""
        done = (g.experts for g in self.groups() if g.last_epoch == self.num_epochs)
        return [expert for experts in done for expert in experts]

    def losses(self, num_experts: int) -> np.ndarray:
        """Mean training loss of complete experts 0..num_experts-1, float64 [epochs, experts].

        Raises:
          DamagedSegmentError: the record of a segment is damaged.
        """
        columns = np.full((self.num_epochs, num_experts), np.nan)
        for first, last, rows in self._segments.losses():
            for expert in range(first, min(last + 1, num_experts)):
                columns[: len(rows), expert] = [row[expert - first] for row in rows]
        return columns

    def append(self, writer, group, snapshots, state, losses) -> None:
        """Writes the next segment of a group; arguments and errors are those of `write_segment`."""
        span, path = write_segment(
            self._segments.directory, self._segments.identity, writer, group, snapshots, state,
            losses,
        )  # fmt: skip
        self._segments.add(group.experts, span, path)

    def read_state(self, experts: range, like: Any) -> Any:
        """The training state after the last epoch on disk of a group that was begun.

        Raises:
          DamagedSegmentError: the segment is damaged.
        """
        return self._segments.read(self._segments.last(experts), {"state": like})["state"]

    def read(self, expert: int, epoch: int, like: Params) -> Params:
        """One snapshot, float32 NumPy arrays; epoch -1 is the last; `like` gives the shapes.

        Raises:
          UserError: there is no such snapshot.
          DamagedSegmentError: it is damaged.
        """
        epoch = self.num_epochs if epoch == -1 else epoch
        snapshot = self._cache.get((expert, epoch))
        if snapshot is None:
            item = {_expert_name(expert): {_epoch_name(epoch): like}}
            got = self._segments.read(self._segments.find(expert, epoch), item)
            snapshot = got[_expert_name(expert)][_epoch_name(epoch)]
            self._cache.add((expert, epoch), snapshot)
        return snapshot


def write_segment(
    directory: epath.Path,
    identity: Mapping[str, Any],
    writer: checkpoint.Writer,
    group: Group,
    snapshots: Mapping[int, Params],
    state: Any,
    losses: Sequence[Sequence[float]],
) -> tuple[tuple[int, int], epath.Path]:
    """Writes the next segment of a group; a snapshot has a leading expert axis.

    Args:
      directory: of the kind.
      identity: what made the trajectories.
      writer: does the writing, possibly after this returns.
      group: experts and width; its last epoch is not looked at.
      snapshots: epoch -> parameters, consecutive, following what is on disk.
      state: training state after the last epoch.
      losses: mean loss of each epoch, one row of len(experts) per epoch (none for epoch 0).

    Returns:
      First and last epoch, and the path.

    Raises:
      UserError: see `checkpoint.Writer.save`.
    """
    epochs, experts = sorted(snapshots), group.experts
    span = (epochs[0], epochs[-1])
    place = f"group_{experts.start:04d}_{experts.stop - 1:04d}"
    path = directory / place / f"epochs_{span[0]:04d}_{span[1]:04d}"
    tree = {"state": state}
    for row, expert in enumerate(experts):
        tree[_expert_name(expert)] = {
            _epoch_name(epoch): jax.tree.map(lambda x, i=row: x[i], snapshots[epoch])
            for epoch in epochs
        }
    record = {
        "identity": dict(identity),
        "experts": list(_span(experts)),
        "epochs": list(span),
        "width": group.width,
        "losses": np.asarray(losses, np.float64).tolist(),
    }
    writer.save(path, tree, record)
    return span, path


class _Segments:
    """What is on disk: segments by group, and their records."""

    def __init__(self, directory: epath.Path, identity: dict[str, Any]):
        self.directory, self.identity = directory, identity
        self._records: dict[epath.Path, dict[str, Any]] = {}
        self._found: dict[tuple[int, int], list[tuple[int, int, epath.Path]]] = {}
        for group, path in _matching(directory, _GROUP):
            self._found[group] = _chain([(*span, p) for span, p in _matching(path, _SEGMENT)])
        self._check_identity()

    def groups(self) -> list[Group]:
        return [
            Group(
                experts=range(first, last + 1),
                last_epoch=segments[-1][1] if segments else -1,
                width=self._record(segments[0][2])["width"] if segments else None,
            )
            for (first, last), segments in sorted(self._found.items())
        ]

    def losses(self) -> Iterator[tuple[int, int, list[list[float]]]]:
        """First and last expert of each group, and a row of losses per epoch."""
        for (first, last), segments in self._found.items():
            yield (
                first,
                last,
                [row for *_, path in segments for row in self._record(path)["losses"]],
            )

    def add(self, experts: range, span: tuple[int, int], path: epath.Path) -> None:
        self._found.setdefault(_span(experts), []).append((*span, path))

    def last(self, experts: range) -> epath.Path:
        return self._found[_span(experts)][-1][2]

    def find(self, expert: int, epoch: int) -> epath.Path:
        for (first, last), segments in self._found.items():
            if first <= expert <= last:
                for begin, end, path in segments:
                    if begin <= epoch <= end:
                        return path
        raise UserError(
            f"{self.directory} has no snapshot of expert {expert} at epoch {epoch}; run "
            "--stage=experts with the same --workdir"
        )

    def read(self, path: epath.Path, item: Any) -> Any:
        try:
            return checkpoint.read_tree(path, item, self._record(path))
        except checkpoint.CorruptCheckpointError as error:
            raise DamagedSegmentError(str(error), path) from error

    def _record(self, path):
        if path not in self._records:
            self._records[path] = _read_record(path)
        return self._records[path]

    def _check_identity(self):
        for segments in self._found.values():
            for _, _, path in segments[:1]:
                found = records.differences(self._record(path)["identity"], self.identity)
                if found:
                    raise UserError(
                        f"the trajectories in {self.directory} were made with other settings: "
                        f"{'; '.join(found)}; restore these, or give another --workdir or "
                        "--config.experts.path"
                    )


class _Cache:
    """Snapshots in memory; several threads may ask, as snapshots are read ahead."""

    def __init__(self, max_bytes: int):
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._kept: collections.OrderedDict[tuple[int, int], Params] = collections.OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: tuple[int, int]) -> Params | None:
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)

    def add(self, name: tuple[int, int], snapshot: Params) -> None:
        with self._lock:
            self._num_bytes += _num_bytes(snapshot)
            if name in self._kept:  # two threads have read it
                self._num_bytes -= _num_bytes(self._kept[name])
            self._kept[name] = snapshot
            while self._kept and self._num_bytes > self._max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._num_bytes -= _num_bytes(oldest)


def _read_record(path):
    try:
        record = checkpoint.read_record(path)
    except checkpoint.CorruptCheckpointError as error:
        raise DamagedSegmentError(str(error), path) from error
    place = (record["experts"], record["epochs"])
    if place != (_numbers(_GROUP, path.parent), _numbers(_SEGMENT, path)):
        raise DamagedSegmentError(
            f"{path} holds epochs {record['epochs']} of experts {record['experts']}: it was moved "
            "or renamed",
            path,
        )
    return record


def set_aside(segment: epath.Path) -> list[epath.Path]:
    """Moves a damaged segment, and those of its group that build on it, out of the way.

    Returns:
      Where they are now; the group can then be trained again from the segment before.
    """
    begin, _ = _numbers(_SEGMENT, segment)
    later = [path for span, path in _matching(segment.parent, _SEGMENT) if span[0] >= begin]
    return [files.set_aside(path) for path in later]


def delete_unfinished(directory: epath.Path) -> None:
    """Deletes what writes that were cut have left in the directory of a stage."""
    for _, path in _matching(epath.Path(directory), _GROUP):
        checkpoint.delete_unfinished(path)


def _span(experts):
    return experts.start, experts.stop - 1


def _numbers(pattern, path):
    return [int(number) for number in pattern.fullmatch(path.name).groups()]


def _expert_name(expert):
    return f"expert_{expert:04d}"


def _epoch_name(epoch):
    return f"{epoch:04d}"


def _num_bytes(snapshot):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(snapshot))


def _matching(directory, pattern) -> Iterator[tuple[tuple[int, int], epath.Path]]:
    if directory.exists():
        for child in sorted(directory.iterdir()):
            if match := pattern.fullmatch(child.name):
                yield (int(match.group(1)), int(match.group(2))), child


def _chain(segments):
    """Checks that the segments are complete and follow each other from epoch 0 on."""
    expected = 0
    for begin, end, path in sorted(segments):
        if not checkpoint.is_complete(path):
            raise DamagedSegmentError(f"{path} is incomplete", path)
        if begin != expected:
            raise DamagedSegmentError(f"{path} does not follow epoch {expected - 1}", path)
        expected = end + 1
    return sorted(segments)
