"""The same computation as a plain PyTorch program would write it, for side-by-side timing.

Eager mode, `create_graph`, one loop over the inner steps: the form of the public trajectory
matching programs with the two-pass gradient (TESLA). Written for this comparison.
"""

import numpy as np
import torch
import torch.nn.functional as F


def make_params(generator, *, width, num_classes, side=32, depth=3, channels=3):
    """Leaf tensors of a ConvNet: conv weight, bias, gamma, beta per block; linear weight, bias."""
    params, inputs = [], channels
    for _ in range(depth):
        bound = (inputs * 9) ** -0.5
        params += [
            (torch.rand(width, inputs, 3, 3, generator=generator) * 2 - 1) * bound,
            (torch.rand(width, generator=generator) * 2 - 1) * bound,
            torch.ones(width),
            torch.zeros(width),
        ]
        inputs = width
    features = width * (side >> depth) ** 2
    bound = features**-0.5
    params += [
        (torch.rand(num_classes, features, generator=generator) * 2 - 1) * bound,
        (torch.rand(num_classes, generator=generator) * 2 - 1) * bound,
    ]
    return params


def apply_convnet(params, images):
    """Logits of images [B, C, H, W]."""
    *blocks, weight, bias = params
    return F.linear(embed_convnet(blocks, images), weight, bias)


def embed_convnet(blocks, images):
    """Features [B, F] of images [B, C, H, W]."""
    for i in range(0, len(blocks), 4):
        kernel, conv_bias, gamma, beta = blocks[i : i + 4]
        images = F.conv2d(images, kernel, conv_bias, padding=1)
        images = F.group_norm(images, len(gamma), gamma, beta, eps=1e-5)
        images = F.avg_pool2d(F.relu(images), 2)
    return images.flatten(1)


def inner_loss(params, images, label_logits, class_weights):
    """Class-weighted soft cross-entropy."""
    log_probs = F.log_softmax(apply_convnet(params, images), dim=1)
    targets = F.softmax(label_logits, dim=1) * class_weights
    return -(targets * log_probs).sum(1).mean()


def two_pass_step(start, target, images, label_logits, step_size, class_weights, num_steps):
    """Matching loss on the backbone and its two-pass gradient (images, labels, step size)."""
    params = [p.detach().clone().requires_grad_(True) for p in start]
    stored, total = [], [torch.zeros_like(p) for p in start]
    for _ in range(num_steps):
        loss = inner_loss(params, images.detach(), label_logits.detach(), class_weights)
        grads = torch.autograd.grad(loss, params)
        stored.append([p.detach() for p in params])
        total = [t + g for t, g in zip(total, grads, strict=True)]
        params = [
            (p - step_size * g).detach().requires_grad_(True)
            for p, g in zip(params, grads, strict=True)
        ]
    backbone = len(start) - 2
    distance = sum(((s - t) ** 2).sum() for s, t in zip(start[:backbone], target, strict=False))
    residual = [s - step_size * g - t for s, g, t in zip(start, total, target, strict=True)]
    residual = [r if i < backbone else torch.zeros_like(r) for i, r in enumerate(residual)]
    loss = sum((r**2).sum() for r in residual) / distance
    direction = [-2 * step_size / distance * r for r in residual]
    images = images.detach().requires_grad_(True)
    label_logits = label_logits.detach().requires_grad_(True)
    image_grad, label_grad = torch.zeros_like(images), torch.zeros_like(label_logits)
    for theta in stored:
        theta = [p.requires_grad_(True) for p in theta]
        inner = inner_loss(theta, images, label_logits, class_weights)
        grads = torch.autograd.grad(inner, theta, create_graph=True)
        product = sum((d * g).sum() for d, g in zip(direction, grads, strict=True))
        parts = torch.autograd.grad(product, (images, label_logits))
        image_grad += parts[0]
        label_grad += parts[1]
    slope = -2 / distance * sum((r * g).sum() for r, g in zip(residual, total, strict=True))
    return float(loss), image_grad, label_grad, float(slope)


def make_distill_case(*, width, num_images, num_classes=10, seed=0):
    """Random start and target parameters, images, labels and weights of one phase."""
    generator = torch.Generator().manual_seed(seed)
    start = make_params(generator, width=width, num_classes=num_classes)
    target = [p + 0.01 * torch.randn(p.shape, generator=generator) for p in start]
    images = torch.randn(num_images, 3, 32, 32, generator=generator)
    label_logits = torch.randn(num_images, num_classes, generator=generator)
    class_weights = torch.tensor(np.geomspace(0.4, 0.004, num_classes), dtype=torch.float32)
    return start, target, images, label_logits, class_weights


def make_gsam_epoch(*, width, num_images, recipe, num_classes=10, seed=0):
    """A closure that trains one network for one epoch with adaptive GSAM, shuffled batches."""
    generator = torch.Generator().manual_seed(seed)
    params = [
        p.requires_grad_(True) for p in make_params(generator, width=width, num_classes=num_classes)
    ]
    images = torch.randn(num_images, 3, 32, 32, generator=generator)
    labels = torch.arange(num_images) % num_classes

    def gradient(at, rows):
        loss = F.cross_entropy(apply_convnet(at, images[rows]), labels[rows])
        return torch.autograd.grad(loss, at)

    def norm(tensors):
        return torch.sqrt(sum((t**2).sum() for t in tensors))

    def epoch():
        order = torch.randperm(num_images, generator=generator)
        for rows in order.split(recipe.batch_size):
            grad = gradient(params, rows)
            with torch.no_grad():
                scale = recipe.rho / (
                    norm([p.abs() * g for p, g in zip(params, grad, strict=True)]) + 1e-12
                )
                shifted = [p + scale * p * p * g for p, g in zip(params, grad, strict=True)]
            moved = gradient([p.requires_grad_(True) for p in shifted], rows)
            with torch.no_grad():
                size, moved_size = norm(grad), norm(moved)
                inner = sum((a * b).sum() for a, b in zip(grad, moved, strict=True))
                along = inner / (size * moved_size + 1e-12) * size / (moved_size + 1e-12)
                for p, g, m in zip(params, grad, moved, strict=True):
                    direction = m - recipe.alpha * (g - along * m)
                    p -= recipe.learning_rate * (direction + recipe.weight_decay * p)

    return epoch
