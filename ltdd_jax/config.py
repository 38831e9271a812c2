"""Every setting of a run: default, unit and source; the allowed ranges; what identifies a run.

A file in `configs/` calls `base_config()`, overrides fields and returns the result; the command
line overrides further with `--config.section.field=value`. "Paper" is Zhao et al., "Distilling
Long-tailed Datasets", CVPR 2025 (arXiv 2408.14506); its settings are those of the released program.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from ml_collections import ConfigDict

from ltdd_jax import validation
from ltdd_jax.records import flatten
from ltdd_jax.types import UserError

# What decides the results of a run. Of `runtime` only the precision does, beyond the last digits.
IDENTITY = (
    "seed",
    "data",
    "net",
    "augment",
    "experts",
    "distill",
    "evaluation",
    "runtime.precision",
)
# Where files lie is not part of what a run is: data and trajectories carry fingerprints.
_LOCATIONS = ("data.data_dir", "data.path", "experts.path")


def base_config() -> ConfigDict:
    """Returns the default of every field, locked: assigning to an unknown field raises."""
    config = ConfigDict(
        {
            # Names the default workdir, runs/NAME, and the report.
            "name": "base",
            # Root of all random streams; two runs of one seed on one machine are equal.
            "seed": 0,
            "data": _data_section(),
            "net": {
                # Distilled with and evaluated on (paper: ConvNet, instance norm, average pooling);
                # width and depth are the convnet's.
                "name": "convnet",
                # Channels of every convolution (paper: 128).
                "width": 128,
                # Blocks; each halves the image side (paper: 3 at 32x32, 4 at 64x64).
                "depth": 3,
            },
            "augment": {
                # Operations of differentiable Siamese augmentation (DSA), joined by "_"; one of
                # them is drawn per batch (paper: all six). Empty for no augmentation.
                "strategy": "color_crop_cutout_flip_scale_rotate",
            },
            "experts": _experts_section(),
            "distill": _distill_section(),
            "evaluation": _evaluation_section(),
            "runtime": _runtime_section(),
        }
    )
    return config.lock()


def _data_section() -> dict[str, Any]:
    return {
        # digits | cifar10 | cifar100 | folder | tfds:NAME.
        "source": "digits",
        # Directory of TensorFlow Datasets; "" is its own default, ~/tensorflow_datasets.
        "data_dir": "",
        # Directory or .tar with train/ and test/ class folders; only for source=folder.
        "path": "",
        # Side in pixels to which images are resized; 0 keeps their size.
        "image_size": 0,
        # long_tail cuts the classes down to imbalance_factor; as_is keeps the data.
        "subset": "long_tail",
        # Largest / smallest class count, at least 1 (paper: 10 to 200).
        "imbalance_factor": 100.0,
        # ZCA whitening fitted on the long-tailed training set (paper: on).
        "whiten": True,
        # Added to the eigenvalues of the covariance (paper: 0.1, on pixels in [0, 1]).
        "zca_eps": 0.1,
        # Subtract the mean and divide by the std of each channel before ZCA (paper: CIFAR-100-LT).
        "normalize": False,
        # Normalise only the test images, as the released program does for CIFAR-10-LT.
        "mismatched_test": False,
    }


def _experts_section() -> dict[str, Any]:
    optimizer = {
        # Images per step; the last batch of an epoch may be smaller (paper: 256).
        "batch_size": 256,
        # SGD, constant (paper: 0.01).
        "learning_rate": 0.01,
        # SGD momentum, 0 is off (paper: 0).
        "momentum": 0.0,
        # Radius of the GSAM perturbation; 0 leaves plain SGD (paper: 0.01).
        "rho": 0.01,
        # GSAM: share of the component orthogonal to the perturbed gradient (paper: 0.3).
        "alpha": 0.3,
        # Scale the perturbation with the size of each weight (paper: on).
        "adaptive": True,
    }
    return {
        # Directory of the trajectories; "" is WORKDIR/experts. Set it to share them between runs.
        "path": "",
        # Trajectories of each of the two stages (paper: 100).
        "num_experts": 100,
        # Whole network on the long-tailed data; one snapshot per epoch and one before the first.
        "representation": {
            **optimizer,
            "num_epochs": 100,  # paper: 100
            "weight_decay": 5e-3,  # on every parameter (paper: 5e-3)
        },
        # Only the classifier moves, from the last representation snapshot, on balanced batches.
        "classifier": {
            **optimizer,
            "num_epochs": 10,  # paper: 10
            "weight_decay": 0.0,  # paper: 0
            # Consecutive images of one class in the class-balanced order (paper: 4).
            "group_images": 4,
            # Project the classifier's class vectors into a norm ball after each epoch. The paper
            # asks for it, the released program never runs it.
            "max_norm": False,
            # Ball radius within [smallest, largest] row norm at the start, 0 to 1 (paper: 0.1).
            "max_norm_threshold": 0.1,
        },
    }


def _distill_section() -> dict[str, Any]:
    return {
        # Synthetic images per class (paper: 10, 20, 50).
        "ipc": 10,
        # Outer iterations (paper: 0 to 10 000 inclusive).
        "num_iterations": 10001,
        # Gradient through the student's steps: exact (stored parameters and adjoint) | two_pass
        # (the paper's constant-memory approximation) | autodiff (exact, large memory, for tests).
        "gradient": "exact",
        # Epochs between start and target snapshot (paper: 2).
        "expert_epochs": 2,
        # Synthetic images per student step; more than there are means all of them (paper: 500).
        "batch_size": 500,
        # correct: real images that a classifier expert gets right | real: any | noise.
        "initial_images": "correct",
        # Student's learning rate at the start; it is learned (paper: 0.01).
        "initial_step_size": 0.01,
        # Outer SGD: learning rate and momentum of the images (paper: 100 or 1000; 0.5),
        "image_lr": 100.0,
        "image_momentum": 0.5,
        # of the label logits (paper: 2 for 10 classes, 10 for more; 0.9),
        "label_lr": 2.0,
        "label_momentum": 0.9,
        # and of the step size (paper: 1e-5; 0.5). Rate 0 keeps a quantity fixed.
        "step_size_lr": 1e-5,
        "step_size_momentum": 0.5,
        # f in the class weights (N_c + f) / (N + f) of the representation phase (paper: 0).
        "class_weight_offset": 0.0,
        # Skip updates whose matching loss is above it, DATM's rule; 0 is off (paper: off).
        "skip_threshold": 0.0,
        # Trajectories are used in shuffled blocks of this many (paper: 10, one file each).
        "experts_per_file": 10,
        # Expert pairs per phase and iteration, their gradients averaged (paper: 1); spread over
        # the devices.
        "pairs_per_iteration": 1,
        # Class-weighted loss, matched on the backbone.
        "representation": {
            # Student steps per outer iteration (paper: 80 CIFAR-10, 40 CIFAR-100).
            "student_steps": 80,
            # Start epochs are drawn from [min, upper), upper <= max. With sequential, upper grows
            # linearly from current to max over expansion_end iterations; without, it is max.
            "min_start_epoch": 0,
            "current_start_epoch": 10,
            "max_start_epoch": 20,
            "sequential": False,
            "expansion_end": 1000,
            # Weight λ1 of this phase's gradient (paper: 0.1 to 1); 0 leaves the phase out.
            "loss_weight": 1.0,
        },
        # Plain loss, only the classifier moves and is matched; fields as above, λ2.
        "classifier": {
            "student_steps": 80,
            "min_start_epoch": 0,
            "current_start_epoch": 0,
            "max_start_epoch": 1,
            "sequential": False,
            "expansion_end": 1000,
            "loss_weight": 0.2,
        },
    }


def _evaluation_section() -> dict[str, Any]:
    return {
        # Fresh networks, each with its own seed; accuracies are mean and std over them.
        "num_seeds": 5,
        # E in the protocol: epochs 0 to E inclusive, rate divided by 10 after E // 2 + 1
        # (paper: 1000).
        "num_epochs": 1000,
        # Images per step (paper: 128).
        "batch_size": 128,
        # SGD momentum (paper: 0.9) and weight decay (paper: 5e-4).
        "momentum": 0.9,
        "weight_decay": 5e-4,
        # Learning rate on real images; the distilled set brings its own, learned (paper: 0.01).
        "baseline_step_size": 0.01,
        # E for the full training set; 0 is num_epochs.
        "full_num_epochs": 0,
    }


def _runtime_section() -> dict[str, Any]:
    return {
        # Experts trained at once, bounds memory; 0 chooses from what the device has.
        "expert_group_size": 0,
        # How convolutions are written: auto (by backend) | lax | patches | shifts.
        "convolution": "auto",
        # Products: float32 | tf32 | bfloat16. The only field here that belongs to the identity.
        "precision": "float32",
        # What the experts' training images are on the device: uint8 pixels, whitened where a batch
        # is made (a quarter of the memory) | float32 network input | auto: uint8 on accelerators.
        "image_storage": "auto",
        # Outer iterations in one compiled call; 0 chooses one on a CPU, several elsewhere.
        "iterations_per_call": 0,
        # Outer iterations between log lines.
        "log_steps": 50,
        # A checkpoint after this many outer iterations or minutes, whichever comes first;
        # 0 minutes leaves the count alone.
        "checkpoint_steps": 500,
        # Epochs of a group of experts between two saves of their trajectories.
        "checkpoint_epochs": 25,
        "checkpoint_minutes": 10.0,
        # Host memory for snapshots of trajectories, MiB.
        "snapshot_cache_mb": 2048,
        # Directory of compiled programs; "" is one in the user's cache, "off" keeps none.
        "compilation_cache": "",
    }


def validate(config: ConfigDict) -> None:
    """Checks every field and the combinations of fields that need no data.

    Raises:
      UserError: one sentence with the field, its value, what is allowed and a value that is.
    """
    validation.check_fields(flatten(config.to_dict()), flatten(base_config().to_dict()))


def identity(config: ConfigDict, sections: Iterable[str] = IDENTITY) -> dict[str, Any]:
    """The part of a config that decides results, to be stored beside what it produced.

    Args:
      config: a whole config.
      sections: dotted names of sections or fields, such as "data" or "experts.representation".

    Returns:
      A nested dict fit for JSON, without the fields that only say where files lie.
    """
    sections = tuple(sections)
    result: dict[str, Any] = {}
    for path, value in flatten(config.to_dict()).items():
        if path in _LOCATIONS or not any(f"{path}.".startswith(f"{name}.") for name in sections):
            continue
        *parents, leaf = path.split(".")
        section = result
        for parent in parents:
            section = section.setdefault(parent, {})
        section[leaf] = value
    return result


def config_hash(config: ConfigDict) -> str:
    """SHA-256 in hexadecimal of the identity, written as JSON with sorted keys."""
    text = json.dumps(identity(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def parse_argument(
    argument: str, variants: Sequence[str], modifiers: Sequence[str] = ()
) -> tuple[str, frozenset[str]]:
    """Reads what follows the colon of `--config=file.py:VARIANT,MODIFIER`.

    Args:
      argument: words joined by commas, in any order; may be empty.
      variants: names of which at most one may be given; the first is the default.
      modifiers: further words.

    Returns:
      The variant and the modifiers given.

    Raises:
      UserError: an unknown word, or two variants.
    """
    words = [word.strip() for word in argument.split(",") if word.strip()]
    known = [*variants, *modifiers]
    for word in words:
        if word not in known:
            raise UserError(
                f"the config file has no variant {word!r}{validation.suggest(word, known)}: "
                f"after the colon give one of {', '.join(variants)}"
                + (f", and optionally {', '.join(modifiers)}" if modifiers else "")
            )
    chosen = [word for word in words if word in variants]
    if len(chosen) > 1:
        raise UserError(f"the config file takes one variant, not {' and '.join(chosen)}")
    return (chosen or variants)[0], frozenset(words) - frozenset(variants)
