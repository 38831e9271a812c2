"""Parameters of the cross-architecture networks: golden recipe and conversion to our trees."""

import numpy as np

from tests.golden_files import load_golden

# Network in the golden file -> (our name, our modules in the order of the flat vector).
_RESNET_BLOCK = ("conv1", "norm1", "conv2", "norm2")


def _resnet_modules():
    modules = [("stem_conv",), ("stem_norm",)]
    for i in range(8):
        shortcut = ("shortcut_conv", "shortcut_norm") if i in (2, 4, 6) else ()
        modules += [(f"block_{i}", name) for name in _RESNET_BLOCK + shortcut]
    return [*modules, ("classifier",)]


_ALEXNET = [*((f"conv_{i}",) for i in range(5)), ("classifier",)]
_VGG11 = [*((f"{kind}_{i}",) for i in range(8) for kind in ("conv", "norm")), ("classifier",)]

NETWORKS = {
    "AlexNet": ("alexnet", _ALEXNET),
    "VGG11": ("vgg11", _VGG11),
    "ResNet18": ("resnet18", _resnet_modules()),
    "ResNet18_AP": ("resnet18_ap", _resnet_modules()),
    "MLP": ("mlp", [("hidden_0",), ("hidden_1",), ("classifier",)]),
    "LeNet": (
        "lenet",
        [("conv_0",), ("conv_1",), ("hidden_0",), ("hidden_1",), ("classifier",)],
    ),
    "AlexNet_Tiny": ("alexnet_64", _ALEXNET),
    "VGG11_Tiny": ("vgg11_64", _VGG11),
    "ResNet18_Tiny": ("resnet18_64", _resnet_modules()),
}


def tensors_of_recipe(seed, names, shapes):
    """Tensors by name, regenerated as the golden README says (they are not stored)."""
    shapes = [tuple(int(size) for size in str(shape).split(",")) for shape in shapes]
    sizes = [int(np.prod(shape)) for shape in shapes]
    flat = np.random.RandomState(int(seed)).uniform(-1, 1, sum(sizes)).astype(np.float32)
    tensors, start = {}, 0
    for name, shape, size in zip(names, shapes, sizes, strict=True):
        tensor = flat[start : start + size].reshape(shape)
        start += size
        if len(shape) > 1:
            tensor = tensor * np.float32(np.sqrt(6 / np.prod(shape[1:])))
        elif str(name).endswith("weight"):
            tensor = 1 + np.float32(0.1) * tensor
        else:
            tensor = np.float32(0.1) * tensor
        tensors[str(name)] = tensor
    return tensors


def tree_from_tensors(tensors, modules, in_channels=3):
    """PyTorch tensors in flat order -> our parameter tree.

    A linear layer that reads more inputs than the layer before has channels stands behind a
    flatten; its inputs change from (channel, row, column) to (row, column, channel) order.
    """
    prefixes = list(dict.fromkeys(name.rpartition(".")[0] for name in tensors))
    tree, channels = {}, in_channels
    for prefix, path in zip(prefixes, modules, strict=True):
        weight = tensors[f"{prefix}.weight"]
        if weight.ndim == 4:
            leaves = {"kernel": weight.transpose(2, 3, 1, 0)}
        elif weight.ndim == 2:
            side = round((weight.shape[1] / channels) ** 0.5)
            spatial = weight.reshape(len(weight), channels, side, side)
            leaves = {"kernel": spatial.transpose(2, 3, 1, 0).reshape(-1, len(weight))}
        else:
            leaves = {"scale": weight}
        if f"{prefix}.bias" in tensors:
            leaves["bias"] = tensors[f"{prefix}.bias"]
        channels = weight.shape[0]
        parent = tree
        for name in path[:-1]:
            parent = parent.setdefault(name, {})
        parent[path[-1]] = leaves
    return tree


def load(name):
    """(our name, parameter tree, images NCHW, logits) of network `name` in the golden file."""
    golden = load_golden("cross_arch")
    ours, modules = NETWORKS[name]
    tensors = tensors_of_recipe(
        golden[f"{name}_seed"], golden[f"{name}_param_names"], golden[f"{name}_param_shapes"]
    )
    assert sum(tensor.size for tensor in tensors.values()) == golden[f"{name}_numel"]
    images = golden["x64" if name.endswith("_Tiny") else "x32"]
    params = tree_from_tensors(tensors, modules, images.shape[1])
    return ours, params, images, golden[f"{name}_logits_f64"]
