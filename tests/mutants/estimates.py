"""What a run is said to cost before it is made, and what a budget of time counts."""

from tests.mutants import of_file

MUTANTS = [
    *of_file(
        "ltdd_jax/row_kinds.py", "tests/test_budget.py",
        ("time is kept for rows that are left out",
         'set(values["evaluation.rows"]) - explain', '{"distilled", "full_real"} - explain',
         "test_rows_that_are_left_out_take_no_time"),
        ("rates of random images are compared for nobody",
         "bool(list_kinds(values, block) & takers)", "False",
         "test_rates_are_compared_where_random_real_images_are_trained_on"),
        ("random images are counted beside a start that does not need them",
         "else {AT_BASELINE_RATE}", 'else {"initial"}',
         "tests/pipeline/test_work.py::test_every_row_that_is_asked_for_besides_is_counted"),
        ("labels that were made later change no set",
         'source in ("experts", "teacher")', 'source == "experts"',
         "tests/pipeline/test_work.py::test_as_much_is_counted_as_is_trained[settings16-teacher-1]"),
    ),
    *of_file(
        "ltdd_jax/budget.py", "tests/test_budget.py",
        ("fixed steps of a phase are counted as usual",
         "sum(settings.pick(field, steps) for field in fields)", "steps * len(fields)",
         "test_fixed_steps_and_the_iterations_for_them_take_the_same_time[10]"),
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
    ),
    *of_file(
        "ltdd_jax/pipeline/cost.py", "tests/pipeline/test_cost.py",
        ("rows under two teachers are one", "evaluate.name_row(run, row, row.rate)", "row.name",
         "test_sets_share_the_baselines_that_are_the_same[common1-fields1-expected1]"),
    ),
]  # fmt: skip
