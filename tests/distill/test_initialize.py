"""Initial images and labels, against the reference and for the cases it has no file for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import nets
from ltdd_jax.distill import initialize
from tests.golden_files import load_golden, relative_error
from tests.reference import torch_layout


def _golden_problem():
    """(golden arrays, real images NHWC, orders of the classes, expert i -> its logits)."""
    golden = load_golden("init")
    images = torch_layout.to_nhwc(golden["images_all"])
    num_classes, side = golden["label_init"].shape[1], images.shape[1]
    layout = dict(num_classes=num_classes, side=side)
    width, depth = torch_layout.convnet_shapes(golden["experts"].shape[1], **layout)
    network = nets.build(
        "convnet", image_shape=images.shape[1:], num_classes=num_classes, width=width, depth=depth
    )
    apply = jax.jit(network.apply)

    def logits(expert, rows):
        params = torch_layout.convnet_from_flat(
            golden["experts"][expert], width=width, depth=depth, **layout
        )
        return np.asarray(apply(params, rows))

    orders = [golden[f"perm_class{k}"] for k in range(num_classes)]
    return golden, images, orders, logits


@pytest.mark.golden
def test_golden_selection_of_correct_images():
    """Breaks when a hit is missed, a short class is not repeated, or an empty one is not noise.

    The reference does not keep the order of the hits inside a class.
    """
    golden, images, orders, logits = _golden_problem()
    ipc = int(golden["ipc"])
    rows = initialize.select_correct(
        orders, ipc, [lambda block: logits(0, images[block]).argmax(axis=1)]
    )
    expected = golden["src_index"].reshape(-1, ipc)
    for found, stored in zip(rows.reshape(-1, ipc), expected, strict=True):
        values, counts = np.unique(found, return_counts=True)
        stored_values, stored_counts = np.unique(stored, return_counts=True)
        np.testing.assert_array_equal(values, stored_values)
        np.testing.assert_array_equal(np.sort(counts), np.sort(stored_counts))
    filled = initialize.fill_images(jax.random.key(0), golden["src_index"], images)
    real = golden["src_index"] != initialize.NOISE
    assert real.any() and not real.all()
    stored = torch_layout.to_nhwc(golden["image_syn"])
    np.testing.assert_array_equal(filled[real], stored[real])
    assert np.abs(filled[~real] - stored[~real]).max() > 0.1


@pytest.mark.golden
def test_golden_selection_of_real_images():
    golden = load_golden("init")
    num_classes = golden["label_init"].shape[1]
    orders = [golden[f"real_perm_class{k}"] for k in range(num_classes)]
    rows = initialize.select_real(orders, int(golden["ipc"]))
    np.testing.assert_array_equal(rows, golden["real_src_index"])


@pytest.mark.golden
def test_golden_labels_are_means_over_the_correct_experts():
    """Breaks when wrong experts count, or a row that no expert knows is not left at zero."""
    golden, _, orders, logits = _golden_problem()
    images = torch_layout.to_nhwc(golden["image_syn"])
    labels = np.repeat(np.arange(len(orders)), int(golden["ipc"]))
    found = initialize.average_correct_logits(
        (logits(expert, images) for expert in range(len(golden["experts"]))), labels
    )
    assert relative_error(found, golden["label_init"]) < 1e-5
    unknown = golden["num_correct_experts"] == 0
    np.testing.assert_array_equal(np.any(found != 0, axis=1), ~unknown)


def test_permuted_classes_keep_their_rows():
    rows = [np.arange(30), np.arange(30, 60), np.array([77])]
    orders = initialize.permute_classes(jax.random.key(0), rows)
    for order, members in zip(orders, rows, strict=True):
        np.testing.assert_array_equal(np.sort(order), members)
    assert not np.array_equal(orders[0], rows[0])
    assert not np.array_equal(orders[0], orders[1] - 30)
    again = initialize.permute_classes(jax.random.key(0), rows)
    other = initialize.permute_classes(jax.random.key(1), rows)
    np.testing.assert_array_equal(orders[0], again[0])
    assert not np.array_equal(orders[0], other[0])


def test_real_rows_are_class_major_and_repeat_in_turn():
    rows = initialize.select_real([np.array([5, 3, 9, 1]), np.array([7, 8])], 3)
    np.testing.assert_array_equal(rows, [5, 3, 9, 7, 8, 7])


def test_correct_rows_come_in_scanning_order_and_scanning_stops_early():
    """Breaks when the scan reads more than it needs, or blocks of more than 256 rows."""
    orders = [np.arange(1000)[::-1], np.arange(1000, 1600), np.arange(1600, 1603)]
    asked = []

    def predict(rows):
        asked.append(len(rows))
        # Class 0 is right on every tenth row, class 1 on the last two only, class 2 never.
        hits = np.where(rows < 1000, rows % 10 == 0, rows >= 1598)
        return np.where(hits & (rows < 1600), rows // 1000, 9)

    rows = initialize.select_correct(orders, 5, [predict])
    assert rows.dtype == np.int64
    np.testing.assert_array_equal(rows[:5], [990, 980, 970, 960, 950])
    np.testing.assert_array_equal(rows[5:10], [1598, 1599, 1598, 1599, 1598])
    np.testing.assert_array_equal(rows[10:], [initialize.NOISE] * 5)
    assert asked == [256, 256, 256, 88, 3]


def test_further_experts_scan_what_is_left_of_classes_that_are_short():
    """Breaks when a row is taken twice, or an expert is asked without need."""
    orders = [np.arange(10), np.arange(10, 20), np.arange(20, 30), np.arange(30, 40)]
    asked = []

    def make(name, hits):
        def predict(rows):
            asked.append((name, int(rows[0]) // 10, len(rows)))
            return np.where(np.isin(rows, hits), rows // 10, 9)

        return predict

    experts = [make("a", [0, 1, 2, 13]), make("b", [0, 11, 13, 15]), make("c", [22, 24, 17])]
    rows = initialize.select_correct(orders, 3, experts).reshape(4, 3).tolist()
    assert rows == [[0, 1, 2], [13, 11, 15], [22, 24, 22], [initialize.NOISE] * 3]
    assert asked == [
        ("a", 0, 10), ("a", 1, 10), ("b", 1, 9), ("a", 2, 10), ("b", 2, 10), ("c", 2, 10),
        ("a", 3, 10), ("b", 3, 10), ("c", 3, 10),
    ]  # fmt: skip


def test_noise_is_standard_normal_and_real_rows_are_exact():
    images = np.random.default_rng(0).normal(3, 2, (4, 8, 8, 3)).astype(np.float32)
    rows = np.array([2, *[initialize.NOISE] * 30, 0])
    filled = initialize.fill_images(jax.random.key(0), rows, images)
    assert filled.dtype == np.float32 and filled.shape == (32, 8, 8, 3)
    np.testing.assert_array_equal(filled[[0, -1]], images[[2, 0]])
    noise = filled[1:-1]
    assert abs(noise.mean()) < 0.07 and abs(noise.std() - 1) < 0.05  # five deviations
    assert len(np.unique(noise)) > 0.99 * noise.size
    other = initialize.fill_images(jax.random.key(1), rows, images)
    assert not np.array_equal(filled[1:-1], other[1:-1])


def test_average_by_hand():
    labels = np.array([0, 1, 1])
    experts = [
        np.array([[3.0, 1.0], [0.0, 2.0], [5.0, 0.0]], np.float32),
        np.array([[1.0, 0.0], [4.0, 1.0], [6.0, 0.0]], np.float32),
    ]
    found = initialize.average_correct_logits(iter(experts), labels)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[2.0, 0.5], [0.0, 2.0], [0.0, 0.0]])
    np.testing.assert_array_equal(jax.nn.softmax(jnp.asarray(found[2])), [0.5, 0.5])
