"""To what a directory and the sets in it belong: each carries the identity of what made it."""

from collections.abc import Mapping
from typing import Any

from ltdd_jax import backend, records
from ltdd_jax import config as configs
from ltdd_jax.pipeline.workspace import Workspace
from ltdd_jax.runtime import files, lock
from ltdd_jax.types import UserError

FORMAT_VERSION = 3  # of a directory; 3: every artefact carries its own identity
_RECORD = "config.json"
_OWN = (lock.NAME, "experts")  # what may be there before the first run
_CUT = tuple(map(files.temporary_name, (_RECORD, lock.NAME)))  # what a killed first run leaves
_OF_PHASE = {"step_size_factor": 1.0}
# Fields that sets made earlier do not have -> what these were made with.
_LATER: Mapping[str, Any] = {
    "selection": {"embedding": "expert"},
    "trajectory": {
        "class_weight_scale": "frequency",
        "scanned_experts": "first",
        "partition": 1,
        "representation": _OF_PHASE,
        "classifier": _OF_PHASE,
    },
}


def claim(workspace: Workspace, fingerprint: str) -> None:
    """Makes the directory that of this seed and data, or checks that it already is.

    Args:
      workspace: paths and config.
      fingerprint: SHA-256 of the data.

    Raises:
      UserError: it belongs to another seed or other data (the fields that differ are listed),
        to another version of the program or to something else; its config.json is damaged,
        or it cannot be written.
    """
    found = configs.identity(workspace.config, ("seed", "data"))
    record: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "identity": found | {"data_fingerprint": fingerprint},
        "machine": backend.list_resources(),
    }
    path = workspace.root / _RECORD
    before = _read_record(path)
    if before is None:
        _refuse_foreign(workspace, path)
        files.write_sealed(path, record)
        return
    changed = records.differences(before["identity"], record["identity"])
    if changed:
        raise UserError(
            f"{workspace.root} is of another seed or other data: {'; '.join(changed)}; give "
            "another --workdir or restore these values"
        )


def read_machine(workdir: str) -> dict[str, int] | None:
    """`backend.list_resources` of the machine on which a directory was begun; None if unknown.

    Budgets are chosen for that one ever after: a run that goes on elsewhere is the same run.

    Raises:
      UserError: the record of the directory is damaged or of another format version.
    """
    found = _read_record(files.resolve(workdir) / _RECORD)
    return found.get("machine") if found else None


def claim_set(workspace: Workspace, identity: Mapping[str, Any]) -> None:
    """Makes the place of the set that of the set with this identity, or checks that it is.

    Until its distillation has begun, a place may change hands.

    Raises:
      UserError: it holds a set that other settings made; nothing is overwritten.
    """
    before = read_set_record(workspace)
    if before is None or not _has_set(workspace):
        files.write_sealed(
            workspace.set_record,
            {
                "format_version": FORMAT_VERSION,
                "identity": dict(identity),
                "config": workspace.config.to_dict(),
            },
        )
        return
    changed = records.differences(_fill(before["identity"], _LATER), identity)
    if changed:
        raise UserError(
            f"{workspace.home} holds a set that was made with other settings: "
            f"{'; '.join(changed)}; nothing is overwritten: give --set=NAME to keep both in "
            "this directory with the same experts, or another --workdir, or restore these "
            "values"
        )


def _fill(found, later):
    """An identity with the fields that it lacks, in the sections that it has."""
    filled = dict(found)
    for name, value in later.items():
        if not isinstance(value, Mapping):
            filled.setdefault(name, value)
        elif name in found:
            filled[name] = _fill(found[name], value)
    return filled


def read_set_record(workspace: Workspace) -> dict[str, Any] | None:
    """Identity and config of the set that is here; None if there is none.

    Raises:
      UserError: it is damaged, missing beside results, or of another format version.
    """
    found = _read_record(workspace.set_record)
    if found is None and _has_set(workspace):
        raise UserError(
            f"{workspace.set_record} is missing, so nobody knows what made the set in "
            f"{workspace.home}; restore it or give another --workdir"
        )
    return found


def _has_set(workspace):
    """Whether a distillation has left something here."""
    return workspace.distill.exists() or workspace.synthetic.exists()


def _read_record(path):
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


def _refuse_foreign(workspace, path):
    """A directory with something in it that is not ours is left alone."""
    root, own = workspace.root, _list_places(workspace)
    if not root.exists():
        return
    if not root.is_dir():
        raise UserError(f"--workdir={root} is a file: give a directory")
    there = [c.name for c in root.iterdir() if not c.name.startswith(_OWN)]
    there = [name for name in there if name not in _CUT and name not in own]
    if there:
        raise UserError(
            f"--workdir={root} is not empty ({sorted(there)[0]} is there) and has no "
            f"{path.name} of this program; give a new or an empty directory, or restore that "
            "file"
        )


def _list_places(workspace):
    """Names in the directory under which the config lets something be written before the claim."""
    root, config = workspace.root, workspace.config
    named = (config.runtime.compilation_cache, config.data.cache, config.experts.path)
    places = [files.resolve(place) for place in named if place and files.is_local(place)]
    return {place.relative_to(root).parts[0] for place in places if root in place.parents}
