"""Checkpoints: named arrays and a JSON record, written at once or not at all (Orbax).

A tree is stored as a flat dict from the path of each leaf to its array, so any subset of leaves
can be read without the rest. The record carries a CRC-32 of every leaf, checked when it is read:
Orbax finds a missing file, not an altered one.
"""

import concurrent.futures
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from ltdd_jax.types import UserError

FORMAT_VERSION = 1
_RECORD = "record"
_STEP = re.compile(r"step_(\d{8})")


class CorruptCheckpointError(UserError):
    """A checkpoint that is there but cannot be trusted."""


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
          then: called once the checkpoint is complete, in the background.

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
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not is_complete(path):
            path.rmtree()  # what a cut write left behind
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            checkpointer.save(
                path,
                args=ocp.args.Composite(
                    tree=ocp.args.PyTreeSave(leaves), record=ocp.args.JsonSave(record)
                ),
            )
    except Exception as error:
        if isinstance(error, OSError) or _mentions_disk(error):
            raise UserError(
                f"cannot write checkpoint {path}: {error}; free some disk space or use another "
                "--workdir, then run the same command again (what was saved before is intact)"
            ) from error
        raise
    then()


def is_complete(path: epath.Path) -> bool:
    """Whether `path` is a checkpoint whose write was finished."""
    path = epath.Path(path)
    return (path / _RECORD).exists() and ocp.utils.is_checkpoint_finalized(path)


def read_record(path: epath.Path) -> dict[str, Any]:
    """The JSON record of a checkpoint.

    Raises:
      CorruptCheckpointError: it is missing, damaged, or of another format version.
    """
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
        try:
            restored = reader.restore(
                epath.Path(path), args=ocp.args.Composite(record=ocp.args.JsonRestore())
            )
        except (OSError, ValueError, KeyError) as error:
            raise CorruptCheckpointError(
                f"checkpoint {path} is damaged: its record cannot be read ({error}); "
                "delete that directory and run the same command again"
            ) from error
    record = restored["record"]
    if record.get("format_version") != FORMAT_VERSION:
        raise CorruptCheckpointError(
            f"checkpoint {path} has format version {record.get('format_version')}, this program "
            f"reads {FORMAT_VERSION}; use another --workdir or the version that wrote it"
        )
    return record


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
    """
    record = read_record(path) if record is None else record
    names = [name for name, _ in _named_leaves(like)]
    wanted = [_stored_like(leaf) for leaf in jax.tree.leaves(like)]
    missing = [name for name in names if name not in record["checksums"]]
    if missing:
        raise CorruptCheckpointError(f"checkpoint {path} has no array {missing[0]}")
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
        restore = ocp.args.PyTreeRestore(
            item=dict(zip(names, wanted, strict=True)),
            restore_args={name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names},
            partial_restore=True,
        )
        try:
            got = reader.restore(epath.Path(path), args=ocp.args.Composite(tree=restore))["tree"]
        except (OSError, ValueError, KeyError) as error:
            raise CorruptCheckpointError(
                f"checkpoint {path} is damaged: {error}; delete that directory and run the same "
                "command again"
            ) from error
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
                f"checkpoint {path}: array {name} was altered after it was written; delete that "
                "directory and run the same command again"
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
    directory = epath.Path(directory)
    if not directory.exists():
        return []
    matches = (_STEP.fullmatch(child.name) for child in directory.iterdir())
    steps = (int(match.group(1)) for match in matches if match)
    return sorted(step for step in steps if is_complete(step_path(directory, step)))


def prune(directory: epath.Path, keep: Iterable[int]) -> None:
    """Deletes the finished checkpoints of all steps that are not in `keep`."""
    keep = set(keep)
    for step in complete_steps(directory):
        if step not in keep:
            step_path(directory, step).rmtree()


def _named_leaves(tree):
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="."), leaf


def _is_key(leaf):
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_host(leaf):
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


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
    return "no space left" in text or "resource_exhausted" in text or "disk quota" in text
