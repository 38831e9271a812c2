"""The stored matching problems of the reference, as inputs of `step.phase_loss`."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from ltdd_jax import nets
from ltdd_jax.data import augment
from ltdd_jax.distill import matching, step
from ltdd_jax.types import Batch, SyntheticSet
from tests.golden_files import load_golden
from tests.reference import torch_layout

NAMES = (
    "matching_grad_first",
    "matching_grad_second",
    "matching_grad_full_datm",
    "matching_grad_uneven_first",
    "matching_grad_uneven_second",
    "matching_grad_uneven_full_datm",
    "matching_grad_aug_first",
)
# Files with the parameters after every step; the augmented one stores only the end point.
WITH_EVERY_STEP = tuple(name for name in NAMES if name != "matching_grad_aug_first")

# Operation -> {name of a draw in the files: field of `augment.Draws`}.
_DRAWS = {
    "color": {
        "u_brightness": "brightness",
        "u_saturation": "saturation",
        "u_contrast": "contrast",
    },
    "crop": {"tx": "shift_rows", "ty": "shift_cols"},
    "cutout": {"ox": "hole_row", "oy": "hole_col"},
    "flip": {"u": "flip"},
    "scale": {"sy": "scale_rows", "sx": "scale_cols"},
    "rotate": {"theta_rad": "angle"},
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """One stored phase; `values` are the arrays of the file."""

    values: dict[str, np.ndarray]
    layout: dict[str, int]
    network: nets.Network
    phase: step.Phase
    augment: Any
    synthetic: SyntheticSet
    start: Any
    target: Any  # all parameters
    batches: Batch
    draws: Any

    def tree(self, flat):
        """Parameter tree of a flat vector of the file."""
        return torch_layout.convnet_from_flat(flat, **self.layout)

    def flat(self, tree):
        """Flat vector, in the order of the file, of a parameter tree."""
        return torch_layout.convnet_to_flat(tree, side=self.layout["side"])

    @property
    def pair(self):
        """What a phase reads: the start and the matched part of the target."""
        return step.ExpertPair(
            start=self.start, target=matching.select_part(self.target, self.phase.matched)
        )


def load(name: str) -> Problem:
    """The problem in the golden file `name`."""
    values = load_golden(name)
    num_classes, side = values["label_syn"].shape[1], values["image_syn"].shape[-1]
    width, depth = torch_layout.convnet_shapes(
        values["start_params"].size, num_classes=num_classes, side=side
    )
    layout = dict(width=width, depth=depth, num_classes=num_classes, side=side)
    images = torch_layout.to_nhwc(values["image_syn"])
    network = nets.build(
        "convnet", image_shape=images.shape[1:], num_classes=num_classes, width=width, depth=depth
    )
    num_steps = int(values["syn_steps"])
    rows = [values[f"idx_step{i}"] for i in range(num_steps)]
    augment_fn, draws = _augmentation(values, rows)
    return Problem(
        values=values,
        layout=layout,
        network=network,
        phase=_phase(name, values),
        augment=augment_fn,
        synthetic=SyntheticSet(
            images=jnp.asarray(images),
            label_logits=jnp.asarray(values["label_syn"]),
            step_size=jnp.asarray(values["syn_lr"]),
        ),
        start=torch_layout.convnet_from_flat(values["start_params"], **layout),
        target=torch_layout.convnet_from_flat(values["target_params"], **layout),
        batches=_pad_rows(rows),
        draws=draws,
    )


def _phase(name, values):
    common = dict(
        name=name,
        student_steps=int(values["syn_steps"]),
        batch_size=int(values["batch_syn"]),
        loss_weight=1.0,
    )
    if name.endswith("second"):
        return step.Phase(moved="classifier", matched="classifier", **common)
    if name.endswith("full_datm"):
        return step.Phase(moved="all", matched="all", **common)
    weights = tuple(values["class_weights"].tolist())
    return step.Phase(moved="all", matched="backbone", class_weights=weights, **common)


def _pad_rows(rows):
    """Batch of the chunks of all steps; short ones are filled with their first row at weight 0."""
    size = max(len(chunk) for chunk in rows)
    indices = [_pad(chunk, size) for chunk in rows]
    weights = [(np.arange(size) < len(chunk)) / len(chunk) for chunk in rows]
    return Batch(
        indices=jnp.asarray(np.stack(indices), jnp.int32),
        weights=jnp.asarray(np.stack(weights), jnp.float32),
    )


def _augmentation(values, rows):
    """(augment function, draws of all steps) from the stored numbers; identity without any."""
    found = {
        (i, op): names
        for i in range(len(rows))
        for op, names in _DRAWS.items()
        if f"step{i}_{op}_{next(iter(names))}" in values
    }
    if not found:
        return (lambda draws, images: images), jnp.arange(len(rows))
    assert sorted(i for i, _ in found) == list(range(len(rows))), "every step has one operation"
    size = max(len(chunk) for chunk in rows)
    shape = (len(rows), size)
    names = {field for names in _DRAWS.values() for field in names.values()}
    fields = {field: np.zeros(shape, np.float32) for field in names}
    for field in ("shift_rows", "shift_cols", "hole_row", "hole_col"):
        fields[field] = np.zeros(shape, np.int32)
    ops = np.zeros(len(rows), np.int32)
    for (i, op), names in found.items():
        ops[i] = augment.OPS.index(op)
        for stored, field in names.items():
            fields[field][i] = _pad(values[f"step{i}_{op}_{stored}"], size)
    fields = {field: jnp.asarray(array) for field, array in fields.items()}
    return augment.apply, augment.Draws(op=jnp.asarray(ops), **fields)


def _pad(array, size):
    return np.concatenate([array, np.repeat(array[:1], size - len(array))])
