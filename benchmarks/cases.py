"""What the benchmarks share: the network, configs by path, common options."""

import argparse
import importlib.util
import pathlib

import timing
from ml_collections import ConfigDict

from ltdd_jax import nets

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"


def make_network(*, width: int, form: str, dtype: str) -> nets.Network:
    """The ConvNet of depth 3 for 10 classes of 32x32x3."""
    return nets.build(
        "convnet",
        image_shape=(32, 32, 3),
        num_classes=10,
        width=width,
        depth=3,
        form=form,
        dtype=dtype,
    )


def load_config(name: str, argument: str) -> ConfigDict:
    """The config of `configs/NAME.py:ARGUMENT`."""
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options that all measurements of a network have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--form", default="auto")
    parser.add_argument("--precision", default="float32", choices=timing.PRECISIONS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    return parser
