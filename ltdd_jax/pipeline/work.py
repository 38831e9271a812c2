"""What a run computes: multiplications and additions of its stages and of the rows it evaluates."""

from ltdd_jax import config as configs
from ltdd_jax import records, row_kinds
from ltdd_jax.distill import Method
from ltdd_jax.pipeline import protocols, rows, taught_rows, teachers, transfer
from ltdd_jax.pipeline.rows import Row
from ltdd_jax.pipeline.run import Run
from ltdd_jax.presets import PRESETS

GRADIENT_FORWARDS = 3  # a gradient costs about three forward passes


def count_flops(run: Run, method: Method) -> dict[str, float]:
    """Multiplications and additions of each stage, baselines apart; layers only."""
    asked = teachers.needed_teachers(method)
    return {
        "experts": sum(count_experts(run, kind) for kind in method.experts),
        **({"teachers": teachers.count_flops(run, asked)} if asked else {}),
        "distill": method.flops * method.num_iterations,
        "evaluate": _count_own(run, method),
        "baselines": sum(count_row(run, row) for row in list_baselines(run, method)),
    }


def count_experts(run: Run, kind: str) -> float:
    """Of all experts of a kind; layers only."""
    problem, sections = run.problem, run.config.experts
    passes = 2 if sections.representation.rho > 0 else 1  # GSAM takes two gradients
    num_rows = len(problem.train.labels)
    of_kind = {
        "representation": sections.representation.num_epochs * num_rows * passes * 3,
        "classifier": sections.classifier.num_epochs
        * problem.num_classes
        * max(problem.class_counts),
    }
    return problem.network.sizes.flops * sections.num_experts * of_kind[kind]


def list_baselines(run: Run, method: Method) -> list[Row]:
    """The rows of real images, which need no set: what they are, not for loading.

    Args:
      run: its section `evaluation` names the blocks and the kinds of rows.
      method: of the set that they stand beside.
    """
    blocks, found = run.config.evaluation.blocks, []
    if "i" in blocks:
        common = rows.make_baselines(run, method.labels)
        found += [*common, *transfer.make_rows(run, common)]
    if configs.has_taught_rows(run.config):
        found.append(taught_rows.sketch_random_row(run, method.labels))
    return [row for row in found if _is_wanted(run, row)]


def _is_wanted(run, row):
    """Whether a row is of a kind that is asked for, or rows of the set take its learning rate."""
    values = records.flatten(run.config.to_dict())
    if rows.name_kind(row) in row_kinds.list_kinds(values, row.block):
        return True
    random_real = rows.SECOND * (row.block == "ii") + "random_real"
    return row.name == random_real and row_kinds.needs_rates(values, row.block)


def count_row(run: Run, row: Row) -> float:
    """Of all networks that are trained for a row, with those that only judge rates; layers only."""
    settings = run.config.evaluation
    epochs = protocols.count_epochs(row.block, row.num_epochs)
    rates = protocols.list_rates(run, row.block)
    is_compared = len(rates) > 1 and max(run.problem.class_counts) > 1  # or none can be held out
    compared = 0
    if row.rate is None and not row.rate_of and is_compared:
        lanes = len(rates) * (settings.num_seeds if row.per_network else 1)
        at_once = min(settings.num_seeds, lanes)
        tuning_epochs = settings.tuning_epochs or row.num_epochs
        networks = -(-lanes // at_once) * at_once  # the last ones are padded
        compared = networks * protocols.count_epochs(row.block, tuning_epochs)
    trained = settings.num_seeds * epochs + compared
    return trained * row.num_rows * _count_view(run, row.block, row.network)


def _count_own(run, method):
    """Of the rows of the set, which take their rates from the set or from random real images."""
    settings, values = run.config.evaluation, records.flatten(run.config.to_dict())
    seen = settings.num_seeds * method.partition**2 * len(method.labels)
    found = 0.0
    if kinds := row_kinds.list_kinds(values, "i"):
        is_made = PRESETS[run.config.distill.method].section != "selection"
        of_final = 1 + len(settings.extra_rows) * is_made + _count_kept(run, method)
        starts = kinds.intersection(row_kinds.STARTS)
        is_final = "distilled" in kinds
        views = (is_final * of_final + len(starts)) * _count_view(run, "i", "")
        ways = transfer.list_ways(run.config) if is_final else ()
        views += sum(_count_view(run, "i", name) for name, _ in ways)
        found += protocols.count_epochs("i", settings.num_epochs) * seen * views
    if kinds := row_kinds.list_kinds(values, "ii") & {"distilled", "initial"}:
        views = len(kinds) * _count_view(run, "ii", "")
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
