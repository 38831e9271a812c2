"""Stage `evaluate`: fresh networks on every row, rates of real images chosen on held-out ones."""

from typing import Any

import numpy as np

from ltdd_jax import config as configs
from ltdd_jax.data import disk_images, long_tail
from ltdd_jax.evaluate import metrics, ranking
from ltdd_jax.pipeline import loop, protocols, taught_rows, transfer
from ltdd_jax.pipeline import problem as problem_of
from ltdd_jax.pipeline import rows as rows_of
from ltdd_jax.pipeline.rows import Row
from ltdd_jax.pipeline.run import Run
from ltdd_jax.pipeline.trainers import Job, Trainers, cut
from ltdd_jax.runtime import checkpoint, files, mesh, processes

_HASH_DIGITS = 8
_RATES = "-rates-"  # in the directory of a training that only judges rates
_HELD_OUT = 1  # keeps the split apart from others of the same seed
_DISTILLED = ("distilled", "ii_distilled")
# Row -> the random real images under the same protocol, the first of those that were evaluated.
_COMPARED = {
    "distilled": ("random_real_soft", "random_real"),
    "ii_distilled": ("ii_random_real",),
}


def run_evaluate(run: Run) -> tuple[dict[str, dict[str, Any]], list[list[int]] | None]:
    """Evaluates every row that is not finished yet.

    Returns:
      The summary of each row, by name, and the confusions [K, K] of the distilled set, summed over
      the networks (rows are true classes); None where they were not counted.

    Raises:
      UserError: a full disk, numbers that went wrong, or no row of the kinds that are asked for.
      Interrupted: stopped by a signal, with everything saved.
    """
    rows = _make_rows(run)
    trainers = Trainers(run)
    found: dict[str, dict[str, Any]] = {}
    for row in rows_of.order_for_rates(rows):
        rate = found[row.rate_of]["rate"] if row.rate_of else row.rate
        found[row.name] = _evaluate_row(run, trainers, row, rate)
    summaries = {row.name: _summarize(run, row, found[row.name]) for row in rows}
    if any(row.block == "ii" for row in rows):
        teacher = taught_rows.measure_teachers(run)
        summaries |= {
            r.name: summaries[r.name] | {"teacher": teacher} for r in rows if r.block == "ii"
        }
    shown = next((found[name] for name in _DISTILLED if name in found), {})
    return _rank(summaries), shown.get("confusion")


def _make_rows(run):
    """The rows that are asked for."""
    blocks, kinds = run.config.evaluation.blocks, run.config.evaluation.rows
    common = rows_of.make_rows(run) if "i" in blocks else []
    taught = taught_rows.make_rows(run) if configs.has_taught_rows(run.config) else []
    return rows_of.choose_rows([*common, *transfer.make_rows(run, common), *taught], kinds)


def identify(run: Run, row: Row, rate: float | None) -> dict[str, Any]:
    """What makes the result of a row what it is."""
    made_by = protocols.list_fields(row.block, rate_is_given=rate is not None)
    elsewhere = {"network": row.network, "protocol": row.protocol} if row.is_transferred else {}
    return configs.identity(run.config, made_by) | {
        "data_fingerprint": run.problem.fingerprint,
        "row": {
            "name": row.name,
            "made_of": row.made_of,
            "num_epochs": row.num_epochs,
            "rate": rate,
            **elsewhere,
        },
    }


def name_row(run: Run, row: Row, rate: float | None) -> str:
    """Of the files of a row: equal names are the same networks, trained on the same data."""
    return f"{row.name}-{configs.identity_hash(identify(run, row, rate))[:_HASH_DIGITS]}"


def _evaluate_row(run, trainers, row, rate):
    """Accuracies of a row with the rate that was used, from its file if they are there."""
    identity = identify(run, row, rate)
    name = name_row(run, row, rate)
    directory = run.workspace.baselines if row.is_shared else run.workspace.evaluate
    path = directory / f"{name}.json"
    networks = directory / "networks" / name
    found = processes.first_then_rest(lambda: run.workspace.read_or_set_aside(path))
    lacks_networks = processes.first_then_rest(lambda: _lacks_networks(run, networks))
    is_same = found is not None and found["identity"] == identity
    if not is_same or lacks_networks:
        trainer = trainers.get(row)
        tuning: dict[str, float] = {}
        if is_same:
            rate, tuning = found["rate"], found["tuning"]
        elif rate is None:
            rate, tuning = _choose_rate(run, trainers, row, directory / name)
        key, made_of = row.key(run.config.seed), {"identity": identity}
        job = Job(directory / name, row.title, key, made_of, remedy=row.remedy)
        rates = np.full(run.config.evaluation.num_seeds, rate)
        state = trainer.train(job, row.load(len(rates)), rates)
        predictions = trainers.predict(row, state, run.problem.test_images)
        labels, num_classes = run.problem.test.labels, run.problem.num_classes
        accuracies = metrics.per_class_accuracy(predictions, labels, num_classes)
        found = {
            "identity": identity,
            "per_seed_per_class": accuracies.tolist(),
            "rate": float(rate),
            "tuning": tuning,
        }
        if row.name in _DISTILLED:  # of one row only: K² numbers
            found["confusion"] = metrics.count_confusions(predictions, labels, num_classes).tolist()
        if lacks_networks:
            with checkpoint.Writer() as writer:
                writer.save(networks, {"params": cut(mesh.fetch(state.params), len(rates))}, {})
        files.write_sealed(path, found)
        run.stop.agree()
        run.stop.raise_if_requested()
    for path in (directory / name, *directory.glob(f"{name}{_RATES}*")):
        loop.Checkpoints(path, run.workspace.warn).delete()
    return found


