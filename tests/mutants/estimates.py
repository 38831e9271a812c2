"""What a run is said to cost before it is made, and what a budget of time counts."""

from tests.mutants import of_file

MUTANTS = [
    *of_file(
        "ltdd_jax/budget.py", "tests/test_budget.py",
        ("fixed steps of a phase are counted as usual",
         "sum(settings.pick(field, steps) for field in fields)", "steps * len(fields)",
         "test_fixed_steps_and_the_iterations_for_them_take_the_same_time[10]"),
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
