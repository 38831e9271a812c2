"""What a network needs, read off its own program: parameters, feature maps, products."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from ltdd_jax.nets import partition

_CONVOLUTION = "ltdd_conv2d"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of one network for one image.

    Attributes:
      num_parameters: numbers in the parameters, running statistics apart.
      num_backbone: those of them that are not the classifier's.
      largest_map: numbers in the largest output of a layer.
      sum_maps: numbers in the outputs of all convolutions and linear layers together.
      flops: multiplications and additions of a forward pass, layers only.
    """

    num_parameters: int
    num_backbone: int
    largest_map: int
    sum_maps: int
    flops: int

    def training_bytes(self, batch_size: int) -> int:
        """Estimate of the memory that one network's training step needs, float32.

        Six copies of the maps and the patches of two convolutions, fitted to measurements with
        the ConvNet (docs/performance.md).
        """
        return int(4 * batch_size * (6 * self.sum_maps + 4.5 * self.sum_maps))


def measure(init: Callable, apply: Callable, image_shape: tuple[int, int, int]) -> Sizes:
    """Sizes of a network from an abstract trace; nothing is computed.

    Args:
      init: key -> params.
      apply: (params, images) -> logits.
      image_shape: (H, W, C).
    """
    params = jax.eval_shape(init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    program = jax.make_jaxpr(apply)(params, image).jaxpr
    layers = [(math.prod(e.outvars[0].aval.shape), _flops(e)) for e in _walk(program)]
    trained, _ = partition.split_statistics(params)
    total = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(trained))
    head = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params["classifier"]))
    return Sizes(
        num_parameters=total,
        num_backbone=total - head,
        largest_map=max(size for size, _ in layers),
        sum_maps=sum(size for size, _ in layers),
        flops=sum(flops for _, flops in layers),
    )


def _walk(program: Any) -> Iterator[Any]:
    """Every convolution and matrix product, also inside called functions."""
    for equation in program.eqns:
        if equation.primitive.name in (_CONVOLUTION, "conv_general_dilated", "dot_general"):
            yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)  # closed or open
            if hasattr(inner, "eqns"):
                yield from _walk(inner)


def _flops(equation: Any) -> int:
    outputs = math.prod(equation.outvars[0].aval.shape)
    kernel = equation.invars[1].aval.shape
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        first = equation.invars[0].aval.shape
        return 2 * outputs * math.prod(first[axis] for axis in contracted)
    return 2 * outputs * math.prod(kernel[:3])
