"""Between the flat parameter vectors of the golden files and our parameter trees."""

import numpy as np


def to_nhwc(images):
    """[B, C, H, W] -> [B, H, W, C]."""
    return np.ascontiguousarray(np.transpose(images, (0, 2, 3, 1)))


def to_nchw(images):
    """[B, H, W, C] -> [B, C, H, W]."""
    return np.ascontiguousarray(np.transpose(images, (0, 3, 1, 2)))


def convnet_shapes(size, num_classes, channels=3, side=32):
    """(width, depth) of the ConvNet whose flat vector has `size` entries."""
    for depth in range(1, 9):
        final = side >> depth
        for width in (8, 16, 32, 64, 128, 256):
            total, inputs = 0, channels
            for _ in range(depth):
                total += width * inputs * 9 + 3 * width
                inputs = width
            features = width * final * final
            if final and total + num_classes * features + num_classes == size:
                return width, depth
    raise AssertionError(f"no ConvNet has {size} parameters")


def convnet_from_flat(flat, *, width, depth, num_classes, channels=3, side=32):
    """Flat vector [..., P] (conv OIHW, bias, gamma, beta per block; linear) -> parameter tree."""
    flat = np.asarray(flat)
    lead, offset = flat.shape[:-1], 0

    def take(*shape):
        nonlocal offset
        size = int(np.prod(shape))
        part = flat[..., offset : offset + size].reshape(*lead, *shape)
        offset += size
        return part

    k = len(lead)
    tree, inputs = {}, channels
    for i in range(depth):
        kernel = np.moveaxis(take(width, inputs, 3, 3), (k, k + 1), (k + 3, k + 2))
        tree[f"block_{i}"] = {
            "conv": {"kernel": np.ascontiguousarray(kernel), "bias": take(width)},
            "norm": {"scale": take(width), "bias": take(width)},
        }
        inputs = width
    final = side >> depth
    weight = take(num_classes, width, final, final)
    weight = np.moveaxis(weight, k + 1, k + 3).reshape(*lead, num_classes, -1)
    tree["classifier"] = {
        "kernel": np.ascontiguousarray(np.swapaxes(weight, k, k + 1)),
        "bias": take(num_classes),
    }
    assert offset == flat.shape[-1], (offset, flat.shape)
    return tree


def convnet_to_flat(tree, *, side=32):
    """Inverse of `convnet_from_flat` for one parameter tree."""
    parts = []
    depth = sum(name.startswith("block_") for name in tree)
    for i in range(depth):
        block = tree[f"block_{i}"]
        parts.append(np.transpose(block["conv"]["kernel"], (3, 2, 0, 1)))
        parts += [block["conv"]["bias"], block["norm"]["scale"], block["norm"]["bias"]]
    final = side >> depth
    kernel = np.asarray(tree["classifier"]["kernel"])
    weight = kernel.T.reshape(kernel.shape[1], final, final, -1)
    parts += [np.transpose(weight, (0, 3, 1, 2)), tree["classifier"]["bias"]]
    return np.concatenate([np.asarray(part).ravel() for part in parts])
