"""Class-balanced order of the images, for classifier experts (method section "Classifier experts").

The order is that of the class-aware sampler of decoupled training: groups of `group_size` images
of one class, the classes in turn. The reference keeps shuffled cycles as mutable state; here any
position of any cycle is a pure function of the key, so any epoch can be computed by itself.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax.types import UserError


def epoch_length(class_counts: Sequence[int]) -> int:
    """Indices of one epoch, K · max_k N_k."""
    return len(class_counts) * max(int(count) for count in class_counts)


def epoch_stream(key, epoch, class_counts: Sequence[int], group_size: int = 4):
    """Image indices in the order in which epoch `epoch` visits them.

    One endless cycle runs over the classes, and one over the images of every class; each is a
    random permutation, drawn anew whenever it starts again. A group takes the next class and then
    the next `group_size` images of this class. All cycles continue in the next epoch. When the
    length is no multiple of `group_size`, the last group is cut and the rest of it is lost.

    Cost: one sort of about K · max_k N_k + 2 Σ_k N_k numbers. May be used under `jit` and `vmap`
    (over keys and epochs).

    Args:
      key: PRNG key, the same in all epochs.
      epoch: int ≥ 0, Python or traced.
      class_counts: N_k, static; images are sorted by class, so class k starts at Σ_{j<k} N_j.
      group_size: images of one class in a row.

    Returns:
      int32 [K · max_k N_k], rows of the sorted data set.

    Raises:
      UserError: a class is empty.
    """
    counts = tuple(int(count) for count in class_counts)
    for label, count in enumerate(counts):
        if count < 1:
            raise UserError(
                f"class {label} has no training image, so it cannot be sampled: remove the class "
                "from the data, or lower the imbalance factor"
            )
    num_classes, length = len(counts), epoch_length(counts)
    num_groups = -(-length // group_size)
    max_rounds = _max_cycles(num_groups, num_classes)  # a round visits every class once
    group = jnp.asarray(epoch, jnp.int32) * num_groups + jnp.arange(num_groups, dtype=jnp.int32)
    first_round = group[0] // num_classes

    # Cycles of images, one per class, and last the cycle of classes. A class takes part once in
    # every round, so in round r its group starts at position r · group_size of its cycle.
    sizes = np.array([*counts, num_classes])
    num_cycles = [_max_cycles(max_rounds * group_size, count) for count in counts] + [max_rounds]
    first_image = first_round * group_size
    first_cycles = jnp.append(first_image // sizes[:-1].astype(np.int32), first_round)
    shuffled, starts = _shuffled_cycles(key, sizes, np.array(num_cycles), first_cycles)
    # Entry of `shuffled` at which position 0 of a cycle would lie.
    origins = starts.astype(np.int32) - first_cycles * sizes.astype(np.int32)

    label = shuffled[origins[-1] + group]
    member = jnp.arange(group_size, dtype=jnp.int32)
    position = (group // num_classes * group_size)[:, None] + member[None, :]
    offsets = np.cumsum([0, *counts[:-1]]).astype(np.int32)
    within = shuffled[origins[label][:, None] + position]
    return (jnp.asarray(offsets)[label][:, None] + within).reshape(-1)[:length]


def _max_cycles(window: int, size: int) -> int:
    """Cycles of `size` items that a window of `window` consecutive positions can touch."""
    return (window + 2 * size - 2) // size


def _shuffled_cycles(key, sizes, num_cycles, first_cycles):
    """Consecutive permutations of several cycles, concatenated.

    Args:
      key: PRNG key; cycle c in its j-th turn depends on (key, c, j) alone.
      sizes: int [S], items of every cycle, static.
      num_cycles: int [S], permutations wanted of every cycle, static.
      first_cycles: int32 [S], number of the first one.

    Returns:
      int32 [Σ sizes · num_cycles] items in 0..size-1, and int [S] where each cycle starts in it.
    """
    cycle = np.repeat(np.arange(len(sizes), dtype=np.int32), num_cycles)  # of every permutation
    turn = _enumerated(num_cycles) + first_cycles[cycle]
    permutation = np.repeat(np.arange(len(cycle), dtype=np.int32), sizes[cycle])  # of every item
    item = _enumerated(sizes[cycle])

    def bits(permutation_key, item):
        return jax.random.bits(jax.random.fold_in(permutation_key, item))

    cycle_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(sizes)))
    keys = jax.vmap(jax.random.fold_in)(cycle_keys[cycle], turn)
    order = jax.vmap(bits)(keys[permutation], item)
    _, _, shuffled = jax.lax.sort((jnp.asarray(permutation), order, jnp.asarray(item)), num_keys=2)
    lengths = sizes * num_cycles
    return shuffled, np.cumsum(lengths) - lengths


def _enumerated(lengths):
    """0..length-1 for every length, concatenated; int32."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum(), dtype=np.int32) - np.repeat(starts, lengths).astype(np.int32)
