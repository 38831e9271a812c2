"""Breaks when a budget chooses what cannot run, what is not asked for, or the same for all."""

import pytest

from ltdd_jax import budget, config, fields, method_budgets, presets, records

BOTH = ("representation", "classifier")


def choose(
    name="quick", counts=(60, 30, 12), shape=(32, 32, 3), method="dam_ed", given=None, **more
):
    """What a budget chooses beside what is given; dotted field -> value."""
    asked = {"experts": BOTH, "phases": BOTH, "num_teachers": 0} | more
    current, given = config.base_config(), given or {}
    config.use_preset(current, method)
    for field, value in given.items():
        config.set_field(current, field, value)
    chosen = budget.choose_settings(
        name, current=records.flatten(current.to_dict()), fixed=frozenset(given),
        class_counts=counts, image_shape=shape, num_cores=2, **asked,
    )  # fmt: skip
    assert len({choice.field for choice in chosen}) == len(chosen)
    assert all(choice.reason for choice in chosen)
    return {choice.field: choice.value for choice in chosen}


@pytest.mark.parametrize("name", budget.BUDGETS)
@pytest.mark.parametrize(
    ("counts", "shape"),
    [
        ((60, 30, 12), (32, 32, 3)),
        ((2, 1), (8, 8, 1)),
        ((500,) * 200, (64, 64, 3)),
        ((5000, 50), (4, 4, 1)),
        ((10**6, 10), (128, 96, 3)),
    ],
)
def test_every_choice_is_a_valid_config(name, counts, shape):
    settings = config.base_config()
    for field, value in choose(name, counts, shape).items():
        config.set_field(settings, field, value)
    config.validate(settings)
    assert shape[0] // 2**settings.net.depth >= 1
    assert settings.experts.representation.batch_size <= sum(counts)


def test_more_time_gives_more():
    quick, standard, thorough = (choose(name) for name in ("quick", "standard", "thorough"))
    for field in ("net.width", "trajectory.num_iterations", "evaluation.num_epochs"):
        assert quick[field] <= standard[field] <= thorough[field], field
    assert quick["net.width"] < standard["net.width"] < thorough["net.width"]
    faster = choose("quick", num_devices=1)
    assert faster["trajectory.num_iterations"] > quick["trajectory.num_iterations"]


STEPS = {"quick": 1000, "standard": 4000, "thorough": 20000}


