"""Which rows each optimiser step sees, as fixed-shape arrays.

Chunks that do not divide the data are padded with rows of weight zero, so that every step has
the same shape and a scan can run over them.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax.types import Array, Batch


def num_batches(num_rows: int, batch_size: int) -> int:
    """Batches of one pass over `num_rows` rows, the short one included."""
    return -(-num_rows // batch_size)


def cut_stream(stream: Array, batch_size: int) -> Batch:
    """Cuts a stream of row numbers into consecutive batches; the last may be short.

    Args:
      stream: int32 [N].
      batch_size: rows per batch; more than N counts as N.

    Returns:
      Batch with indices int32 [n, B] and weights float32 [n, B].
    """
    num_rows = stream.shape[0]
    batch_size = min(batch_size, num_rows)
    count = num_batches(num_rows, batch_size)
    padding = count * batch_size - num_rows
    padded = jnp.concatenate([stream, jnp.broadcast_to(stream[:1], (padding,))])
    present = np.arange(count * batch_size).reshape(count, batch_size) < num_rows
    weights = present / present.sum(axis=1, keepdims=True)
    return Batch(
        indices=padded.reshape(count, batch_size), weights=jnp.asarray(weights, jnp.float32)
    )


def shuffle_epoch(key: jax.Array, num_rows: int, batch_size: int) -> Batch:
    """One pass over all rows in random order, the short batch last (natural sampling).

    Returns:
      Batch with a leading axis of `num_batches(num_rows, batch_size)` steps.
    """
    return cut_stream(_permute(key, num_rows), batch_size)


def draw_chunks(key: jax.Array, num_rows: int, batch_size: int, num_steps: int) -> Batch:
    """Minibatches of the student: whole passes over the synthetic set, each newly shuffled.

    A pass is cut into chunks which are used from the last to the first, so a short remainder
    comes first, as in the published implementations of trajectory matching. The rows left over
    after `num_steps` are dropped. `batch_size` above `num_rows` gives full batches.

    Returns:
      Batch with indices int32 [T, B] and weights float32 [T, B].
    """
    batch_size = min(batch_size, num_rows)
    passes = num_batches(num_steps, num_batches(num_rows, batch_size))

    def one_pass(index):
        chunks = cut_stream(_permute(jax.random.fold_in(key, index), num_rows), batch_size)
        return jax.tree.map(lambda x: x[::-1], chunks)

    chunks = jax.vmap(one_pass)(jnp.arange(passes))
    return jax.tree.map(lambda x: x.reshape(-1, x.shape[-1])[:num_steps], chunks)


def _permute(key, num_rows):
    return jax.random.permutation(key, jnp.arange(num_rows, dtype=jnp.int32))
