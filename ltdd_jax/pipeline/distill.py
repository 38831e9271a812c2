"""Stage `distill`: runs a method to its synthetic set."""

import concurrent.futures
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax import config as configs
from ltdd_jax import families, training
from ltdd_jax.data import augment, normalize, streamed
from ltdd_jax.distill import Method, Task, trajectory
from ltdd_jax.distill import step as steps
from ltdd_jax.pipeline import artefacts, experts, health, live, loop, teachers
from ltdd_jax.pipeline.run import Run
from ltdd_jax.presets import PRESETS
from ltdd_jax.runtime import checkpoint, files, mesh, prng, processes
from ltdd_jax.runtime.progress import progress
from ltdd_jax.types import SyntheticSet, UserError


def make_method(run: Run) -> Method:
    """The method that the config asks for; reads no files until it starts."""
    config = run.config
    section = PRESETS[config.distill.method].section
    build = families.find_builder(section)
    return build(make_task(run), ipc=config.distill.ipc, **config[section].to_dict())


def make_task(run: Run) -> Task:
    """What a method may use; snapshots and teachers are read when they are asked for."""
    config, problem = run.config, run.problem
    return Task(
        network=problem.network,
        augment=problem.augment,
        augment_siamese=augment.make_augment(config.augment.strategy, siamese=True),
        images=problem.train_images,
        labels=problem.train.labels,
        class_counts=problem.class_counts,
        stream=functools.partial(prng.stream_key, config.seed),
        snapshot=experts.Snapshots(run).read,
        num_experts=config.experts.num_experts,
        input_range=normalize.find_range(problem.preprocessing, problem.train_images),
        teachers=functools.cache(functools.partial(teachers.read_teachers, run)),
        networks=functools.partial(teachers.list_networks, run),
        preprocessing=problem.preprocessing,
        map_pairs=functools.partial(_map_pairs, run),
    )


def identify(run: Run, method: Method) -> dict:
    """What makes the synthetic set what it is."""
    config = run.config
    made_by = ["seed", "data", "net", "augment", "runtime.precision"]
    made_by += ["distill.method", "distill.ipc", PRESETS[config.distill.method].section]
    made_by += [f"experts.{kind}" for kind in method.experts]
    made_by += ["experts.num_experts"] if method.experts else []
    found = configs.identity(config, made_by) | {"data_fingerprint": run.problem.fingerprint}
    if method.teachers:
        found["teachers"] = {kind: teachers.identify(run, kind) for kind in method.teachers}
    return found


def _map_pairs(run, function, in_axes):
    """`function` over expert pairs, spread over the devices; in turn where one fills them."""
    config, problem = run.config, run.problem
    rows = trajectory.count_batch(config.distill.ipc * problem.num_classes, config.trajectory)
    lanes = mesh.choose_lanes(rows * problem.network.sizes.largest_map)
    return mesh.spread(training.vectorize(function, in_axes, lanes), in_axes, _make_mesh(run))


def _make_mesh(run):
    """Devices that share the pairs of an iteration; one where a method has no pairs."""
    has_pairs = PRESETS[run.config.distill.method].section == "trajectory"
    return mesh.make_mesh(run.config.trajectory.pairs_per_iteration if has_pairs else 1, even=True)


