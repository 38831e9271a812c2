"""Rows of block (i) on other networks and with another optimiser: whom else does the set serve?

Nothing is tuned for them: a network takes the rates that were learned with, or chosen for, the
network of the config (method section "Evaluation"), and Adam the one rate of the config.
"""

import dataclasses
from collections.abc import Sequence

from ml_collections import ConfigDict

from ltdd_jax.data.sources import ImageSet
from ltdd_jax.pipeline import problem
from ltdd_jax.pipeline.rows import Row
from ltdd_jax.pipeline.run import Run

MARK = "@"  # between the name of a row and that of the network and protocol
_TRANSFERRED = ("distilled", "random_real")
_SGD = "sgd"


def list_ways(config: ConfigDict) -> list[tuple[str, str]]:
    """(network, protocol) of every further training; "" is the network of the config."""
    settings, own = config.evaluation, config.net.name
    names = [name for name in settings.networks.split(",") if name]
    names = ["", *(name for name in names if name != own)] if own in names or not names else names
    ways = [(name, protocol) for name in names for protocol in settings.protocols.split(",")]
    return [way for way in ways if way != ("", _SGD)]  # that is what the other rows are


def check_networks(config: ConfigDict, train: ImageSet) -> None:
    """Raises UserError where a network does not fit the images, before anything is computed."""
    for name in dict.fromkeys(name for name, _ in list_ways(config) if name):
        problem.make_network(config, train, name)


def make_rows(run: Run, rows: Sequence[Row]) -> list[Row]:
    """The distilled set and random real images once more, for every way of `list_ways`.

    Args:
      run: its section `evaluation` names networks and protocols.
      rows: of block (i).
    """
    chosen = [row for name in _TRANSFERRED for row in rows if row.name == name]
    return [_transfer(run, row, *way) for way in list_ways(run.config) for row in chosen]


def _transfer(run, row, network, protocol):
    words = [network or run.config.net.name]
    words += [] if protocol == _SGD else [protocol]
    rate, rate_of = row.rate, "" if row.rate is not None else row.name
    rate_field = row.rate_field
    if protocol != _SGD:
        rate, rate_of = run.config.evaluation.adam_rate, ""
        rate_field = "evaluation.adam_rate"
    return dataclasses.replace(
        row,
        name=f"{row.name}{MARK}{'_'.join(words)}",
        title=f"{row.title}, {' with '.join(words)}",
        network=network,
        protocol=protocol,
        rate=rate,
        rate_of=rate_of,
        rate_field=rate_field,
        load_kept=None,
    )
