"""Named streams of random numbers, all derived from the seed of the run."""

import jax

STREAMS = (
    "representation",
    "classifier",
    "initialize",
    "schedule",
    "distill",
    "evaluate",
    "baseline",
    "teacher",
    "observer",
    "views",
)


def stream_key(seed: int, stream: str) -> jax.Array:
    """The root key of a stage: fold_in(key(seed), place of `stream` in STREAMS).

    New streams go to the end of STREAMS, so that old results can be repeated.

    Raises:
      ValueError: unknown stream.
    """
    return jax.random.fold_in(jax.random.key(seed), STREAMS.index(stream))
