"""Networks as pure functions of (parameters, images)."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ltdd_jax.nets import layers, partition
from ltdd_jax.nets.alexnet import AlexNet
from ltdd_jax.nets.convnet import ConvNet
from ltdd_jax.nets.lenet import LeNet
from ltdd_jax.nets.mlp import MLP
from ltdd_jax.nets.resnet import ResNet18, ResNet32
from ltdd_jax.nets.sizes import Sizes, measure
from ltdd_jax.nets.vgg import VGG11
from ltdd_jax.nets.vit import ViT
from ltdd_jax.types import Params

REGISTRY: dict[str, Callable[..., nn.Module]] = {
    "alexnet": AlexNet,
    "alexnet_64": functools.partial(AlexNet, stem_stride=2),  # _64: for images of 64 x 64
    "alexnet_bn": functools.partial(AlexNet, norm="batch"),  # _bn: with batch norm
    "convnet": ConvNet,
    "convnet_bn": functools.partial(ConvNet, norm="batch"),
    "lenet": LeNet,
    "lenet_64": functools.partial(LeNet, stem_stride=2),
    "mlp": MLP,
    "resnet18": ResNet18,
    "resnet18_64": functools.partial(ResNet18, stem_stride=2),
    "resnet18_ap": functools.partial(ResNet18, average_pooling=True),
    "resnet18_bn": functools.partial(ResNet18, norm="batch"),
    "resnet32_bn": functools.partial(ResNet32, norm="batch"),
    "vgg11": VGG11,
    "vgg11_64": functools.partial(VGG11, final_stride=2),
    "vgg11_bn": functools.partial(VGG11, norm="batch"),
    "vit": ViT,
}


_OBSERVED = {"norm": tuple(layers.NORMS.values()), "conv": (layers.Conv,)}


@dataclasses.dataclass(frozen=True)
class Network:
    """A network without state: parameters, and statistics if there are any, are an argument.

    Running statistics are leaves of the parameters below "statistics"; `partition` takes them
    apart from what a gradient moves. Everything but `train` normalises with them.

    Attributes:
      init: key -> params.
      apply: (params, images [B, H, W, C]) -> logits [B, K].
      embed: (params, images) -> features [B, F]; reads the backbone only.
      classify: (params, features) -> logits; reads the classifier only.
      train: (params, images, weights [B] or None) -> (logits, params with the statistics after
        this batch); as `apply` where there are none. The weights sum to 1 and are 0 on padding.
      train_embed: as `train`, with the features in place of the logits.
      observe: (params, images) -> (logits, name of a layer -> what enters it): float32 arrays
        [B, h, w, c] for every layer of `observed`.
      observed: name of a layer -> "norm" or "conv", in the order in which an image meets them; a
        "/" in the name parts the levels of the parameters.
      has_statistics: whether it has batch norms.
      sizes: parameters, maps and products for one image.
    """

    init: Callable[[jax.Array], Params]
    apply: Callable[[Params, jax.Array], jax.Array]
    embed: Callable[[Params, jax.Array], jax.Array]
    classify: Callable[[Params, jax.Array], jax.Array]
    train: Callable[..., tuple[jax.Array, Params]]
    train_embed: Callable[..., tuple[jax.Array, Params]]
    observe: Callable[[Params, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]
    observed: Mapping[str, str]
    has_statistics: bool
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
        variables = module.init(key, example)
        return partition.merge_statistics(variables["params"], variables.get("statistics", {}))

    observed: dict[str, str] = {}
    with _watch(lambda name, kind, inputs: observed.update({name: kind})):
        names = jax.eval_shape(init, jax.random.key(0))
    if "classifier" not in names:
        raise ValueError(f"no parameters called classifier, only {', '.join(names)}")
    calls = _Calls(module, jnp.dtype(dtype))
    apply = functools.partial(calls.apply, "__call__")
    sizes = measure(init, apply, image_shape)  # images too small for the depth fail here
    return Network(
        init=init,
        apply=apply,
        embed=functools.partial(calls.apply, "embed"),
        classify=functools.partial(calls.apply, "classify"),
        train=functools.partial(calls.train, "__call__"),
        train_embed=functools.partial(calls.train, "embed"),
        observe=calls.observe,
        observed=observed,
        has_statistics=partition.STATISTICS in names,
        sizes=sizes,
    )


@dataclasses.dataclass(frozen=True)
class _Calls:
    """A module's methods as pure functions, computed in `dtype`; statistics stay float32."""

    module: nn.Module
    dtype: jnp.dtype

    def apply(self, method, params, inputs):
        variables, inputs = self._prepare(params, inputs)
        return self._finish(self.module.apply(variables, inputs, method=method))

    def train(self, method, params, images, weights=None):
        variables, images = self._prepare(params, images)
        if partition.STATISTICS not in variables:
            return self._finish(self.module.apply(variables, images, method=method)), params

        def weigh(call, args, kwargs, context):
            if _is_call(context, layers.BatchNorm):
                kwargs = {**kwargs, "weights": weights}
            return call(*args, **kwargs)

        with nn.intercept_methods(weigh):
            outputs, moved = self.module.apply(
                variables, images, method=method, mutable=[partition.STATISTICS]
            )
        trained, _ = partition.split_statistics(params)
        return self._finish(outputs), partition.merge_statistics(
            trained, moved[partition.STATISTICS]
        )

    def observe(self, params, images):
        entering = {}
        with _watch(lambda name, kind, inputs: entering.update({name: inputs})):
            logits = self.apply("__call__", params, images)
        return logits, {name: self._finish(x) for name, x in entering.items()}

    def _prepare(self, params, inputs):
        trained, statistics = partition.split_statistics(params)
        if self.dtype != jnp.float32:
            trained, inputs = jax.tree.map(lambda x: x.astype(self.dtype), (trained, inputs))
        kept = {partition.STATISTICS: statistics} if statistics else {}
        return {"params": trained, **kept}, inputs

    def _finish(self, outputs):
        return outputs if self.dtype == jnp.float32 else outputs.astype(jnp.float32)


def _watch(note):
    """A context in which `note` is called with name, kind and input of every observed layer."""

    def watch(call, args, kwargs, context):
        for kind, types in _OBSERVED.items():
            if _is_call(context, types):
                note("/".join(context.module.path), kind, args[0])
        return call(*args, **kwargs)

    return nn.intercept_methods(watch)


def _is_call(context, types):
    return isinstance(context.module, types) and context.method_name == "__call__"
