"""Networks as pure functions of (parameters, images)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ltdd_jax.nets.alexnet import AlexNet
from ltdd_jax.nets.convnet import ConvNet
from ltdd_jax.nets.lenet import LeNet
from ltdd_jax.nets.mlp import MLP
from ltdd_jax.nets.resnet import ResNet18
from ltdd_jax.nets.sizes import Sizes, measure
from ltdd_jax.nets.vgg import VGG11
from ltdd_jax.types import Params

REGISTRY: dict[str, Callable[..., nn.Module]] = {
    "alexnet": AlexNet,
    "alexnet_64": functools.partial(AlexNet, stem_stride=2),  # _64: for images of 64 x 64
    "convnet": ConvNet,
    "lenet": LeNet,
    "lenet_64": functools.partial(LeNet, stem_stride=2),
    "mlp": MLP,
    "resnet18": ResNet18,
    "resnet18_64": functools.partial(ResNet18, stem_stride=2),
    "resnet18_ap": functools.partial(ResNet18, average_pooling=True),
    "vgg11": VGG11,
    "vgg11_64": functools.partial(VGG11, final_stride=2),
}


@dataclasses.dataclass(frozen=True)
class Network:
    """A network without state: parameters are an argument.

    Attributes:
      init: key -> params.
      apply: (params, images [B, H, W, C]) -> logits [B, K].
      embed: (params, images) -> features [B, F]; reads the backbone only.
      classify: (params, features) -> logits; reads the classifier only.
      sizes: parameters, maps and products for one image.
    """

    init: Callable[[jax.Array], Params]
    apply: Callable[[Params, jax.Array], jax.Array]
    embed: Callable[[Params, jax.Array], jax.Array]
    classify: Callable[[Params, jax.Array], jax.Array]
    sizes: Sizes


def list_options(name: str) -> set[str]:
    """Options that the network called `name` takes beside the number of classes.

    Raises:
      ValueError: unknown name.
    """
    if name not in REGISTRY:
        raise ValueError(f"network must be one of {sorted(REGISTRY)}, not {name!r}")
    module = REGISTRY[name]
    fixed = set(module.keywords) if isinstance(module, functools.partial) else set()
    kind: Any = module.func if isinstance(module, functools.partial) else module
    names = {field.name for field in dataclasses.fields(kind) if field.init}
    return names - fixed - {"num_classes", "parent", "name"}


def build(
    name: str,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    dtype: str = "float32",
    **options,
) -> Network:
    """Builds a network from its name in `REGISTRY`.

    Args:
      name: key of `REGISTRY`.
      image_shape: (H, W, C) of one image.
      num_classes: outputs K.
      dtype: of the layers' arithmetic, "float32" or "bfloat16"; parameters, features, logits
        and the statistics of the norms stay as they come (float32).
      **options: of those of `list_options` (width, depth, form, ...).

    Raises:
      ValueError: unknown name or option.
      ValueError, ZeroDivisionError or TypeError: images too small for the network.
    """
    unknown = options.keys() - list_options(name)
    if unknown:
        raise ValueError(f"network {name!r} takes no option {sorted(unknown)[0]!r}")
    module = REGISTRY[name](num_classes=num_classes, **options)
    example = jnp.zeros((1, *image_shape), jnp.float32)

    def init(key):
        return module.init(key, example)["params"]

    def call(method):
        def plain(params, inputs):
            return module.apply({"params": params}, inputs, method=method)

        def narrow(params, inputs):
            params, inputs = jax.tree.map(lambda x: x.astype(dtype), (params, inputs))
            return plain(params, inputs).astype(jnp.float32)

        return plain if dtype == "float32" else narrow

    names = jax.eval_shape(init, jax.random.key(0))
    if "classifier" not in names:
        raise ValueError(f"no parameters called classifier, only {', '.join(names)}")
    apply = call("__call__")
    sizes = measure(init, apply, image_shape)  # images too small for the depth fail here
    return Network(
        init=init, apply=apply, embed=call("embed"), classify=call("classify"), sizes=sizes
    )
