"""What a run computes: multiplications and additions of its stages and of the rows it evaluates."""

from ltdd_jax.distill import Method
from ltdd_jax.pipeline import protocols, rows, taught_rows, teachers, transfer
from ltdd_jax.pipeline.rows import Row
from ltdd_jax.pipeline.run import Run

GRADIENT_FORWARDS = 3  # a gradient costs about three forward passes


def count_flops(run: Run, method: Method) -> dict[str, float]:
    """Multiplications and additions of each stage, baselines apart; layers only."""
    config, problem = run.config, run.problem
    forward = problem.network.sizes.flops
    num_rows, num_classes = len(problem.train.labels), problem.num_classes
    sections = config.experts
    passes = 2 if sections.representation.rho > 0 else 1  # GSAM takes two gradients
    of_kind = {
        "representation": sections.representation.num_epochs * num_rows * passes * 3,
        "classifier": sections.classifier.num_epochs * num_classes * max(problem.class_counts),
    }
    asked = teachers.needed_teachers(method)
    return {
        "experts": forward * sections.num_experts * sum(of_kind[kind] for kind in method.experts),
        **({"teachers": teachers.count_flops(run, asked)} if asked else {}),
        "distill": method.flops * method.num_iterations,
        "evaluate": _count_own(run, method),
        "baselines": sum(count_row(run, row) for row in list_baselines(run, method)),
    }


def list_baselines(run: Run, method: Method) -> list[Row]:
    """The rows of real images, which need no set: what they are, not for loading.

    Args:
      run: its section `evaluation` names the blocks.
      method: of the set that they stand beside.
    """
    blocks, found = run.config.evaluation.blocks, []
    if "i" in blocks:
        common = rows.make_baselines(run, method.labels)
        found += [*common, *transfer.make_rows(run, common)]
    if "ii" in blocks:
        found.append(taught_rows.sketch_random_row(run, method.labels))
    return found


def count_row(run: Run, row: Row) -> float:
    """Of all networks that are trained for a row, with those that only judge rates; layers only."""
    settings = run.config.evaluation
    epochs = protocols.count_epochs(row.block, row.num_epochs)
    rates = protocols.list_rates(run, row.block)
    is_compared = len(rates) > 1 and max(run.problem.class_counts) > 1  # or none can be held out
    if row.rate is None and not row.rate_of and is_compared:
        lanes = len(rates) * (settings.num_seeds if row.per_network else 1)
        trainings = -(-lanes // settings.num_seeds)  # of as many networks each as there are seeds
        tuning_epochs = settings.tuning_epochs or row.num_epochs
        epochs += trainings * protocols.count_epochs(row.block, tuning_epochs)
    return settings.num_seeds * epochs * row.num_rows * _count_view(run, row.block, row.network)


def _count_own(run, method):
    """Of the rows of the set, which take their rates from the set or from random real images."""
    settings = run.config.evaluation
    seen = settings.num_seeds * method.partition**2 * len(method.labels)
    found = 0.0
    if "i" in settings.blocks:
        rows_of_set = 3 + len(settings.extra_rows) if method.num_iterations else 1
        rows_of_set += _count_kept(run, method)
        views = rows_of_set * _count_view(run, "i", "")
        views += sum(_count_view(run, "i", name) for name, _ in transfer.list_ways(run.config))
        found += protocols.count_epochs("i", settings.num_epochs) * seen * views
    if "ii" in settings.blocks:
        views = (2 if method.num_iterations else 1) * _count_view(run, "ii", "")
        found += run.config.student.num_epochs * seen * views
    return found


def _count_kept(run, method):
    """Sets kept on the way that are evaluated too; the last one is the result."""
    keep = run.config.distill.keep_steps
    is_wanted = run.config.evaluation.curve and keep and method.num_iterations
    return (method.num_iterations - 1) // keep if is_wanted else 0


def _count_view(run, block, network):
    """A step of one network on one image, and in block (ii) the answers of its live teachers."""
    of_view = GRADIENT_FORWARDS * protocols.find_network(run, network).sizes.flops
    if block == "ii" and run.config.labels.relabel != "views":
        asked = teachers.list_networks(run, teachers.TEACHER)
        of_view += sum(network.sizes.flops for network in asked)
    return of_view
