"""Everything mutable in distillation."""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from ltdd_jax import training
from ltdd_jax.types import SyntheticSet

_SECOND_DECAY, _LAST_SHARE = 0.99, 0.02


@flax.struct.dataclass
class DistillState:
    """State of the outer loop, checkpointed whole.

    Attributes:
      step: int32 scalar, outer iterations done.
      synthetic: what is optimised.
      opt_state: momentum of the three outer optimisers.
      base_key: typed key; iteration i uses fold_in(base_key, i).
      mean_images: running mean of the images, None where none is kept.
    """

    step: jax.Array
    synthetic: SyntheticSet
    opt_state: optax.OptState
    base_key: jax.Array
    mean_images: jax.Array | None = None


def make_outer_optimizer(
    *,
    image_lr: float,
    image_momentum: float,
    label_lr: float,
    label_momentum: float,
    step_size_lr: float,
    step_size_momentum: float,
    optimizer: str = "sgd",
    fall_steps: int = 0,
) -> optax.GradientTransformation:
    """An optimiser each for images, label logits and step size.

    sgd is v ← μv + g, p ← p - lr·v; no decay, no clipping, no bounds (as published; the step size
    may become negative). adam has the momentum as its first moment's decay, and 0.99 for the
    second: a noisy gradient of few iterations (ours).

    Args:
      image_lr: learning rate of the images.
      image_momentum: of the images.
      label_lr: learning rate of the label logits.
      label_momentum: of the label logits.
      step_size_lr: learning rate of the step size.
      step_size_momentum: of the step size.
      optimizer: "sgd" or "adam".
      fall_steps: iterations over which all rates fall as a cosine to 2 %; 0 keeps them.
    """

    def make(rate, momentum):
        if fall_steps:
            rate = optax.cosine_decay_schedule(rate, fall_steps, alpha=_LAST_SHARE)
        if optimizer == "adam":
            return optax.adam(rate, b1=momentum, b2=_SECOND_DECAY)
        return optax.sgd(rate, momentum)

    parts = {
        "images": make(image_lr, image_momentum),
        "label_logits": make(label_lr, label_momentum),
        "step_size": make(step_size_lr, step_size_momentum),
    }
    # A tree of names in place of arrays, as optax takes it.
    labels = SyntheticSet(images="images", label_logits="label_logits", step_size="step_size")  # type: ignore[arg-type]
    return training.allow_counts(optax.partition(parts, labels))


def init_state(
    key: jax.Array,
    synthetic: SyntheticSet,
    tx: optax.GradientTransformation,
    *,
    keep_mean: bool = False,
) -> DistillState:
    """State before the first outer iteration; `key` becomes the base key.

    `keep_mean` starts a running mean of the images at the first ones.
    """
    return DistillState(
        step=jnp.zeros((), jnp.int32),
        synthetic=synthetic,
        opt_state=tx.init(synthetic),
        base_key=key,
        # A copy: the state is given away whole, and no array of it may be there twice.
        mean_images=jnp.array(synthetic.images, copy=True) if keep_mean else None,
    )
