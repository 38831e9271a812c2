"""The selections against brute force, closed forms and, where installed, other libraries."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import nets
from ltdd_jax.distill import Teacher, selection
from tests.distill import tasks


def rows(seed, count=9, size=3):
    return np.random.default_rng(seed).normal(size=(count, size))


def radius(points, chosen):
    """Largest distance of a point from the nearest chosen one."""
    distances = np.linalg.norm(points[:, None] - points[None, list(chosen)], axis=2)
    return distances.min(axis=1).max()


def test_k_center_takes_the_farthest_point():
    """{0, 1, 2, 10} from 0: 10, then 2; breaks on a nearest or a summed distance."""
    points = np.array([[0.0], [1.0], [2.0], [10.0]])
    np.testing.assert_array_equal(selection.choose_k_center(points, 4, 0), [0, 3, 2, 1])
    np.testing.assert_array_equal(selection.choose_k_center(points, 1, 2), [2])


@pytest.mark.parametrize("seed", range(5))
def test_k_center_covers_within_twice_the_optimum(seed):
    points = rows(seed)
    for count in (2, 3, 4):
        chosen = selection.choose_k_center(points, count, first=seed)
        subsets = itertools.combinations(range(len(points)), count)
        assert radius(points, chosen) <= 2 * min(radius(points, s) for s in subsets) + 1e-12
        nearest = chosen[:1]
        for row in chosen[1:]:  # each is the farthest from those before it
            gaps = np.linalg.norm(points[:, None] - points[None, nearest], axis=2).min(axis=1)
            np.testing.assert_allclose(gaps[row], gaps.max())
            nearest = [*nearest, row]


def test_equal_points_are_chosen_once_each():
    """Breaks when a row is given twice, which NaN or equal features would bring about."""
    same = np.ones((4, 2))
    for chosen in (
        selection.choose_k_center(same, 4, 1),
        selection.choose_herding(same, 4),
        selection.choose_graph_cut(np.ones((4, 4)), 4),
        selection.choose_k_medoids(same, np.array([0.5, 0.0, 0.99, 0.5])),
    ):
        assert sorted(chosen) == [0, 1, 2, 3] and chosen.dtype == np.int64


@pytest.mark.parametrize("seed", range(3))
def test_herding_follows_its_definition(seed):
    """The first is nearest to the mean, each next brings the mean nearest to it."""
    points = rows(seed)
    mean, chosen = points.mean(axis=0), selection.choose_herding(points, 6)
    assert chosen[0] == np.linalg.norm(points - mean, axis=1).argmin()
    for count in range(1, 6):
        before = list(chosen[:count])
        residuals = {
            row: np.linalg.norm(points[[*before, row]].mean(axis=0) - mean)
            for row in set(range(len(points))) - set(before)
        }
        assert chosen[count] == min(residuals, key=residuals.get)


def test_residual_of_herding_falls_like_one_over_the_number():
    """200 Gaussian points in 5 dimensions: .1 at ten; the arg-max of DeepCore has above 2."""
    points = np.random.default_rng(0).normal(size=(200, 5))
    chosen = selection.choose_herding(points, 80)
    residual = {
        t: np.linalg.norm(points[chosen[:t]].mean(axis=0) - points.mean(axis=0))
        for t in (5, 10, 20, 40, 80)
    }
    assert residual[10] < 0.2
    assert max(t * value for t, value in residual.items()) < 2.5, residual
    assert residual[80] < residual[10] / 4


def cut(similarity, chosen, weight=1.0):
    """f(A) = λ Σ_{i in V, j in A} s_ij - Σ_{i, j in A} s_ij."""
    inside = sum(similarity[i, j] for i in chosen for j in chosen)
    return weight * sum(similarity[:, j].sum() for j in chosen) - inside


def similarity_of(seed, count=9):
    points = rows(seed, count)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    return 0.5 + 0.5 * unit @ unit.T


@pytest.mark.parametrize("weight", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_graph_cut_takes_the_largest_gain(seed, weight):
    """gain = f(A + a) - f(A) from the sums themselves; breaks on the factor 2 or the diagonal."""
    similarity, chosen = similarity_of(seed), []
    for row in selection.choose_graph_cut(similarity, 9, weight):
        gains = {
            a: cut(similarity, [*chosen, a], weight) - cut(similarity, chosen, weight)
            for a in range(9)
            if a not in chosen
        }
        np.testing.assert_allclose(gains[row], max(gains.values()), atol=1e-12)
        chosen.append(row)
    assert sorted(chosen) == list(range(9))


def test_graph_cut_breaks_ties_by_the_lowest_row():
    similarity = np.array([[1.0, 0.2, 0.2], [0.2, 1.0, 0.2], [0.2, 0.2, 1.0]])
    np.testing.assert_array_equal(selection.choose_graph_cut(similarity, 3), [0, 1, 2])


def test_graph_cut_agrees_with_submodlib():
    graph_cut = pytest.importorskip(
        "submodlib.functions.graphCut", reason="submodlib-py is an optional extra of the tests"
    )
    similarity = similarity_of(0, 30)
    function = graph_cut.GraphCutFunction(
        n=30, mode="dense", lambdaVal=1.0, ggsijs=similarity, separate_rep=False
    )
    found = function.maximize(
        budget=12, optimizer="NaiveGreedy", stopIfZeroGain=False, stopIfNegativeGain=False
    )
    expected = [row for row, _ in found]
    np.testing.assert_array_equal(selection.choose_graph_cut(similarity, 12), expected)


def test_graph_cut_agrees_with_apricot():
    apricot = pytest.importorskip("apricot", reason="apricot-select is an optional extra")
    similarity = similarity_of(1, 30)
    selector = apricot.GraphCutSelection(12, alpha=1, metric="precomputed", optimizer="naive")
    expected = selector.fit(similarity).ranking
    np.testing.assert_array_equal(selection.choose_graph_cut(similarity, 12), expected)


def total_distance(points, chosen):
    """Σ of the plain distances of all points from the nearest chosen one."""
    distances = np.linalg.norm(points[:, None] - points[None, list(chosen)], axis=2)
    return distances.min(axis=1).sum()


@pytest.mark.parametrize("seed", range(5))
def test_k_medoids_of_separated_clusters_are_the_best_of_all_sets(seed):
    """Every set of three rows is tried; breaks on squared distances too, by the far members."""
    rng = np.random.default_rng(seed)
    centres = np.repeat([[0.0, 0.0], [1e4, 0.0], [0.0, 1e4]], 4, axis=0)
    points = centres + rng.standard_cauchy(size=centres.shape)
    points = points[rng.permutation(len(points))]
    chosen = selection.choose_k_medoids(points, rng.uniform(size=3))
    best = min(itertools.combinations(range(12), 3), key=lambda s: total_distance(points, s))
    assert set(chosen) == set(best) and chosen.dtype == np.int64


def test_k_medoids_minimise_plain_distances():
    """Of 0, 1, 2, 3, 100 the median 2; by squares it would be 3, next to the mean 21.2."""
    points = np.array([[0.0], [1.0], [2.0], [3.0], [100.0]])
    for draw in (0.0, 0.3, 0.9):
        np.testing.assert_array_equal(selection.choose_k_medoids(points, np.array([draw])), [2])


def test_k_medoids_start_like_k_means_plus_plus():
    """From 0 the points 1 and 3 are drawn at 1 : 9, and neither start can be improved."""
    points = np.array([[0.0], [1.0], [3.0]])
    for draw, second in ((0.09, 1), (0.11, 2), (0.999, 2)):
        chosen = selection.choose_k_medoids(points, np.array([0.0, draw]))
        np.testing.assert_array_equal(chosen, [0, second])


@pytest.mark.parametrize("seed", range(5))
def test_k_medoids_end_where_no_member_of_a_cluster_is_better(seed):
    """Breaks when the alternation stops early, or a medoid is not a member of its cluster."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(40, 3))
    chosen = selection.choose_k_medoids(points, rng.uniform(size=5))
    gaps = np.linalg.norm(points[:, None] - points[None, chosen], axis=2)
    for cluster, medoid in enumerate(chosen):
        members = points[gaps.argmin(axis=1) == cluster]
        sums = {tuple(x): np.linalg.norm(members - x, axis=1).sum() for x in members}
        assert sums[tuple(points[medoid])] <= min(sums.values()) + 1e-9


