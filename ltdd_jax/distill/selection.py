"""Selections: real images chosen by a rule, the coresets of the literature's tables.

Features are the embedding of one trained network, a representation expert's last snapshot or a
teacher, of the images as the network sees them, without augmentation. All rules work in one class
at a time and are written in NumPy.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax import losses
from ltdd_jax.distill import initialize, method
from ltdd_jax.types import SyntheticSet

RULES = ("random", "k_center", "herding", "graph_cut", "k_medoids")
_MAX_ROUNDS = 100  # of k-medoids, which ends when no medoid moves
_EQUAL = 1e-12  # squared distances below this share of the largest squared norm are rounding


def make_method(task: method.Task, *, ipc: int, **settings: Any) -> method.Method:
    """Builds a selection.

    Args:
      task: data, network, experts and teachers.
      ipc: images per class.
      **settings: the fields of the config's section `selection`.
    """
    embedding = settings["embedding"] if settings["rule"] != "random" else ""
    shares = share_budget(task.class_counts, ipc, settings["budget"])
    where = " in a teacher's embedding" if embedding == "teacher" else ""
    return method.fixed(
        lambda: select(task, ipc, **settings),
        np.repeat(np.arange(task.num_classes, dtype=np.int32), shares),
        experts=list_experts(settings),
        teachers=("teacher",) if embedding == "teacher" else (),
        summary=f"{settings['rule']} selection{where}, {settings['labels']} labels",
    )


def list_experts(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Kinds of experts that the settings ask: for the embedding and soft labels."""
    if settings["labels"] == "soft":
        return ("representation", "classifier")
    embeds = settings["rule"] != "random" and settings["embedding"] == "expert"
    return ("representation",) if embeds else ()


def select(
    task: method.Task,
    ipc: int,
    *,
    rule: str,
    embedding: str,
    labels: str,
    budget: str,
    graph_cut_weight: float,
    step_size: float,
) -> SyntheticSet:
    """The chosen real images as a synthetic set of K·ipc rows, class-major.

    A class with fewer images than its share gives all of them, repeated cyclically. With a
    proportional budget the classes have different numbers of rows.
    """
    order_key, *_ = jax.random.split(task.stream("initialize"), 3)
    of_class = [np.flatnonzero(task.labels == k) for k in range(task.num_classes)]
    shares = share_budget(task.class_counts, ipc, budget)
    if rule == "random":
        orders = initialize.permute_classes(order_key, of_class)
        chosen = [order[:n] for order, n in zip(orders, shares, strict=True)]
    else:
        choose = _make_rule(task, rule, embedding, graph_cut_weight, order_key)
        chosen = [
            rows[choose(k, rows, min(n, len(rows)))]
            for k, (rows, n) in enumerate(zip(of_class, shares, strict=True))
        ]
    rows = np.concatenate([np.resize(c, n) for c, n in zip(chosen, shares, strict=True)])
    images = task.images[rows]
    classes = task.labels[rows]
    if labels == "hard":
        logits = losses.hard_label_logits(classes, task.num_classes)
    else:
        apply = jax.jit(task.network.apply)
        logits = initialize.average_correct_logits(
            (
                method.predict_in_blocks(apply, task.snapshot("classifier", e, -1), images)
                for e in range(task.num_experts)
            ),
            classes,
        )
    return SyntheticSet(
        images=jnp.asarray(images),
        label_logits=jnp.asarray(logits),
        step_size=jnp.float32(step_size),
    )


def share_budget(class_counts: Sequence[int], ipc: int, budget: str) -> list[int]:
    """Images of each class: `ipc` each, or K·ipc shared out like the training images.

    A proportional share is rounded as in DeepCore, `round(fraction · N_c)`, so a rare class may
    get none and the shares need not add up to K·ipc exactly.
    """
    if budget == "per_class":
        return [ipc] * len(class_counts)
    fraction = ipc * len(class_counts) / sum(class_counts)
    return [round(fraction * count) for count in class_counts]


def _make_rule(
    task, rule, embedding, graph_cut_weight, key
) -> Callable[[int, np.ndarray, int], np.ndarray]:
    """`choose(class, its rows, number)` -> positions among the rows."""
    if embedding == "teacher":
        teacher = task.teachers("teacher")[0]
        network, params = teacher.network, teacher.params
    else:
        network, params = task.network, task.snapshot("representation", 0, -1)
    embed = jax.jit(network.embed)
    classify = jax.jit(network.classify)

    def choose(label, rows, count):
        features = method.predict_in_blocks(embed, params, task.images[rows])
        if rule == "k_center":
            first = int(jax.random.randint(jax.random.fold_in(key, label), (), 0, len(rows)))
            return choose_k_center(features, count, first)
        if rule == "herding":
            return choose_herding(features, count)
        if rule == "k_medoids":
            draws = jax.random.uniform(jax.random.fold_in(key, label), (count,))
            return choose_k_medoids(features, np.asarray(draws))
        logits = method.predict_in_blocks(classify, params, features)
        similarity = compare_gradients(logits, np.full(len(rows), label), features)
        return choose_graph_cut(similarity, count, graph_cut_weight)

    return choose


