"""What a run is said to cost before it is made, and what a budget of time counts."""

from tests.mutants import of_file

MUTANTS = [
    *of_file(
        "ltdd_jax/budget.py", "tests/test_budget.py",
        ("fixed steps of a phase are counted as usual",
         "sum(settings.pick(field, steps) for field in fields)", "steps * len(fields)",
         "test_fixed_steps_and_the_iterations_for_them_take_the_same_time[10]"),
        ("time is kept for rows that are left out",
         'set(settings["evaluation.rows"]) - {"full_real"}',
         '{"distilled", "initial", "random_real"}',
         "test_rows_that_are_left_out_take_no_time"),
        ("rates of random images are compared for nobody",
         'users = {"distilled"} if is_selection else {again}', "users = set()",
         "test_rates_are_compared_where_random_real_images_are_trained_on"),
        ("padding of a comparison that is not trained", "max(1, min(seeds, common))", "seeds",
         "test_as_many_networks_are_counted_as_compare_five_rates_for_the_whole_training_set[10-5]"),
        ("pictures of an image are not counted",
         "(len(kinds) - is_random) * pictures + is_random", "len(kinds)",
         "test_pictures_that_images_hold_are_counted"),
        ("the only phase is taken for the first", "student_steps\" for phase in phases]",
         "student_steps\" for phase in _PHASES[: len(phases)]]",
         "test_a_method_with_the_classifiers_phase_alone_has_its_settings"),
    ),
    *of_file(
        "ltdd_jax/pipeline/work.py", "tests/pipeline/test_work.py",
        ("rates are said to be compared at full length", "settings.tuning_epochs or row.num_epochs",
         "row.num_epochs", "test_as_much_is_counted_as_is_trained[settings1-teacher-1]"),
        ("random images are counted beside a start that does not need them",
         'else "initial_at_baseline_rate"', 'else "initial"',
         "test_every_row_that_is_asked_for_besides_is_counted"),
    ),
    *of_file(
        "ltdd_jax/pipeline/cost.py", "tests/pipeline/test_cost.py",
        ("rows under two teachers are one", "evaluate.name_row(run, row, row.rate)", "row.name",
         "test_sets_share_the_baselines_that_are_the_same[common1-fields1-expected1]"),
    ),
]  # fmt: skip