def test_k_medoids_do_not_depend_on_place_turn_or_scale():
    points, draws = rows(3, 60, 4), np.array([0.2, 0.7, 0.4, 0.9])
    turn = np.linalg.qr(rows(4, 4, 4))[0]
    chosen = selection.choose_k_medoids(points, draws)
    moved = selection.choose_k_medoids(7.0 * points @ turn + 1e4, draws)
    np.testing.assert_array_equal(moved, chosen)


def test_k_medoids_of_repeated_images_are_different_rows():
    """Two pictures five times each: both are chosen before any is taken twice."""
    pictures = np.random.default_rng(0).normal(100.0, 1.0, size=(2, 300)).astype(np.float32)
    points = np.repeat(pictures, 5, axis=0)
    for draw in (0.0, 0.5, 0.99):
        for count in (2, 3, 10):
            chosen = selection.choose_k_medoids(points, np.full(count, draw))
            assert len(set(chosen)) == count and {row // 5 for row in chosen[:2]} == {0, 1}


def test_distances_are_euclidean_and_exactly_zero_for_equal_rows():
    """Breaks when products of large numbers are subtracted: an offset of 1e6 is left over."""
    points = np.concatenate([rows(0, 6, 5), rows(0, 6, 5)]) + 1e6
    expected = np.linalg.norm(points[:, None] - points[None], axis=2)
    found = selection.measure_distances(points)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found[expected == 0] == 0).all() and (np.diag(found) == 0).all()


