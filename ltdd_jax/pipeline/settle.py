"""What the data decide of a config: settings for a budget, whitening, batches; and warnings."""

from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from ltdd_jax import backend, presets, records
from ltdd_jax import budget as budgets
from ltdd_jax import config as configs
from ltdd_jax.data import folder, normalize
from ltdd_jax.data.request import Request
from ltdd_jax.data.sources import ImageSet
from ltdd_jax.distill import selection, trajectory
from ltdd_jax.report import blocks
from ltdd_jax.runtime import processes

_SHOWN = 10  # classes in a warning


def choose_size(config: ConfigDict, keep: frozenset[str]) -> ConfigDict:
    """The config with a size for the user's own pictures, where a budget is to choose it.

    Args:
      config: validated; not changed.
      keep: dotted fields that a budget leaves as they are.

    Raises:
      UserError: the pictures cannot be listed.
    """
    data = config.data
    if not config.budget or data.source != "folder" or "data.image_size" in keep:
        return config
    sides = folder.measure_sides(Request(**configs.locate_data(config)))
    if not sides:
        return config  # no picture opens: reading them says so
    choice = budgets.choose_side(sides, config.budget)
    result = ConfigDict(config.to_dict(), convert_dict=True).lock()
    result.data.image_size = choice.value
    processes.say(f"{choice.field} = {choice.value} ({choice.reason})")
    return result


def settle_config(
    config: ConfigDict,
    train: ImageSet,
    keep: frozenset[str],
    machine: Mapping[str, int] | None = None,
) -> ConfigDict:
    """The config as it is used for these training images; says what it has changed and why.

    Args:
      config: validated; not changed.
      train: the long-tailed training images.
      keep: dotted fields that a budget leaves as they are.
      machine: that a budget is chosen for, as `backend.list_resources` tells it; this one without.
    """
    result = ConfigDict(config.to_dict(), convert_dict=True).lock()
    if config.budget:
        _choose_for_budget(result, train, keep, machine or backend.list_resources())
    if result.data.whiten == "auto":
        _choose_whitening(result, train)
    for kind in _list_experts(result):
        section = result.experts[kind]
        if section.batch_size > len(train.labels):
            section.batch_size = len(train.labels)
            processes.say(
                f"experts.{kind}.batch_size is lowered to {section.batch_size}, the number of "
                "training images"
            )
    _warn_of_small_classes(result, train)
    return result


def count_teachers(config):
    """Teachers and observers that the method, the labels or the evaluation ask."""
    section = presets.PRESETS[config.distill.method].section
    selects = section == "selection" and config.selection.rule != "random"
    asks_teachers = (
        config.labels.relabel in ("teacher", "views")
        or configs.has_taught_rows(config)
        or section == "crops"
        or (section == "recovery" and config.recovery.initial_images == "crops")
        or (section == "kernel" and config.kernel.teacher_weight > 0)
        or (selects and config.selection.embedding == "teacher")
    )
    observers = 1 if section == "recovery" else 0
    return observers + (len(config.teacher.nets) if asks_teachers else 0)


def _choose_for_budget(config, train, keep, machine):
    chosen = budgets.choose_settings(
        config.budget,
        current=records.flatten(config.to_dict()),
        # What makes the method what it is stays too, such as the one phase of MTT.
        fixed=keep | presets.PRESETS[config.distill.method].settings.keys(),
        class_counts=[int(n) for n in train.class_counts()],
        image_shape=train.images.shape[1:],
        experts=_list_experts(config),
        phases=trajectory.list_phases(config.trajectory),
        num_teachers=count_teachers(config),
        pictures=_count_cells(config) ** 2,
        **machine,
    )
    processes.say(f"a {config.budget} run{_describe_machine(machine)}; chosen settings:")
    for choice in chosen:
        config.update_from_flattened_dict({choice.field: choice.value})
        processes.say(f"  {choice.field} = {choice.value} ({choice.reason})")


def _describe_machine(machine):
    """For which machine a budget is chosen, where that is another than this one."""
    if machine == backend.list_resources():
        return ""
    cores, devices = machine["num_cores"], machine["num_devices"]
    on = blocks.count(devices, "accelerator") if devices else blocks.count(cores, "core")
    return f", for {on}, with which this directory was begun"


def _list_experts(config):
    """Kinds that the method or the labels ask; `Method.experts` has them, but needs the data."""
    if config.labels.relabel == "experts":
        return trajectory.PHASES
    families = {"trajectory": trajectory, "selection": selection}
    section = presets.PRESETS[config.distill.method].section
    return families[section].list_experts(config[section]) if section in families else ()


def _choose_whitening(config, train):
    whiten, reason = normalize.choose_whitening(train.images.shape[1:], len(train.labels))
    config.data.whiten = "on" if whiten else "off"
    if not whiten:
        config.data.normalize = True
        processes.say(f"data.whiten = off, data.normalize = true ({reason})")


def _count_cells(config):
    """f, where each image of the set holds f x f pictures."""
    return config[presets.PRESETS[config.distill.method].section].get("partition", 1)


def _warn_of_small_classes(config, train):
    """Classes with fewer images, or crops of them, than synthetic ones, which then repeat them."""
    section = presets.PRESETS[config.distill.method].section
    of_method = config[section]
    if section == "selection":
        if config.selection.budget == "proportional":
            return
    elif of_method.get("initial_images") == "noise":
        return
    counts, kind = train.class_counts(), "training images"
    factor = _count_cells(config)
    wanted, asked = config.distill.ipc * factor**2, f"--config.distill.ipc={config.distill.ipc}"
    repeated = "the first synthetic images of these classes are repeated"
    if factor > 1:
        asked += f" with --config.{section}.partition={factor}, {wanted} pictures of a class,"
        repeated = "pictures of these classes are repeated"
    if section == "crops" or of_method.get("initial_images") == "crops":
        looked_at = np.minimum(counts, of_method.images_per_class or counts)
        counts, kind = looked_at * of_method.crops_per_image, "crops"
    small = np.flatnonzero(counts < wanted)
    if not len(small):
        return
    shown = ", ".join(f"{train.class_names[k]} ({counts[k]})" for k in small[:_SHOWN])
    more = f" and {len(small) - _SHOWN} more" if len(small) > _SHOWN else ""
    processes.warn(f"{asked} is more than the {kind} of {shown}{more}: {repeated}")
