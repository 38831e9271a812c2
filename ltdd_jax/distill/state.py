"""Everything mutable in distillation."""

import flax.struct
import jax
import jax.numpy as jnp
import optax

from ltdd_jax.types import SyntheticSet


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
) -> optax.GradientTransformation:
    """SGD with heavy-ball momentum for images, label logits and step size separately.

    v ← μv + g, p ← p - lr·v; no decay, no clipping, no bounds (as published; the step size may
    become negative).
    """
    parts = {
        "images": optax.sgd(image_lr, image_momentum),
        "label_logits": optax.sgd(label_lr, label_momentum),
        "step_size": optax.sgd(step_size_lr, step_size_momentum),
    }
    # A tree of names in place of arrays, as optax takes it.
    labels = SyntheticSet(images="images", label_logits="label_logits", step_size="step_size")  # type: ignore[arg-type]
    return optax.partition(parts, labels)


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