@dataclasses.dataclass
class _Window:
    """Sums of the metrics since the last log line; saved, so that a resumed log is the same."""

    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    count: int = 0

    def add(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def pop_means(self) -> dict[str, float]:
        means = {name: total / self.count for name, total in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


class _Reader:
    """Reads the inputs of coming iterations in a thread, stacked over a block of them."""

    def __init__(self, method: Method, block: int):
        self._method, self._block = method, block
        self._executor = concurrent.futures.ThreadPoolExecutor(1, "inputs")
        self._waiting: dict[int, concurrent.futures.Future] = {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._executor.shutdown(cancel_futures=True)

    def prefetch(self, begin: int) -> None:
        """Starts reading the inputs of the block that begins with iteration `begin`."""
        self._waiting[begin] = self._executor.submit(self._read, begin)

    def take(self, begin: int):
        """The inputs prefetched before."""
        return self._waiting.pop(begin).result()

    def _read(self, begin):
        inputs = [self._method.read(i) for i in range(begin, begin + self._block)]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *inputs)


def run_distill(run: Run, method: Method) -> SyntheticSet:
    """Optimises to the last iteration, from the last checkpoint if there is one.

    The first set, those kept on the way and the result are written.

    Raises:
      UserError: experts are missing, a full disk, or numbers that went wrong.
      trajectory.DamagedSegmentError: a snapshot that is needed is damaged.
      Interrupted: stopped by a signal, with everything saved.
    """
    if not method.num_iterations and processes.first_then_rest(lambda: _is_finished(run)):
        processes.say(f"distilled set: {artefacts.find_set(run, artefacts.FINAL)} is there")
        return artefacts.read_set(run, artefacts.FINAL).synthetic
    checkpoints = loop.Checkpoints(run.workspace.distill, run.workspace.warn)
    found = checkpoints.restore(_abstract_state(run, method))
    if found is None or not artefacts.find_set(run, artefacts.INITIAL).exists():
        synthetic = method.start()
        warn_of_unknown(run, synthetic, method.labels)
        artefacts.write_set(run, synthetic, method.labels, artefacts.INITIAL, method.partition)
    if found is None:
        state = method.init(prng.stream_key(run.config.seed, "distill"), synthetic)
        found = state, {"window": {}}, 0
    state, record, done = found
    window = _Window(**record["window"])
    run.workspace.metrics.truncate_after("distill", done)
    if done < method.num_iterations:
        with run.workspace.events.record("distill", done):
            if done == 0:
                live.show_set(run, method, state, 0)
            state = _optimise(run, method, checkpoints, state, window, done)
    synthetic = method.result(state)
    artefacts.write_set(run, synthetic, method.labels, artefacts.FINAL, method.partition)
    return synthetic


def _is_finished(run):
    """Whether the first set and the result are there and whole.

    A set without iterations has no checkpoint. Chosen again on other cores, whose last digits
    differ, it may be another one, and everything that was evaluated would be lost.
    """
    names = artefacts.INITIAL, artefacts.FINAL
    paths = [artefacts.find_set(run, name) for name in names]
    if not all(path.exists() for path in (*paths, run.workspace.synthetic / artefacts.GRID)):
        return False
    try:
        for name in names:
            artefacts.read_set(run, name)
    except UserError as error:
        if isinstance(error.__cause__, files.DamagedFileError):
            return False
        raise
    return True


def warn_of_unknown(run: Run, synthetic: SyntheticSet, labels: np.ndarray) -> None:
    """Names the classes about which the labels of the first set say nothing.

    Args:
      run: data with the names of classes, and where warnings go.
      synthetic: the set before the first iteration.
      labels: int32 [S], the class that each of its rows stands for.
    """
    empty = ~np.asarray(synthetic.label_logits).any(axis=1)
    unknown = sorted(set(labels.tolist()) - set(labels[~empty].tolist()))
    if unknown:
        names = ", ".join(run.problem.train.class_names[k] for k in unknown)
        run.workspace.warn(
            f"no expert gets an image of {names} right: the synthetic images of such a class begin "
            "with uniform labels, some as noise; experts that are trained for longer mend that"
        )


def _optimise(run, method, checkpoints, state, window, done):
    runtime, total = run.config.runtime, method.num_iterations
    wanted = runtime.iterations_per_call or mesh.choose_iterations_per_call(runtime.log_steps)
    block = min(wanted, total)
    devices = _make_mesh(run)
    run_block = jax.jit(functools.partial(_run_block, method.step), donate_argnums=0)
    state = mesh.place(state, devices, split=False)
    constants = mesh.place(streamed.for_programs(dict(method.constants())), devices, split=False)
    cadence = loop.Cadence(runtime, runtime.checkpoint_steps, done)
    keep = run.config.distill.keep_steps
    with (
        _Reader(method, block) as reader,
        checkpoint.Writer() as writer,
        progress(total, initial=done, desc="distill", unit="iteration") as show,
    ):
        reader.prefetch(done)

        def advance(done):
            nonlocal state
            count = min(block, total - done)
            inputs = mesh.place(reader.take(done), devices, split=False)
            state, metrics = run_block(state, inputs, np.arange(block) < count, constants)
            if done + count < total:
                reader.prefetch(done + count)
            metrics = jax.tree.map(lambda x: np.asarray(x)[:count], metrics)
            for offset in range(count):
                values = {name: float(x[offset]) for name, x in metrics.items()}
                _note(run, method, window, done + offset + 1, values, cadence.saved)
            show(count, loss=float(metrics["loss"][-1]))
            done, before = done + count, done
            is_kept = keep > 0 and done // keep > before // keep
            if is_kept and done < total:
                name = artefacts.name_kept(done)
                kept = method.result(state)
                artefacts.write_set(run, kept, method.labels, name, method.partition)
            if is_kept or done == total:  # before the checkpoint: what follows it is not repeated
                live.show_set(run, method, state, done)
            return count

        def save(done):
            if not health.is_finite(state):
                what = "the synthetic set has values that are not finite"
                raise _went_wrong(method, done, what, cadence.saved)
            checkpoints.save(writer, state, done, {"window": dataclasses.asdict(window)})

        loop.run_loop(
            run.stop, writer, cadence, done=done, total=total, advance=advance, save=save,
            save_last=True,
        )  # fmt: skip
    return state


def _run_block(step, state, inputs, active, constants):
    return steps.repeat_step(functools.partial(step, **constants))(state, inputs, active)


def _note(run, method, window, step, values, saved):
    """Checks the numbers of one iteration and writes a log line when one is due."""
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    bad += [name for name, limit in method.limits.items() if abs(values[name]) > limit]
    if bad:
        raise _went_wrong(method, step, f"{bad[0]} is {values[bad[0]]:g}", saved)
    window.add(values)
    if step % run.config.runtime.log_steps == 0 or step == method.num_iterations:
        means = window.pop_means()
        run.workspace.metrics.write("distill", step, means)
        run.workspace.events.write("distill", step, scalars=means)


def _abstract_state(run, method):
    """The shapes of the state, in which a checkpoint is read."""
    problem, rows = run.problem, len(method.labels)
    synthetic = SyntheticSet(
        images=jax.ShapeDtypeStruct((rows, *problem.image_shape), jnp.float32),
        label_logits=jax.ShapeDtypeStruct((rows, problem.num_classes), jnp.float32),
        step_size=jax.ShapeDtypeStruct((), jnp.float32),
    )
    return jax.eval_shape(method.init, jax.random.key(0), synthetic)


def _went_wrong(method, step, what, saved):
    return UserError(
        f"distillation went wrong at iteration {step}: {what}; {method.remedy} (with --set=NAME "
        "or another --workdir, since the settings change)"
        + (f"; iteration {saved} is the last that was saved" if saved else "")
    )