def _lacks_networks(run, path):
    """Whether networks have to be written there; an incomplete directory is moved out of the way.

    Before the training, since Orbax refuses a directory that exists only after it.
    """
    if not run.config.evaluation.keep_networks or checkpoint.is_complete(path):
        return False
    if path.exists():
        moved = files.set_aside(path).name
        run.workspace.warn(f"checkpoint {path} is incomplete; moved to {moved}, making it again")
    return True


def _summarize(run, row, found):
    accuracies = np.asarray(found["per_seed_per_class"])
    counts = run.problem.test_counts, np.asarray(run.problem.class_counts)
    summary = metrics.summarize(accuracies, *counts)
    batches = -(-row.num_rows // protocols.choose_batch_size(run, row.block))
    num_epochs = protocols.count_epochs(row.block, row.num_epochs)
    return summary | {
        "title": row.title,
        "rate": found["rate"],
        "tuning": found["tuning"],
        "num_epochs": num_epochs,
        "updates": num_epochs * batches,
        "images": row.num_rows,
        "block": row.block,
        "labels": row.regime,
        "stored_bytes": {name: int(count) for name, count in row.stored_bytes.items()},
        "images_stored": row.num_stored or row.num_rows,
        "images_seen": row.num_rows,
        "augmentation": protocols.describe_augmentation(run, row.block),
        "student": _describe_student(run, row),
        "network": row.network or run.config.net.name,
        "protocol": row.protocol,
        "seeds": run.config.evaluation.num_seeds,
        "selection": "final iterate",
    }


def _describe_student(run, row):
    if row.network:
        return f"{row.network} of its published size"
    net = run.config.net
    sizes = [
        f"{name} {net[name]}" for name in problem_of.network_options(run.config) if name in net
    ]
    return ", ".join([net.name, *sizes])


def _rank(summaries):
    """The summaries with the measures of DD-Ranking for the rows of the distilled set.

    `hlr` and `ior` are in percent of accuracy, `lrs` lies in [0, 1]; None where a row that they
    compare with was not evaluated.
    """
    mean = {name: summary["mean"] for name, summary in summaries.items()}
    hard = mean.get("distilled_hard")
    if "distilled" in summaries and summaries["distilled"]["labels"] == "H":
        hard = mean["distilled"]
    hlr = None
    if hard is not None and "full_real" in mean:
        hlr = ranking.hard_label_recovery(mean["full_real"], hard)
    for name, others in _COMPARED.items():
        if name not in summaries:
            continue
        random_real = next((mean[other] for other in others if other in mean), None)
        ior = lrs = None
        if random_real is not None:
            ior = ranking.improvement_over_random(mean[name], random_real)
        if ior is not None and hlr is not None:
            lrs = ranking.label_robust_score(ior, hlr)
        summaries[name] |= {"hlr": hlr, "ior": ior, "lrs": lrs}
    return summaries


def _choose_rate(run, trainers, row, directory):
    """The rate of the grid with the best balanced accuracy on held-out training images.

    A small set is trained with every seed at every rate, the whole training set once at every
    rate, all of the networks that run together at another rate or seed.
    """
    settings, problem = run.config.evaluation, run.problem
    grid = protocols.list_rates(run, row.block)
    kept, held = long_tail.hold_out(
        (run.config.seed, _HELD_OUT), problem.train.labels, settings.held_out
    )
    if len(grid) == 1 or not len(held):
        return grid[0], {}
    seeds = settings.num_seeds if row.per_network else 1
    lanes = [(rate, seed) for rate in grid for seed in range(seeds)]
    width = min(settings.num_seeds, len(lanes))
    trainer = trainers.get(row, settings.tuning_epochs)
    data = row.load_kept(kept, seeds)
    scores: dict[float, list[float]] = {rate: [] for rate in grid}
    for begin in range(0, len(lanes), width):
        chosen = (lanes[begin : begin + width] * width)[:width]  # padded by repetition
        places = [seed for _, seed in chosen]
        rates = np.array([rate for rate, _ in chosen])
        job = Job(
            directory.parent / f"{directory.name}{_RATES}{begin:04d}",
            f"{row.title}: rates {', '.join(f'{x:g}' for x in sorted(set(rates.tolist())))}",
            row.key(run.config.seed),
            {"rates": rates.tolist(), "seeds": places},
            seeds=tuple(places),
            may_fail=True,
        )
        state = trainer.train(job, row.select(data, places), rates)
        images = disk_images.take(problem.train_images, held)
        predictions = trainers.predict(row, state, images)
        for lane, (rate, _) in enumerate(lanes[begin : begin + width]):
            score = _balanced(predictions[lane], problem.train.labels[held])
            scores[rate].append(score)
    means = {rate: float(np.mean(values)) for rate, values in scores.items()}
    best = max(grid, key=lambda rate: (means[rate], -rate))
    return best, {f"{rate:g}": mean for rate, mean in means.items()}


def _balanced(predictions, labels):
    """Mean over the classes that occur of the share predicted correctly, in percent."""
    return 100 * float(
        np.mean([np.mean(predictions[labels == label] == label) for label in np.unique(labels)])
    )
