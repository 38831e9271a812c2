"""Checkpoints: named arrays and a JSON record, written at once or not at all (Orbax).

A tree is stored as a flat dict from the path of each leaf to its array, so any subset of leaves
can be read without the rest. The record carries a CRC-32 of every leaf and one of itself, checked
when they are read: Orbax finds a missing file, not an altered one.
"""

import concurrent.futures
import errno
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from ltdd_jax.runtime import files, processes
from ltdd_jax.types import UserError

FORMAT_VERSION = 2  # 2: the record is sealed with a checksum
_RECORD = "record"
_OVERHEAD = 2**17  # bytes of the small files of a checkpoint
_STEP = re.compile(r"step_(\d{8})")
_TEMPORARY = ".orbax-checkpoint-tmp"  # in the names Orbax gives to what it has not finished
# What Orbax and TensorStore raise for missing, cut and altered files.
_READ_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError)
_DISK_SIGNS = ("no space left", "resource_exhausted", "disk quota", "file too large", "read-only")


class CorruptCheckpointError(UserError):
    """A checkpoint that is there but cannot be trusted."""


class FormatVersionError(UserError):
    """A checkpoint that another version of this program wrote."""


class Writer:
    """Writes checkpoints in the background; use as a context manager so that none is lost.

    Several processes write in the foreground: their barriers must come in the same order.
    """

    def __init__(self):
        self._executor = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending: concurrent.futures.Future | None = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        try:
            self.wait()
        finally:
            self._executor.shutdown()

    def save(
        self,
        path: epath.Path,
        tree: Any,
        record: Mapping[str, Any],
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Starts writing; waits only for the previous checkpoint and for the arrays.

        Args:
          path: directory to create; must not exist.
          tree: pytree of arrays or typed keys.
          record: JSON-able facts stored beside them.
          then: called on the first process once the checkpoint is complete, in the background.

        Raises:
          UserError: this or the previous write failed (full disk, no permission).
        """
        self.wait()
        leaves = {name: _to_host(leaf) for name, leaf in _named_leaves(tree)}
        self._pending = self._executor.submit(_write, epath.Path(path), leaves, record, then)
        if jax.process_count() > 1:
            self.wait()

    def wait(self) -> None:
        """Returns once everything saved so far is on disk.

        Raises:
          UserError: the last write failed.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def _write(path, leaves, record, then):
    record = {
        "format_version": FORMAT_VERSION,
        "checksums": {name: _checksum(leaf) for name, leaf in leaves.items()},
        **record,
    }
    try:
        if processes.is_first():
            path.parent.mkdir(parents=True, exist_ok=True)
            _require_space(path.parent, sum(leaf.nbytes for leaf in leaves.values()))
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            checkpointer.save(
                path,
                args=ocp.args.Composite(
                    tree=ocp.args.PyTreeSave(leaves),
                    record=ocp.args.JsonSave(files.seal(record)),
                ),
            )
    except Exception as error:
        if isinstance(error, OSError) or _mentions_disk(error):
            raise files.cannot_write(path, error) from error
        raise
    if processes.is_first():
        then()


def _require_space(directory, num_bytes):
    """Refuses a write that cannot end well: one that fails midway floods the output."""
    if files.is_local(directory):
        free = shutil.disk_usage(directory).free
        if free < num_bytes + _OVERHEAD:
            raise OSError(errno.ENOSPC, f"No space left on device ({free} bytes are free)")


def is_complete(path: epath.Path) -> bool:
    """Whether `path` is a checkpoint whose write was finished; UserError where it cannot look."""
    path = epath.Path(path)
    return files.exists(path / _RECORD) and ocp.utils.is_checkpoint_finalized(path)


def read_record(path: epath.Path) -> dict[str, Any]:
    """The JSON record of a checkpoint.

    Raises:
      CorruptCheckpointError: it is missing or damaged.
      FormatVersionError: it is of another format version.
      UserError: it cannot be read now.
    """
    restored = _restore(path, record=ocp.args.JsonRestore())["record"]
    version = restored.get("format_version") if isinstance(restored, dict) else None
    if isinstance(version, int) and version != FORMAT_VERSION:
        raise FormatVersionError(
            f"checkpoint {path} has format version {version}, this program reads "
            f"{FORMAT_VERSION}; use another --workdir or the version that wrote it"
        )
    try:
        return files.unseal(restored)
    except ValueError as error:
        raise CorruptCheckpointError(
            f"checkpoint {path} is damaged: its record cannot be trusted ({error})"
        ) from error


def read_tree(path: epath.Path, like: Any, record: Mapping[str, Any] | None = None) -> Any:
    """Reads the leaves that `like` names, as NumPy arrays (typed keys as keys).

    Args:
      path: a complete checkpoint.
      like: pytree of arrays or ShapeDtypeStructs, a subset of what was saved.
      record: from `read_record`, read when absent.

    Returns:
      The structure of `like` filled with what is stored.

    Raises:
      CorruptCheckpointError: a leaf is missing, altered, or of another shape or dtype.
      UserError: it cannot be read now.
    """
    record = read_record(path) if record is None else record
    names = [name for name, _ in _named_leaves(like)]
    wanted = [_stored_like(leaf) for leaf in jax.tree.leaves(like)]
    missing = [name for name in names if name not in record["checksums"]]
    if missing:
        raise CorruptCheckpointError(f"checkpoint {path} has no array {missing[0]}")
    restore = ocp.args.PyTreeRestore(
        item=dict(zip(names, wanted, strict=True)),
        restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names},
        partial_restore=True,
    )
    got = _restore(path, tree=restore)["tree"]
    for name, spec in zip(names, wanted, strict=True):
        array = got[name]
        if not isinstance(array, np.ndarray) or (array.shape, array.dtype) != (
            spec.shape,
            spec.dtype,
        ):
            raise CorruptCheckpointError(
                f"checkpoint {path}: array {name} is not {spec.dtype}{list(spec.shape)} as expected"
            )
        if _checksum(array) != record["checksums"][name]:
            raise CorruptCheckpointError(
                f"checkpoint {path}: array {name} was altered after it was written"
            )
    leaves = [
        _from_host(got[name], leaf) for name, leaf in zip(names, jax.tree.leaves(like), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def step_path(directory: epath.Path, step: int) -> epath.Path:
    """Where the checkpoint of `step` lies in a directory of steps."""
    return epath.Path(directory) / f"step_{step:08d}"


def complete_steps(directory: epath.Path) -> list[int]:
    """Steps with a finished checkpoint, ascending."""
    return [step for step in _steps(directory) if is_complete(step_path(directory, step))]


def restore_newest(
    directory: epath.Path, like: Any, warn: Callable[[str], None]
) -> tuple[Any, dict[str, Any], int] | None:
    """The newest checkpoint that can be trusted; damaged ones are moved aside.

    Args:
      directory: of steps; need not exist.
      like: as in `read_tree`.
      warn: called with a sentence about every damaged checkpoint.

    Returns:
      (tree, record, step), None if there is nothing to restore.

    Raises:
      FormatVersionError: a checkpoint is of another format version.
      UserError: a checkpoint cannot be read now; it stays where it is.
    """
    delete_unfinished(directory)
    for step in reversed(_steps(directory)):
        path = step_path(directory, step)
        try:
            if not is_complete(path):
                raise CorruptCheckpointError(f"checkpoint {path} is incomplete")
            record = read_record(path)
            return read_tree(path, like, record), record, step
        except CorruptCheckpointError as error:
            warn(f"{error}; moved to {files.set_aside(path).name}, going back to the one before")
    return None


def prune(directory: epath.Path, keep: Iterable[int]) -> None:
    """Deletes the finished checkpoints of all steps that are not in `keep`."""
    keep = set(keep)
    for step in complete_steps(directory):
        if step not in keep:
            path = step_path(directory, step)
            # Renamed first: a kill in between must not leave half a checkpoint under its name.
            path.rename(path.parent / f"{path.name}{_TEMPORARY}-deleted").rmtree()


def delete_unfinished(directory: epath.Path) -> None:
    """Deletes what writes and deletions that were cut have left in `directory`."""
    directory = epath.Path(directory)
    if directory.exists():
        for child in directory.iterdir():
            if _TEMPORARY in child.name:
                child.rmtree()


def _restore(path, **arguments):
    """Reads without meeting the other processes, which read at other times."""
    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"read_{own}"
    )
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=alone)
    )
    try:
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
            return reader.restore(epath.Path(path), args=ocp.args.Composite(**arguments))
    except _READ_ERRORS as error:
        files.raise_if_unreadable(path, error)
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise CorruptCheckpointError(f"checkpoint {path} is damaged: {reason}") from error


def _steps(directory):
    """Steps with a checkpoint, finished or not, ascending."""
    directory = epath.Path(directory)
    if not directory.exists():
        return []
    matches = (_STEP.fullmatch(child.name) for child in directory.iterdir())
    return sorted(int(match.group(1)) for match in matches if match)


def _named_leaves(tree):
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="."), leaf


def _is_key(leaf):
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_host(leaf):
    # A copy: on a CPU an array's memory is shared, and the caller may give it away meanwhile.
    return np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _from_host(array, like):
    return jax.random.wrap_key_data(array) if _is_key(like) else array


def _stored_like(leaf):
    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _checksum(array):
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).reshape(-1))


def _mentions_disk(error):
    text = str(error).lower()
    return any(sign in text for sign in _DISK_SIGNS)
