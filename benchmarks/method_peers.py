"""Steps of the comparison methods as a plain PyTorch loop would write them.

Eager mode, one class after the other, nothing augmented unless said. Written for the side-by-side
timing of `method_step.py`; the numbers of each method are arguments.
"""

import peers
import torch
import torch.nn.functional as F


def _embed(params, images):
    return peers.embed_convnet(params[:-2], images)


def _leaves(params):
    return [p.detach().clone().requires_grad_(True) for p in params]


def match_distributions(generator, real, synthetic, optimizer, **shape):
    """One iteration of DM: a new network, class means of the embedding, one image step.

    Args:
      generator: of the network.
      real: list over classes of [B, C, H, W].
      synthetic: leaf [K, IPC, C, H, W] of `optimizer`.
      optimizer: of the images.
      **shape: of the network.
    """
    params = peers.make_params(generator, num_classes=len(real), **shape)
    loss = torch.zeros(())
    for images, made in zip(real, synthetic, strict=True):
        with torch.no_grad():
            target = _embed(params, images).mean(0)
        loss = loss + (target - _embed(params, made).mean(0)).square().sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def match_gradients(generator, real, synthetic, optimizer, **shape):
    """One image step of DC under a new network: cosine distances of the gradients by rows."""
    params = _leaves(peers.make_params(generator, num_classes=len(real), **shape))
    loss = torch.zeros(())
    for label, (images, made) in enumerate(zip(real, synthetic, strict=True)):
        targets = torch.full((len(images),), label)
        value = F.cross_entropy(peers.apply_convnet(params, images), targets)
        wanted = [g.detach() for g in torch.autograd.grad(value, params)]
        targets = torch.full((len(made),), label)
        value = F.cross_entropy(peers.apply_convnet(params, made), targets)
        found = torch.autograd.grad(value, params, create_graph=True)
        for a, b in zip(wanted, found, strict=True):
            if a.dim() > 1:
                a, b = a.flatten(1), b.flatten(1)
                cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)
                loss = loss + (1 - cosine).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def match_expanded(params, real, synthetic, optimizer, *, factor=2, ce_weight=0.5, accuracy=50.0):
    """The image steps of one iteration of IDM, one per class, under a given network."""
    for label, images in enumerate(real):
        with torch.no_grad():
            target = _embed(params, images).mean(0)
        made = _expand(synthetic[label], factor)
        loss = (target - _embed(params, made).mean(0)).square().sum()
        targets = torch.full((len(made),), label)
        logits = peers.apply_convnet(params, made)
        loss = loss + ce_weight * accuracy * F.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _expand(images, factor):
    side = images.shape[-1] // factor
    cells = [
        images[..., side * i : side * (i + 1), side * j : side * (j + 1)]
        for i in range(factor)
        for j in range(factor)
    ]
    return F.interpolate(torch.cat(cells), scale_factor=factor, mode="bilinear")


def train_epoch(params, images, labels, *, batch_size, log_prior, learning_rate, generator):
    """One epoch of a logit-adjusted teacher: momentum 0.9, weight decay, nothing augmented."""
    params = _leaves(params)
    optimizer = torch.optim.SGD(params, lr=learning_rate, momentum=0.9, weight_decay=5e-4)
    order = torch.randperm(len(images), generator=generator)
    for begin in range(0, len(images), batch_size):
        rows = order[begin : begin + batch_size]
        logits = peers.apply_convnet(params, images[rows]) + log_prior
        optimizer.zero_grad()
        F.cross_entropy(logits, labels[rows]).backward()
        optimizer.step()


def train_student(params, teacher, images, *, batch_size, temperature, learning_rate, generator):
    """One epoch of a student: random resized crops, cutmix, the teacher's labels of each batch."""
    params = _leaves(params)
    optimizer = torch.optim.SGD(params, lr=learning_rate, momentum=0.9)
    order = torch.randperm(len(images), generator=generator)
    for begin in range(0, len(images), batch_size):
        batch = _mix(_crop(images[order[begin : begin + batch_size]], generator), generator)
        with torch.no_grad():
            targets = F.softmax(peers.apply_convnet(teacher, batch) / temperature, 1)
        log_probs = F.log_softmax(peers.apply_convnet(params, batch) / temperature, 1)
        optimizer.zero_grad()
        F.kl_div(log_probs, targets, reduction="batchmean").backward()
        optimizer.step()


def _crop(images, generator):
    """Each image's own square of 8 to 100 % of the area, resized, and flipped half the time."""
    side, out = images.shape[-1], []
    for image in images:
        area = 0.08 + 0.92 * torch.rand((), generator=generator)
        size = max(1, round(side * float(area) ** 0.5))
        top, left = (int(torch.randint(side - size + 1, (), generator=generator)) for _ in range(2))
        part = image[None, :, top : top + size, left : left + size]
        part = F.interpolate(part, size=(side, side), mode="bilinear", antialias=True)
        out.append(part.flip(-1) if torch.rand((), generator=generator) < 0.5 else part)
    return torch.cat(out)


def _mix(images, generator):
    """One box of the batch is taken from the shuffled batch."""
    side = images.shape[-1]
    size = int(side * float(1 - torch.rand((), generator=generator)) ** 0.5)
    top, left = (int(torch.randint(side, (), generator=generator)) for _ in range(2))
    rows = slice(max(0, top - size // 2), min(side, top + size // 2))
    cols = slice(max(0, left - size // 2), min(side, left + size // 2))
    mixed = images.clone()
    mixed[:, :, rows, cols] = images[torch.randperm(len(images), generator=generator)][
        :, :, rows, cols
    ]
    return mixed
