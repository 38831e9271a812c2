"""The whole method of one outer iteration, written out: no scan, no custom derivative, no library.

Nothing of the package is used. Parameters are dictionaries from a dotted name to an array; those
whose name begins with "classifier." are the classifier, the others the backbone. All functions
work in the precision of their inputs; callers use float64.
"""

import jax
import jax.numpy as jnp


def is_classifier(name):
    """Whether the parameter belongs to the classifier."""
    return name.startswith("classifier.")


def logits(params, images):
    """ConvNet of one block: convolution, instance norm, ReLU, average pool 2 x 2, linear layer."""
    kernel, height, width = params["block_0.conv.kernel"], images.shape[1], images.shape[2]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    maps = 0.0
    for i in range(3):
        for j in range(3):
            maps = maps + padded[:, i : i + height, j : j + width] @ kernel[i, j]
    maps = maps + _per_channel(params["block_0.conv.bias"])
    mean = maps.mean(axis=(1, 2), keepdims=True)
    variance = ((maps - mean) ** 2).mean(axis=(1, 2), keepdims=True)
    maps = (maps - mean) / jnp.sqrt(variance + 1e-5) * _per_channel(params["block_0.norm.scale"])
    maps = jnp.maximum(maps + _per_channel(params["block_0.norm.bias"]), 0)
    corners = [maps[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    features = (sum(corners) / 4).reshape(len(images), -1)
    return features @ params["classifier.kernel"] + params["classifier.bias"][None]


def _per_channel(vector):
    return vector[None, None, None]


def soft_loss(params, images, label_logits, class_weights):
    """-(1/b) Σ_j Σ_c w_c softmax(y_j)_c log softmax(s_j)_c; weights of 1 give the plain loss."""
    targets = _softmax(label_logits) * class_weights[None]
    return -(targets * jnp.log(_softmax(logits(params, images)))).sum() / len(images)


def hard_loss(params, images, labels):
    """Mean cross-entropy of class numbers."""
    chosen = _softmax(logits(params, images))[jnp.arange(len(labels)), labels]
    return -jnp.log(chosen).mean()


def _softmax(values):
    exponents = jnp.exp(values - values.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def unroll(start, synthetic, class_weights, moves, num_steps):
    """Parameters before every step and after the last, and the masked gradient of every step."""
    images, label_logits, step_size = synthetic
    path, gradients = [start], []
    for _ in range(num_steps):
        gradient = jax.grad(soft_loss)(path[-1], images, label_logits, class_weights)
        gradient = {name: g if moves(name) else 0 * g for name, g in gradient.items()}
        gradients.append(gradient)
        path.append({name: p - step_size * gradient[name] for name, p in path[-1].items()})
    return path, gradients


def squared_distance(one, other, matches):
    """Squared distance of two sets of parameters, over the matched ones."""
    return sum(((one[name] - other[name]) ** 2).sum() for name in one if matches(name))


def matching_loss(synthetic, pair, phase):
    """‖S(θ_T - θ*)‖² / ‖S(θ_0 - θ*)‖² of full batches.

    Args:
      synthetic: (images, label logits, step size).
      pair: (start, target), all parameters of both.
      phase: (class weights, which parameters move, which are matched, number of steps).
    """
    (start, target), (class_weights, moves, matches, num_steps) = pair, phase
    path, _ = unroll(start, synthetic, class_weights, moves, num_steps)
    return squared_distance(path[-1], target, matches) / squared_distance(start, target, matches)


def exact_gradient(synthetic, pair, phase):
    """Derivative of the matching loss through every step."""
    return jax.grad(matching_loss)(synthetic, pair, phase)


def two_pass_gradient(synthetic, pair, phase):
    """The constant-memory estimate: every step is differentiated as if it were the last.

    u = -(2α/D) S(θ_T - θ*), dX = Σ_i d/dX <u, ∇L(θ_i)>, dα = -(2/D) <S(θ_T - θ*), Σ_i ∇L(θ_i)>.
    """
    (start, target), (class_weights, moves, matches, num_steps) = pair, phase
    images, label_logits, step_size = synthetic
    path, gradients = unroll(start, synthetic, class_weights, moves, num_steps)
    distance = squared_distance(start, target, matches)
    rest = {name: path[-1][name] - target[name] for name in start if matches(name)}
    direction = {name: -2 * step_size / distance * r for name, r in rest.items()}

    def inner_product(images, label_logits, params):
        gradient = jax.grad(soft_loss)(params, images, label_logits, class_weights)
        return sum((direction[name] * gradient[name]).sum() for name in direction if moves(name))

    parts = [jax.grad(inner_product, (0, 1))(images, label_logits, p) for p in path[:-1]]
    slope = sum((rest[name] * g[name]).sum() for g in gradients for name in rest)
    return sum(p[0] for p in parts), sum(p[1] for p in parts), -2 / distance * slope


def momentum_steps(start, gradients_at, rates, momenta, num_steps):
    """v <- μv + g, p <- p - rate v, for every quantity with its own rate and momentum."""
    quantities, velocities = list(start), [0 * q for q in start]
    for _ in range(num_steps):
        gradients = gradients_at(tuple(quantities))
        velocities = [m * v + g for m, v, g in zip(momenta, velocities, gradients, strict=True)]
        quantities = [q - r * v for q, r, v in zip(quantities, rates, velocities, strict=True)]
    return tuple(quantities)


def gsam_step(params, loss, trained, *, learning_rate, weight_decay, rho, alpha):
    """One adaptive GSAM step on the parameters that `trained` names; the others stay."""
    names = [name for name in params if trained(name)]

    def gradient(at):
        found = jax.grad(loss)(at)
        return {name: found[name] for name in names}

    def inner(one, other):
        return sum((one[name] * other[name]).sum() for name in names)

    g = gradient(params)
    scaled = {name: jnp.abs(params[name]) * g[name] for name in names}
    radius = rho / (jnp.sqrt(inner(scaled, scaled)) + 1e-12)
    moved = dict(params)
    for name in names:
        moved[name] = params[name] + radius * params[name] ** 2 * g[name]
    gp = gradient(moved)
    norm, norm_p = jnp.sqrt(inner(g, g)), jnp.sqrt(inner(gp, gp))
    cosine = inner(g, gp) / (norm * norm_p + 1e-12)
    stepped = dict(params)
    for name in names:
        across = g[name] - cosine * norm * gp[name] / (norm_p + 1e-12)
        descent = gp[name] - alpha * across + weight_decay * params[name]
        stepped[name] = params[name] - learning_rate * descent
    return stepped