def choose_teachers(name, num_rows, shape=(32, 32, 3), **more):
    """The valid settings of the teachers, and the steps that they are trained for."""
    asked = {"method": "rldd", "experts": (), "num_teachers": 2} | more
    settings = config.base_config()
    config.use_preset(settings, asked["method"])
    for field, value in choose(name, (num_rows - 1, 1), shape, **asked).items():
        config.set_field(settings, field, value)
    config.validate(settings)
    assert settings.teacher.num_epochs == settings.observer.num_epochs
    steps = max(1, num_rows // settings.teacher.batch_size) * settings.teacher.num_epochs
    return settings.teacher, steps


@pytest.mark.parametrize("name", budget.BUDGETS)
@pytest.mark.parametrize("num_rows", [3, 500, 10**6])
def test_teachers_are_trained_within_the_steps_of_a_budget(name, num_rows):
    """Breaks when a quick run trains for hours, or a setting is not one."""
    teacher, steps = choose_teachers(name, num_rows)
    assert 2 <= teacher.num_epochs <= 200
    if num_rows < 10**6:
        assert steps <= STEPS[name]


def test_teachers_take_what_time_there_is():
    """Breaks when a teacher of large pictures trains as many steps as one of small ones, or as if
    it had the processor for itself.
    """
    _, most = choose_teachers("thorough", 20_000, (8, 8, 1))
    assert 0.9 * STEPS["thorough"] <= most <= STEPS["thorough"]
    _, large = choose_teachers("thorough", 20_000, (64, 64, 3))
    assert large < most / 4
    _, alone = choose_teachers("thorough", 20_000, (64, 64, 3), num_teachers=1)
    assert alone == pytest.approx(2 * large, rel=0.1)
    _, beside = choose_teachers("thorough", 20_000, (64, 64, 3), num_teachers=1, experts=BOTH)
    assert beside == pytest.approx(large, rel=0.1)
    _, crops = choose_teachers("thorough", 20_000, (64, 64, 3), num_teachers=1, method="rded")
    assert crops > 1.5 * alone, "nothing is distilled, and its time is free"


# Method -> what a quick run stays below, in iterations, networks or steps.
MOST = {
    **dict.fromkeys(("dc", "dsa", "dream"), 1001),
    **dict.fromkeys(("dm", "idm"), 20001),
    **dict.fromkeys(("krr", "frepo"), 4800),
    **dict.fromkeys(("sre2l", "edc", "rldd"), 2000),
}


@pytest.mark.parametrize("method", MOST)
def test_methods_without_experts_fit_the_time_too(method):
    """Breaks when a quick run takes the published 20 001 iterations, or trains experts."""
    settings = config.base_config()
    config.use_preset(settings, method)
    section, taught = presets.PRESETS[method].section, method in ("krr", "sre2l", "edc", "rldd")
    sizes = []
    for name in budget.BUDGETS:
        asked = {"experts": (), "num_teachers": int(taught)}
        found = choose(name, counts=(300, 60, 20), method=method, **asked)
        assert not any(field.startswith(("experts.", "trajectory.")) for field in found)
        for field, value in found.items():
            config.set_field(settings, field, value)
        config.validate(settings)
        ends = ("num_iterations", "num_networks", "num_steps")
        counted = [v for k, v in found.items() if k.startswith(section) and k.endswith(ends)]
        sizes.append(sum(counted))
    assert sizes == sorted(sizes) and sizes[0] < sizes[1]
    assert 0 < sizes[0] < MOST[method]


def test_a_method_with_one_phase_has_settings_and_time_for_one():
    """Breaks when MTT is given classifier experts, or half the iterations that fit."""
    both = choose("thorough")
    one = choose("thorough", method="mtt", experts=BOTH[:1], phases=BOTH[:1])
    assert {field for field in both if ".classifier." in field} == both.keys() - one.keys()
    assert one["trajectory.num_iterations"] - 2 * both["trajectory.num_iterations"] in (0, 1)
    assert one["experts.num_experts"] >= both["experts.num_experts"]


@pytest.mark.parametrize("method", ["krr", "dm"])
def test_experts_and_teachers_take_their_time_from_the_distillation(method):
    field = {"krr": "kernel.second.num_iterations", "dm": "distribution_matching.num_iterations"}

    def count(**asked):
        return choose(method=method, **asked)[field[method]]

    alone = count(experts=())
    assert count(experts=(), num_teachers=1) == count(experts=BOTH) < alone


def test_images_per_class_follow_the_classes_or_the_user():
    assert choose(counts=(100, 50, 9))["distill.ipc"] == 10  # a fifth of 50
    assert choose(counts=(9, 5, 2))["distill.ipc"] == 1
    fewer = choose(given={"distill.ipc": 3})
    assert "distill.ipc" not in fewer
    assert fewer["trajectory.num_iterations"] > choose()["trajectory.num_iterations"]


@pytest.mark.parametrize("name", budget.BUDGETS)
@pytest.mark.parametrize(
    "given",
    [
        {"experts.representation.num_epochs": 10},
        {"experts.representation.num_epochs": 3},
        {"trajectory.expert_epochs": 5},
        {"trajectory.representation.max_start_epoch": 25},
        {"trajectory.representation.min_start_epoch": 3},
        {"trajectory.classifier.max_start_epoch": 6},
        {"experts.classifier.num_epochs": 3, "trajectory.classifier.max_start_epoch": 2},
        {"net.width": 256, "net.depth": 2},
    ],
)
def test_what_is_given_stays_and_the_rest_fits(name, given):
    """Breaks when a setting of the user's makes a run impossible that a budget chooses for."""
    found = choose(name, given=given)
    assert not given.keys() & found.keys()
    settings = config.base_config()
    settings.budget = name
    for field, value in {**found, **given}.items():
        config.set_field(settings, field, value)
    config.validate(settings)


def test_a_larger_network_of_the_users_gets_fewer_iterations():
    wide = choose("thorough", given={"net.width": 256})["trajectory.num_iterations"]
    assert wide < choose("thorough")["trajectory.num_iterations"]


EPOCHS, WHOLE = "evaluation.num_epochs", "evaluation.full_num_epochs"
TAUGHT = "student.num_epochs"
STEPS_OF = "trajectory.{}.student_steps"
# A task in which no choice is at its least or most: (name, counts, shape), devices and images.
LARGE = ("thorough", (5000, 1500, 500, *(7 * (100,))), (64, 64, 3))
IMAGES = {"distill.ipc": 100}
# Method, what is fixed, what is chosen to fit it, and whether that is fewer or more than without.
FIXED = [
    ("dam_ed", "experts.num_experts", 40, "experts.representation.num_epochs", "fewer"),
    ("dam_ed", "experts.classifier.num_epochs", 4000, "experts.num_experts", "fewer"),
    ("dam_ed", STEPS_OF.format("representation"), 250, "trajectory.num_iterations", "fewer"),
    ("dam_ed", STEPS_OF.format("classifier"), 10, "trajectory.num_iterations", "more"),
    ("dam_ed", "trajectory.num_iterations", 5000, STEPS_OF.format("classifier"), "fewer"),
    ("dam_ed", "trajectory.batch_size", 25, "trajectory.num_iterations", "more"),
    ("dam_ed", "trajectory.pairs_per_iteration", 2, "trajectory.num_iterations", "fewer"),
    ("dam_ed", "evaluation.num_seeds", 1, EPOCHS, "more"),
    ("dam_ed", "evaluation.baseline_rates", (0.01,), EPOCHS, "more"),
    ("dam_ed", "evaluation.baseline_rates", (0.01,), WHOLE, "more"),
    ("dam_ed", "evaluation.tuning_epochs", 5, EPOCHS, "more"),
    ("dam_ed", "evaluation.tuning_epochs", 1000, EPOCHS, "fewer"),
    ("dam_ed", WHOLE, 1, EPOCHS, "more"),
    ("dam_ed", WHOLE, 0, EPOCHS, "fewer"),
    ("dam_ed", EPOCHS, 80, WHOLE, "more"),
    ("dsa", "gradient_matching.image_steps", 50, "gradient_matching.num_networks", "fewer"),
    ("dsa", "gradient_matching.training_epochs", 50, "gradient_matching.num_networks", "fewer"),
    ("dsa", "gradient_matching.num_networks", 1000, "gradient_matching.image_steps", "fewer"),
    ("idm", "distribution_matching.training_steps", 100, "distribution_matching.num_iterations",
     "fewer"),
    ("dream", "dream.inner_steps", 5, "dream.num_networks", "more"),
    ("dream", "dream.num_networks", 1000, "dream.inner_steps", "fewer"),
    ("krr", "kernel.second.num_iterations", 4000, "kernel.first.num_iterations", "fewer"),
    ("krr", "kernel.first.num_iterations", 2000, "kernel.second.num_iterations", "fewer"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "field", "value", "chosen", "expected"), FIXED)
def test_what_is_fixed_is_counted(method, field, value, chosen, expected):
    """Breaks when a field is left as it is and the others are chosen as if it was not."""
    asked = {"method": method, "num_devices": 0 if method == "krr" else 1}
    asked |= {} if method == "dam_ed" else {"experts": ()}
    free = choose(*LARGE, given=IMAGES, **asked)
    given = choose(*LARGE, given=IMAGES | {field: value}, **asked)
    assert field not in given
    assert given[chosen] < free[chosen] if expected == "fewer" else given[chosen] > free[chosen]


@pytest.mark.parametrize("steps", [10, 40])
def test_fixed_steps_and_the_iterations_for_them_take_the_same_time(steps):
    """Breaks when fixed steps of one phase are counted for both, or for none."""
    phases = ("representation", "classifier")
    field = STEPS_OF.format("classifier")
    free = choose(*LARGE, given=IMAGES, num_devices=1)
    given = choose(*LARGE, given=IMAGES | {field: steps}, num_devices=1)
    work = [
        found["trajectory.num_iterations"] * sum(found[STEPS_OF.format(x)] for x in phases)
        for found in (free, given | {field: steps})
    ]
    assert work[1] == pytest.approx(work[0], rel=0.01)
    iterations = given["trajectory.num_iterations"]
    fixed = IMAGES | {"trajectory.num_iterations": 2 * iterations}
    both = choose(*LARGE, given=fixed, num_devices=1)
    assert 2 * iterations * sum(both[STEPS_OF.format(x)] for x in phases) <= work[0]


def test_a_method_with_the_classifiers_phase_alone_has_its_settings():
    """Breaks when the one phase of a method is taken for that of the representation."""
    given = IMAGES | {"trajectory.representation.loss_weight": 0.0}
    asked = {"phases": BOTH[1:], "num_devices": 1}
    found = choose(*LARGE, given=given, **asked)
    assert not any(field.startswith("trajectory.representation.") for field in found)
    assert STEPS_OF.format("classifier") in found
    longer = choose(*LARGE, given=given | {STEPS_OF.format("classifier"): 200}, **asked)
    assert longer["trajectory.num_iterations"] < found["trajectory.num_iterations"]
    unused = given | {STEPS_OF.format("representation"): 200}
    assert choose(*LARGE, given=unused, **asked) == found


@pytest.mark.parametrize(("seeds", "compared"), [(1, 5), (2, 6), (5, 5), (10, 5)])
def test_as_many_networks_are_counted_as_compare_five_rates_for_the_whole_training_set(
    seeds, compared
):
    """Breaks when comparisons are counted that are not trained, such as padding."""
    common = IMAGES | {"evaluation.num_seeds": seeds}
    one, five = (
        choose(*LARGE, given=common | {"evaluation.baseline_rates": rates}, num_devices=1)[WHOLE]
        for rates in ((0.01,), (0.005, 0.01, 0.02, 0.05, 0.1))
    )
    assert one * seeds == pytest.approx(five * (seeds + compared), rel=0.03)


def test_blocks_leave_each_other_the_time_that_fixed_epochs_do_not_take():
    """Breaks when a block has half the time whatever the other one takes of it."""
    asked = {"method": "rded", "experts": (), "num_teachers": 1, "num_devices": 1}
    blocks = IMAGES | {"evaluation.blocks": ("i", "ii"), "evaluation.num_seeds": 7}
    free = choose(*LARGE, given=blocks, **asked)
    given = choose(*LARGE, given=blocks | {"student.num_epochs": 1}, **asked)
    assert given[EPOCHS] > 1.5 * free[EPOCHS] and given[WHOLE] > 1.5 * free[WHOLE]
    given = choose(*LARGE, given=blocks | {EPOCHS: 1, WHOLE: 1}, **asked)
    assert given["student.num_epochs"] > free["student.num_epochs"]
    several = choose(*LARGE, given=blocks | {"student.learning_rates": (0.01, 0.02)}, **asked)
    assert several["student.num_epochs"] < free["student.num_epochs"]


KINDS, RATES = "evaluation.rows", "evaluation.baseline_rates"
SELECTED = {"method": "herding", "experts": ()}


def choose_rows(*kinds, **more):
    """What is chosen for an evaluation of some kinds of rows, in a task of many images."""
    given = {"distill.ipc": 500, "evaluation.num_seeds": 10, KINDS: kinds} | more.pop("given", {})
    found = choose(*LARGE, given=given, num_devices=1, **more)
    return {field: v for field, v in found.items() if field in (EPOCHS, WHOLE, TAUGHT)}


def test_rows_that_are_left_out_take_no_time():
    """Breaks when time is kept for the whole training set, or for small sets, that nobody asked."""
    every = choose_rows("distilled", "initial", "random_real", "full_real")
    assert every.keys() == {EPOCHS, WHOLE}
    one = choose_rows("random_real", given={RATES: (0.01,)})
    assert one.keys() == {EPOCHS}, "without the whole training set"
    three = choose_rows("distilled", "initial", "random_real", given={RATES: (0.01,)})
    assert one[EPOCHS] == pytest.approx(3 * three[EPOCHS], rel=0.02) and three.keys() == {EPOCHS}
    four = choose_rows(*config.ROWS[:-1], given={RATES: (0.01,)})
    assert one[EPOCHS] == pytest.approx(4 * four[EPOCHS], rel=0.02), "starts have two rates"
    again = choose_rows("initial_at_baseline_rate", given={RATES: (0.01,)})
    assert one[EPOCHS] == pytest.approx(2 * again[EPOCHS], rel=0.02), "that of random real images"
    whole = choose_rows("full_real")
    assert whole[WHOLE] == pytest.approx(every[WHOLE] / 0.4, rel=0.05) and whole.keys() == {WHOLE}
    same = choose_rows("full_real", given={WHOLE: 0})
    assert same == {EPOCHS: whole[WHOLE]}, "whose epochs those of the whole training set are"


def test_a_start_that_a_set_has_not_takes_no_time():
    """Breaks when sets that nothing changes have time for what they begin as."""
    crops = {"method": "rded", "experts": ()}
    one, both = (
        choose_rows(*kinds, given={RATES: (0.01,)}, **crops)
        for kinds in (("distilled",), ("distilled", "initial"))
    )
    assert one == both
    labelled = {RATES: (0.01,), "labels.relabel": "teacher"}
    again = choose_rows("distilled", "initial", given=labelled, **crops)
    assert again[EPOCHS] == pytest.approx(one[EPOCHS] / 2, rel=0.02)


def test_pictures_that_images_hold_are_counted():
    """Breaks when students of four pictures an image are given time for the images alone."""
    given = {RATES: (0.01,)}
    one, four = (choose_rows("distilled", given=given, pictures=n)[EPOCHS] for n in (1, 4))
    assert four == pytest.approx(one / 4, abs=1)
    random = choose_rows("distilled", "random_real", given=given, pictures=4)[EPOCHS]
    assert random == pytest.approx(one / 5, abs=1), "whose images hold one"
    few = {"distill.ipc": 10}
    steps = [choose(*LARGE, given=few, num_devices=1, pictures=n) for n in (1, 4)]
    steps = [found["trajectory.num_iterations"] for found in steps]
    assert steps[1] == pytest.approx(steps[0] / 4, rel=0.02), "batches are of pictures"


def test_rates_are_compared_where_random_real_images_are_trained_on():
    """Breaks when a comparison is counted that no row takes its rate of, or one is not."""
    several = (0.005, 0.01, 0.02, 0.05, 0.1)
    epochs = [
        choose_rows(kind, given={RATES: rates}, **more)[EPOCHS]
        for kind, more in (
            ("distilled", {}),
            ("initial_at_baseline_rate", {}),
            ("distilled", SELECTED),
        )
        for rates in ((0.01,), several)
    ]
    assert epochs[0] == epochs[1], "at the rate of the set"
    assert epochs[3] < epochs[2] and epochs[5] < epochs[4], "at that of random real images"
    selections = {name for name, made in presets.PRESETS.items() if made.section == "selection"}
    assert set(method_budgets.SELECTIONS) == selections


def test_a_block_without_rows_leaves_its_time():
    """Breaks when students of a teacher have time where only the whole training set is asked."""
    one = {RATES: (0.01,)}
    blocks = {"evaluation.blocks": ("i", "ii")} | one
    assert choose_rows("full_real", given=blocks) == choose_rows("full_real", given=one)
    assert choose_rows("full_real", given={"evaluation.blocks": ("ii",)}) == {}
    both = choose_rows("random_real", given=blocks)
    alone = choose_rows("random_real", given=one)
    assert both.keys() == {EPOCHS, TAUGHT} and both[EPOCHS] == alone[EPOCHS] // 2
    given = choose_rows("random_real", given=blocks | {EPOCHS: 1})
    assert given[TAUGHT] > both[TAUGHT], "block (i) has no other epochs"


@pytest.mark.parametrize("epochs", [2, 5, 80])
def test_the_whole_training_set_is_seen_no_longer_than_small_ones(epochs):
    """Breaks when a baseline of few epochs is chosen longer than what it stands beside."""
    assert choose(given={EPOCHS: epochs})[WHOLE] <= epochs


def test_teachers_of_another_recipe_or_batch_take_the_same_time():
    """Breaks when a recipe that costs twice as much, or a larger batch, trains as many steps."""
    asked = {"method": "rldd", "experts": (), "num_teachers": 48, "num_devices": 1}
    free = choose(*LARGE, **asked)["teacher.num_epochs"]
    twice = choose(*LARGE, given={"teacher.recipe": "glmc"}, **asked)
    assert twice["teacher.num_epochs"] == pytest.approx(free / 2, rel=0.1)
    assert twice["observer.num_epochs"] == free
    large = choose(*LARGE, given={"teacher.batch_size": 640}, **asked)
    assert large["teacher.num_epochs"] == pytest.approx(free, rel=0.1)


@pytest.mark.parametrize("name", budget.BUDGETS)
def test_students_of_a_teacher_fit_the_time_too(name):
    """Breaks when block (ii) of a short run keeps its published length."""
    asked = {"method": "rded", "experts": (), "num_teachers": 1}
    alone, both = (
        choose(name, (300, 200, 100), given={"evaluation.blocks": blocks}, **asked)
        for blocks in (("ii",), ("i", "ii"))
    )
    assert "evaluation.num_epochs" not in alone
    assert 20 <= both["student.num_epochs"] <= alone["student.num_epochs"] <= 1000
    assert "student.num_epochs" not in choose(name, **asked)
    larger = choose(name, (300, 200, 100), (64, 64, 3), given={"evaluation.blocks": ("ii",)},
                    **asked)  # fmt: skip
    assert larger["student.num_epochs"] < alone["student.num_epochs"]


@pytest.mark.parametrize(
    ("sides", "name", "expected"),
    [
        ([500, 640, 30], "quick", 32),
        ([500, 640, 30], "standard", 64),
        ([28, 28], "quick", 16),
        ([33, 40, 50], "quick", 32),
        ([5], "thorough", 8),
    ],
)
def test_side_is_a_power_of_two_below_the_median(sides, name, expected):
    assert budget.choose_side(sides, name).value == expected


def test_fields_exist():
    assert choose().keys() <= fields.flatten_fields().keys()
