"""What a long tail is balanced with: weights of classes, shifts of logits, drawing of rows."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

SHIFTS = ("plain", "logit_adjusted", "balanced_softmax")


def class_weights(class_counts: Sequence[int], power: float) -> np.ndarray:
    """w_c = K · N_c^-q / Σ_k N_k^-q, so that their sum is K (GLMC, CVPR 2023).

    Args:
      class_counts: [K], each at least 1.
      power: q >= 0; 0 gives ones.

    Returns:
      float32 [K].
    """
    inverse = np.asarray(class_counts, np.float64) ** -power
    return (len(inverse) * inverse / inverse.sum()).astype(np.float32)


def logit_shift(recipe: str, class_counts: Sequence[int], tau: float = 1.0) -> np.ndarray:
    """What is added to the logits in the loss, so that the network itself learns to do without.

    logit_adjusted adds τ · log π_c with π_c = N_c / N (Menon et al., ICLR 2021, equation 10);
    balanced_softmax adds log N_c (Ren et al., NeurIPS 2020, equation 4), which is the same with
    τ = 1, as log N is in all classes and softmax ignores it. Then the minimiser's own logits are
    those of a set with equally many images of every class.

    Args:
      recipe: of `SHIFTS`; plain adds nothing.
      class_counts: [K], each at least 1.
      tau: strength, only of logit_adjusted.

    Returns:
      float32 [K].

    Raises:
      ValueError: unknown recipe.
    """
    if recipe not in SHIFTS:
        raise ValueError(f"recipe must be one of {SHIFTS}, not {recipe!r}")
    counts = np.asarray(class_counts, np.float64)
    shifts = {
        "plain": np.zeros_like(counts),
        "logit_adjusted": tau * np.log(counts / counts.sum()),
        "balanced_softmax": np.log(counts),
    }
    return shifts[recipe].astype(np.float32)


def draw_rows(key, shape: tuple[int, ...], class_counts: Sequence[int], power: float):
    """Rows with replacement: a class with probability ~ N_c^p, then one of its images.

    Args:
      key: PRNG key.
      shape: of the result.
      class_counts: [K], each at least 1; rows are sorted by class.
      power: p; 1 is natural sampling, 0 class-balanced.

    Returns:
      int32, rows of the sorted data set.
    """
    counts = np.asarray(class_counts, np.int64)
    mass = counts.astype(np.float64) ** power
    upper = jnp.asarray(np.cumsum(mass)[:-1] / mass.sum(), jnp.float32)
    first = jnp.asarray(np.cumsum(counts) - counts, jnp.int32)
    class_key, row_key = jax.random.split(key)
    uniform = jax.random.uniform(class_key, shape, jnp.float32)
    label = jnp.searchsorted(upper, uniform, side="right")
    within = jax.random.randint(row_key, shape, 0, jnp.asarray(counts, jnp.int32)[label], jnp.int32)
    return first[label] + within
