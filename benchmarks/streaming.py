"""Peak memory of training on a folder that is not read into memory.

    python benchmarks/streaming.py --directory=DIR [--pictures=100000] [--memory=stream]

Makes a folder of random pictures of 64 x 64 pixels (once, in DIR), then runs the stage `experts` of
the real program on it in a process of its own: one representation expert for one epoch. Prints the
peak of that process's resident memory (`ru_maxrss`), of which the same program on a few pictures is
what the libraries take, and the wall time. With `--memory=load` it shows what the set in memory
takes.
"""

import argparse
import json
import multiprocessing
import pathlib
import resource
import time

import numpy as np
from PIL import Image

_CLASSES, _TEST, _SIDE = 100, 1000, 64


def make_pictures(top: pathlib.Path, count: int) -> pathlib.Path:
    """The folder, made if it is not there: few colours and lines, as quick to decode as photos."""
    done = top / f"done_{count}"
    if done.exists():
        return top / f"pictures_{count}"
    generator = np.random.default_rng(0)
    for split, number in (("train", count), ("test", _TEST)):
        for index in range(number):
            folder = top / f"pictures_{count}" / split / f"class_{index % _CLASSES:03d}"
            if index < _CLASSES:
                folder.mkdir(parents=True, exist_ok=True)
            small = generator.integers(0, 256, (8, 8, 3), np.uint8)
            picture = Image.fromarray(small).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
            picture.save(folder / f"{index:06d}.jpg", quality=85)
    done.touch()
    return top / f"pictures_{count}"


def train(pictures: str, workdir: str, memory: str, cache: str, pipe) -> None:
    """Runs the stage and sends the seconds and the peak in bytes."""
    from ltdd_jax import pipeline
    from ltdd_jax.config import base_config

    config = base_config()
    config.name = "streaming"
    config.data.source, config.data.path, config.data.subset = "folder", pictures, "as_is"
    config.data.memory, config.data.cache = memory, cache
    config.data.whiten, config.data.normalize = "off", True
    config.net.name, config.augment.strategy = "mlp", ""  # quick: what is measured is memory
    config.experts.num_experts = 1
    config.experts.representation.num_epochs = 1
    config.distill.ipc = 1
    config.update_from_flattened_dict(
        {
            "trajectory.expert_epochs": 1,
            "trajectory.representation.min_start_epoch": 0,
            "trajectory.representation.max_start_epoch": 1,
            "trajectory.classifier.loss_weight": 0.0,
            "trajectory.label_experts": "representation",
            "trajectory.representation.matched": "all",
        }
    )
    start = time.monotonic()
    pipeline.run(config, workdir, "experts")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pipe.send((time.monotonic() - start, peak))


def measure(pictures: pathlib.Path, top: pathlib.Path, memory: str) -> tuple[float, float]:
    """Seconds and peak bytes of a fresh process."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    workdir = top / f"run_{pictures.name}_{memory}_{time.time_ns()}"
    arguments = (str(pictures), str(workdir), memory, str(top / "cache"), send)
    process = context.Process(target=train, args=arguments)
    process.start()
    send.close()
    found = receive.recv()
    process.join()
    return found


def main() -> None:
    """Prints one line of JSON for each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", required=True, help="for pictures, cache and runs")
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--memory", default="stream", choices=("stream", "load"))
    options = parser.parse_args()
    top = pathlib.Path(options.directory)
    for count in (2 * _CLASSES, options.pictures):
        pictures = make_pictures(top, count)
        seconds, peak = measure(pictures, top, options.memory)
        print(
            json.dumps(
                {
                    "pictures": count,
                    "memory": options.memory,
                    "pixels_MB": round(count * _SIDE * _SIDE * 3 / 1e6, 1),
                    "peak_MB": round(peak / 1e6, 1),
                    "seconds": round(seconds, 1),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