def test_similarity_is_that_of_gradients_built_explicitly():
    """1/2 + cos/2 of the last layer's gradients by JAX; breaks on a lost bias or a softmax."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, 4)).astype(np.float32)
    weights = {"w": rng.normal(size=(4, 3)).astype(np.float32), "b": np.ones(3, np.float32)}
    label = 1

    def loss(weights, feature):
        logits = feature @ weights["w"] + weights["b"]
        return -jax.nn.log_softmax(logits)[label]

    gradients = [jax.grad(loss)(weights, jnp.asarray(x)) for x in features]
    flat = np.stack([np.concatenate([np.ravel(g["b"]), np.ravel(g["w"])]) for g in gradients])
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    logits = features @ weights["w"] + weights["b"]
    found = selection.compare_gradients(logits, np.full(5, label), features)
    np.testing.assert_allclose(found, 0.5 + 0.5 * unit @ unit.T, atol=1e-5)
    assert found.dtype == np.float64


def test_similarity_of_a_perfect_prediction_is_finite():
    """Its gradient is zero; breaks on a division by zero."""
    logits = np.array([[1e3, 0.0], [0.0, 1.0]])
    found = selection.compare_gradients(logits, np.zeros(2, int), np.ones((2, 3)))
    assert np.isfinite(found).all()


def test_budgets():
    """CIFAR-10 at factor 100; the shares add up to 99, and the last class has none."""
    counts = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    proportional = selection.share_budget(counts, 10, "proportional")
    assert proportional == [40, 24, 14, 9, 5, 3, 2, 1, 1, 0]
    assert selection.share_budget(counts, 10, "per_class") == [10] * 10


def chosen_rows(task, start):
    """Which training image each row of the set is."""
    return [
        int(np.flatnonzero((task.images == image).all(axis=(1, 2, 3)))[0])
        for image in np.asarray(start.images)
    ]


@pytest.mark.parametrize("rule", selection.RULES)
def test_a_small_class_gives_all_its_images_in_turn(rule):
    """Counts 6, 3, 1 with four per class; breaks when a class is padded with another's images,
    or a rule asks for more rows than there are.
    """
    task = tasks.make_task()
    start = tasks.make_method(rule, task, distill__ipc=4).start()
    found = chosen_rows(task, start)
    np.testing.assert_array_equal(task.labels[found], np.repeat([0, 1, 2], 4))
    assert len(set(found[:4])) == 4
    assert set(found[4:8]) == {6, 7, 8} and found[7] == found[4]
    assert found[8:] == [9] * 4


@pytest.mark.parametrize("rule", selection.RULES)
def test_proportional_budget(rule):
    """Nine of ten images: fraction .9 gives 5, 3 and 1."""
    task = tasks.make_task()
    method = tasks.make_method(rule, task, distill__ipc=3, selection__budget="proportional")
    found = chosen_rows(task, method.start())
    np.testing.assert_array_equal(method.labels, [0] * 5 + [1] * 3 + [2])
    np.testing.assert_array_equal(task.labels[found], method.labels)
    assert len(set(found)) == 9


@pytest.mark.parametrize("rule", selection.RULES)
def test_labels_hard_or_of_the_experts_that_are_right(rule):
    task = tasks.make_task()
    hard = tasks.make_method(rule, task).start()
    np.testing.assert_allclose(
        jax.nn.softmax(hard.label_logits), np.repeat(np.eye(3), 2, axis=0), atol=1e-9
    )
    soft = tasks.make_method(rule, task, selection__labels="soft").start()
    np.testing.assert_array_equal(soft.images, hard.images)
    logits = [
        np.asarray(task.network.apply(task.snapshot("classifier", e, -1), soft.images))
        for e in range(2)
    ]
    for row, label in enumerate(np.repeat(range(3), 2)):
        right = [x[row] for x in logits if x[row].argmax() == label]
        expected = np.mean(right, axis=0) if right else np.zeros(3)
        np.testing.assert_allclose(soft.label_logits[row], expected, atol=1e-5)


def have_two_teachers(task):
    """The task with two teachers of a network of their own."""
    network = nets.build("convnet", image_shape=(8, 8, 1), num_classes=3, width=5, depth=2)
    made = [Teacher(network, jax.jit(network.init)(jax.random.key(seed))) for seed in (3, 4)]
    return dataclasses.replace(task, teachers={"teacher": tuple(made)}.__getitem__)


@pytest.mark.parametrize("rule", selection.RULES[1:])
def test_a_selection_in_the_embedding_of_a_teacher_asks_no_expert(rule):
    """Breaks when an expert is trained or read for it, or the teacher is not trained."""
    log = []
    task = have_two_teachers(tasks.make_task(log=log))
    method = tasks.make_method(rule, task, selection__embedding="teacher")
    method.start()
    assert (method.experts, method.teachers, log) == ((), ("teacher",), [])
    assert "teacher" in method.summary
    soft = {"selection__embedding": "teacher", "selection__labels": "soft"}
    method = tasks.make_method(rule, task, **soft)
    method.start()
    assert method.experts == ("representation", "classifier") and method.teachers == ("teacher",)
    assert {kind for kind, *_ in log} == {"classifier"}
    assert tasks.make_method(rule, task).teachers == ()


def test_random_images_ask_nobody():
    method = tasks.make_method("random", tasks.make_task(), selection__embedding="teacher")
    assert method.experts == () and method.teachers == ()


@pytest.mark.parametrize("embedding", ["expert", "teacher"])
def test_rules_see_the_features_of_the_last_snapshot(embedding):
    """In the order of the rules on the class's own embedding; the first of k-center is random.

    Breaks when the features, or the logits of the graph cut, are of another network.
    """
    task = have_two_teachers(tasks.make_task())
    network, params = task.network, task.snapshot("representation", 0, -1)
    if embedding == "teacher":
        network, params = vars(task.teachers("teacher")[0]).values()
    features = np.asarray(network.embed(params, task.images))
    draws = jax.random.fold_in(jax.random.split(task.stream("initialize"), 3)[0], 0)
    for rule in selection.RULES[1:]:
        fields = {"distill__ipc": 3, "selection__embedding": embedding}
        found = chosen_rows(task, tasks.make_method(rule, task, **fields).start())[:3]
        of_class = features[:6].astype(np.float64)
        if rule == "herding":
            expected = selection.choose_herding(of_class, 3)
        elif rule == "k_center":
            expected = selection.choose_k_center(of_class, 3, found[0])
        elif rule == "k_medoids":
            draws = np.asarray(jax.random.uniform(draws, (3,)))
            expected = selection.choose_k_medoids(of_class, draws)
        else:
            logits = np.asarray(network.apply(params, task.images[:6]))
            similarity = selection.compare_gradients(logits, np.zeros(6, int), of_class)
            expected = selection.choose_graph_cut(similarity, 3)
        np.testing.assert_array_equal(found, expected)


def test_selection_depends_on_the_seed_alone():
    """Equal twice; another stream of random numbers gives other random images."""
    first, second = (tasks.make_method("random", tasks.make_task()).start() for _ in range(2))
    np.testing.assert_array_equal(first.images, second.images)
    streams = {"stream": lambda name: jax.random.key(5)}
    other = tasks.make_task()
    other = type(other)(**{**vars(other), **streams})
    assert not np.array_equal(tasks.make_method("random", other).start().images, first.images)