def choose_k_center(features: np.ndarray, count: int, first: int) -> np.ndarray:
    """Greedy k-center: next is the row farthest from all chosen ones (Sener and Savarese 2018).

    Args:
      features: [n, F].
      count: rows to choose, at most n.
      first: the row to start with.

    Returns:
      int64 [count]; the covering radius is at most twice the best one.
    """
    features = np.asarray(features, np.float64)
    chosen = [first][:count]
    nearest = np.full(len(features), np.inf)
    while len(chosen) < count:
        distance = np.square(features - features[chosen[-1]]).sum(axis=1)
        nearest = np.minimum(nearest, distance)
        nearest[chosen] = -1.0  # an equal row may be chosen, the same one never
        chosen.append(int(np.argmax(nearest)))
    return np.array(chosen, np.int64)


def choose_herding(features: np.ndarray, count: int) -> np.ndarray:
    """Herding: next is the unused row that brings the mean nearest to the class mean.

    Welling, ICML 2009. The arg-min of ‖(t + 1)μ - Σ chosen - e(x)‖; features [n, F], returns
    int64 [count].
    """
    features = np.asarray(features, np.float64)
    mean, total = features.mean(axis=0), np.zeros(features.shape[1])
    free = np.ones(len(features), bool)
    chosen = []
    for step in range(count):
        wanted = (step + 1) * mean - total
        distance = np.square(wanted - features).sum(axis=1)
        best = int(np.argmin(np.where(free, distance, np.inf)))
        free[best] = False
        total += features[best]
        chosen.append(best)
    return np.array(chosen, np.int64)


def compare_gradients(logits: np.ndarray, labels: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Similarity 1/2 + cos/2 of the rows' gradients in the last layer, float64 [n, n].

    The gradient of row i is [r_i ; r_i ⊗ e_i] with r = softmax - onehot; only inner products
    <r_i, r_j>(1 + <e_i, e_j>) are formed.
    """
    logits, features = np.asarray(logits, np.float64), np.asarray(features, np.float64)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    residual = shifted / shifted.sum(axis=1, keepdims=True)
    residual[np.arange(len(labels)), labels] -= 1.0
    products = (residual @ residual.T) * (1.0 + features @ features.T)
    norms = np.sqrt(np.maximum(np.diag(products), np.finfo(np.float64).tiny))
    return 0.5 + 0.5 * products / np.outer(norms, norms)


def choose_graph_cut(similarity: np.ndarray, count: int, weight: float = 1.0) -> np.ndarray:
    """Greedy graph cut: f(A) = λ Σ_{i in V, j in A} s_ij - Σ_{i, j in A} s_ij (Iyer et al. 2021).

    Args:
      similarity: symmetric [n, n].
      count: rows to choose.
      weight: λ.

    Returns:
      int64 [count]; ties go to the lowest row.
    """
    similarity = np.asarray(similarity, np.float64)
    gain = weight * similarity.sum(axis=0) - np.diag(similarity)
    free = np.ones(len(similarity), bool)
    chosen = []
    for _ in range(count):
        best = int(np.argmax(np.where(free, gain, -np.inf)))
        free[best] = False
        chosen.append(best)
        gain = gain - 2.0 * similarity[best]
    return np.array(chosen, np.int64)


def choose_k_medoids(features: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """k-medoids: the rows whose distances to all rows add up to little (Kaufman, Rousseeuw 1987).

    Starts as k-means++ does and alternates (Park and Jun 2009): each row goes to its nearest
    medoid, then each cluster to the member with the least sum of plain Euclidean distances, not of
    their squares, to the others. Ends in a local optimum, or after 100 rounds.

    Args:
      features: [n, F].
      draws: [k] in [0, 1), random numbers of the start; k is at most n.

    Returns:
      int64 [k], all different; a medoid belongs to its own cluster, so that none is empty.
    """
    distances = measure_distances(features)
    medoids = _spread_medoids(distances, draws)
    for _ in range(_MAX_ROUNDS if len(medoids) else 0):
        nearest = np.argmin(distances[:, medoids], axis=1)
        nearest[medoids] = np.arange(len(medoids))  # also where another medoid is an equal row
        moved = medoids.copy()
        for cluster, medoid in enumerate(medoids):
            members = np.flatnonzero(nearest == cluster)
            sums = distances[np.ix_(members, members)].sum(axis=1)
            best = np.argmin(sums)
            if sums[best] < sums[np.searchsorted(members, medoid)]:  # equally good ones stay
                moved[cluster] = members[best]
        if np.array_equal(moved, medoids):
            break
        medoids = moved
    return medoids


def measure_distances(features: np.ndarray) -> np.ndarray:
    """Euclidean distances float64 [n, n] of rows [n, F], from one matrix of inner products.

    Those of equal rows are exactly 0. Besides the features there is one matrix [n, n] at a time.
    """
    features = np.asarray(features, np.float64)
    features = features - features.mean(axis=0)  # less is lost when the products are subtracted
    found = features @ features.T
    norms = np.diag(found).copy()
    found *= -2.0
    found += norms[:, None]
    found += norms[None]
    found[found < _EQUAL * norms.max()] = 0.0
    np.fill_diagonal(found, 0.0)
    return np.sqrt(found, out=found)


def _spread_medoids(distances, draws):
    """k-means++: each next row is drawn by its squared distance from those before it."""
    free = np.ones(len(distances), bool)
    nearest = np.full(len(distances), np.inf)
    chosen = np.zeros(len(draws), np.int64)
    for place, draw in enumerate(draws):
        shares = np.square(nearest) * free if place else free.astype(np.float64)
        total = np.cumsum(shares if shares.any() else free)  # only equal rows are left
        row = np.searchsorted(total, draw * total[-1], side="right")
        chosen[place], free[row] = row, False
        nearest = np.minimum(nearest, distances[row])
    return chosen
