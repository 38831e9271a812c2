"""Breaks when a picture leaves out what it is for, or would show a real photograph."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from ltdd_jax.types import UserError
from tests.results import made_up
from tests.results.made_up import make_number
from tests.scripts import load_script

measured = made_up.measured
draw_results = load_script("draw_results")

NUMBERS = [
    make_number(30.0, "random_real"),
    make_number(45.0, run="dir/dm"),
    make_number(40.0, "initial", run="dir/dm", iterations=0),
    make_number(20.0, run="dir/mtt"),
]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_classes_stand_in_the_order_of_their_images():
    by_class = [
        measured.ClassAccuracy(run=run, row=row, block="i", study="", ipc=10, iterations=iterations,
                               name=str(count), training_images=count, accuracy=count / 100)
        for run, row, iterations in (("dir/dm", "distilled", 100), ("dir", "random_real", None))
        for count in (50, 5000, 500)
    ]  # fmt: skip
    figure = draw_results.PICTURES["classes"](NUMBERS, by_class, {"run": "dir/dm", "block": "i"})
    (axis,) = figure.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axis.get_lines()}
    points = [[5000, 50.0], [500, 5.0], [50, 0.5]]
    assert lines == {"random real images (30.0 %)": points, "DM (45.0 %)": points}
    assert axis.xaxis_inverted()


def test_methods_stand_with_their_starts_the_best_on_top():
    figure = draw_results.PICTURES["methods"](NUMBERS, [], {"block": "i"})
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["MTT", "DM"]
    starts = next(line for line in axis.get_lines() if line.get_label() == "start")
    assert starts.get_xydata().tolist() == [[40.0, 1.0]]


@pytest.mark.parametrize(("judge", "said"), [("test", "test accuracy"), ("held_out", "accuracy")])
def test_axes_say_test_accuracy_of_no_other_images(judge, said):
    more = {"judge": judge, "study": "x"}
    numbers = [make_number(45.0, run="dir/dm", **more)]
    by_class = [
        measured.ClassAccuracy(run="dir/dm", row="distilled", block="i", study="x", ipc=10,
                               iterations=100, name="a", training_images=9, accuracy=45.0)
    ]  # fmt: skip
    for kind, axis in (("methods", "x"), ("classes", "y")):
        figure = draw_results.PICTURES[kind](numbers, by_class, {"block": "i", "study": "x"})
        label = getattr(figure.axes[0], f"get_{axis}label")()
        assert label.startswith(said)
        assert ("held-out" in figure.get_suptitle()) == (judge == "held_out")


def test_storage_is_drawn_over_bytes():
    """Breaks when the line goes through the live teacher, which is another kind of storage."""
    numbers = [
        make_number(mean, study="storage", block="ii", labels="SE", views=views,
                    stored_bytes=1000 * views)
        for mean, views in ((48.0, 50), (36.0, 5))
    ]  # fmt: skip
    numbers.append(make_number(55.0, study="storage", block="ii", labels="ST", stored_bytes=6000))
    figure = draw_results.PICTURES["storage"](numbers, [], {"block": "ii"})
    (axis,) = figure.axes
    assert axis.get_xscale() == "log"
    drawn, live = axis.containers
    assert live.lines[0].get_xydata().tolist() == [[6.0, 55.0]]
    assert drawn.lines[0].get_xydata().tolist() == [[5.0, 36.0], [50.0, 48.0]]
    assert [text.get_text() for text in axis.texts] == ["5 views", "live teacher", "50 views"]


def test_a_curve_begins_at_the_start():
    point = make_number(42.0, "iteration", run="dir/dm", study="curve", iterations=50)
    figure = draw_results.PICTURES["curve"]([*NUMBERS, point], [], {"block": "i"})
    line = figure.axes[0].get_lines()[0]
    assert line.get_xydata().tolist() == [[0, 40.0], [50, 42.0], [100, 45.0]]


def test_time_counts_the_experts_too():
    """Breaks when a method looks cheap because the networks that it needs are not counted."""
    more = {"wall_seconds": 60.0, "expert_seconds": 600.0}
    quick = make_number(41.0, run="dir/herding", wall_seconds=0.2)
    untimed = make_number(43.0, run="dir/ed")
    shared = make_number(42.0, run="dir/datm", wall_seconds=50.0, experts=3)  # of another set
    numbers = [*NUMBERS[:3], make_number(44.0, run="dir/dam_ed", **more), quick, untimed, shared]
    figure = draw_results.PICTURES["time"](numbers, [], {"block": "i"})
    (axis,) = figure.axes
    drawn = {c.get_label(): c.lines[0].get_xydata().tolist() for c in axis.containers}
    assert drawn == {"DAM + ED (44.0)": [[11.0, 44.0]], "herding (41.0)": [[1 / 60, 41.0]]}
    assert axis.get_xscale() == "log"


@pytest.mark.parametrize("kind", ["classes", "methods", "storage", "curve", "time"])
def test_a_picture_without_numbers_is_refused(kind):
    with pytest.raises(UserError, match="picture"):
        draw_results.PICTURES[kind](NUMBERS, [], {"run": "elsewhere", "block": "i"})


def write_set(path, method="dam_ed", likeness=0.0, source="cifar10"):
    """A run of four images of noise that are partly those they began as."""
    report = made_up.make_report(made_up.make_config(argument=method))
    report["config"]["data"]["source"] = source
    home = made_up.write_run(path, report)
    generator = np.random.default_rng(0)
    initial, other = generator.integers(0, 256, (2, 4, 8, 8, 3), np.uint8)
    pixels = (likeness * initial + (1 - likeness) * other).astype(np.uint8)
    made_up.write_images(home, pixels, initial)
    return pixels


def test_a_set_is_drawn_as_it_is(tmp_path):
    pixels = write_set(tmp_path)
    drawn = draw_results.draw_set(tmp_path).convert("RGB")
    scale, gap = 6, 3  # 48 pixels for each image of 8
    size, left = 8 * scale + gap, drawn.width - 2 * (8 * scale + gap)
    assert drawn.height == 2 * size
    corner = np.asarray(drawn)[size : size + 48 : scale, left : left + 48 : scale]
    assert np.abs(corner.astype(int) - pixels[2]).mean() < 40  # a palette of 128 colours


@pytest.mark.parametrize(
    ("method", "likeness", "words"),
    [
        ("herding", 0.0, "the images of herding are real ones"),
        ("rded", 0.0, "the images of rded are real ones"),
        ("dam_ed", 0.9, "hardly differ from real ones"),
        ("dam_ed --start", 0.0, "start from real ones"),
    ],
)
def test_real_images_are_not_drawn(tmp_path, capsys, method, likeness, words):
    """Breaks when photographs, or sets that are as good as these, come into the repository."""
    method, *more = method.split()
    write_set(tmp_path, method, likeness)
    out = tmp_path / "set.png"
    assert draw_results.main([f"--workdir={tmp_path}", f"--out={out}", *more]) == 2
    assert words in capsys.readouterr().err and not out.exists()


def test_digits_stand_beside_what_they_began_as(tmp_path):
    write_set(tmp_path, likeness=0.9, source="digits")
    alone, both = (draw_results.draw_set(tmp_path, start=start) for start in (False, True))
    assert both.height == alone.height and both.width > 1.7 * alone.width
