"""Cross-entropies per row; the caller owns the mean.

The paper's loss and the reference divide by the number of rows, never by a sum of class weights
(arXiv 2408.14506, section "Distribution-agnostic matching").
"""

import jax
import jax.numpy as jnp
import numpy as np

_HARD_LOGIT = 30.0  # softmax of this against zeros is a one-hot label in float32


def hard_label_logits(labels, num_classes: int):
    """Label logits whose softmax is one-hot; labels int [N], returns float32 NumPy [N, K]."""
    return (_HARD_LOGIT * np.eye(num_classes)[labels]).astype(np.float32)


def soft_cross_entropy(logits, label_logits):
    """-Σ_k softmax(label_logits)_k · log softmax(logits)_k.

    Args:
      logits: [B, K].
      label_logits: [B, K], unnormalised; softmax is applied here and nowhere else.

    Returns:
      [B], each >= 0.
    """
    targets = jax.nn.softmax(label_logits, axis=-1)
    return -(targets * jax.nn.log_softmax(logits, axis=-1)).sum(axis=-1)


def weighted_soft_cross_entropy(logits, label_logits, class_weights):
    """-Σ_k w_k · softmax(label_logits)_k · log softmax(logits)_k: distribution-agnostic matching.

    The weight multiplies the column of the label, so a student on balanced data feels the
    gradient of the imbalanced set.

    Args:
      logits: [B, K].
      label_logits: [B, K], unnormalised.
      class_weights: [K], see `class_frequencies`; they sum to 1, hence the loss is about K times
        smaller than the unweighted one.

    Returns:
      [B].
    """
    targets = jax.nn.softmax(label_logits, axis=-1) * class_weights[None]
    return -(targets * jax.nn.log_softmax(logits, axis=-1)).sum(axis=-1)


def balanced_softmax_cross_entropy(logits, label_logits, class_weights):
    """`weighted_soft_cross_entropy` at logits - log w, as the reference's optional variant.

    Both the sign of the shift and the second use of the weights differ from balanced softmax
    (Ren et al., NeurIPS 2020); no published configuration uses it.

    Args:
      logits: [B, K].
      label_logits: [B, K], unnormalised.
      class_weights: [K], positive.

    Returns:
      [B].
    """
    shifted = logits - jnp.log(class_weights)[None]
    return weighted_soft_cross_entropy(shifted, label_logits, class_weights)


def cross_entropy(logits, labels):
    """-log softmax(logits)[label] for integer labels [B] in 0..K-1; returns [B]."""
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]


def class_frequencies(class_counts, offset: float = 0.0):
    """w_k = (N_k + f) / (N + f), the weights of the representation phase.

    Args:
      class_counts: [K] images per class of the real set.
      offset: f >= 0; every published configuration has 0.

    Returns:
      float32 [K]; they sum to 1 when f is 0.
    """
    counts = jnp.asarray(class_counts, jnp.float32)
    return (counts + offset) / (counts.sum() + offset)


def tempered_divergence(logits, target_logits, temperature: float):
    """T² KL(softmax(target / T) ‖ softmax(logits / T)), as Hinton et al. distil (arXiv 1503.02531).

    The factor T² keeps the size of the gradient when the temperature changes.

    Args:
      logits: [B, K].
      target_logits: [B, K], of the teacher.
      temperature: T > 0.

    Returns:
      [B], each >= 0.
    """
    targets = jax.nn.log_softmax(target_logits / temperature, axis=-1)
    answers = jax.nn.log_softmax(logits / temperature, axis=-1)
    return temperature**2 * (jnp.exp(targets) * (targets - answers)).sum(axis=-1)
