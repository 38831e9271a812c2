"""python -m ltdd_jax.export DIR --format=png|huggingface|torch|tfds|webdataset --out=FOLDER"""

import argparse
import sys
from collections.abc import Sequence

from ltdd_jax import export
from ltdd_jax.dataset import load_dataset
from ltdd_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ltdd_jax.export",
        description="Write a distilled set for other libraries, which read it without ltdd_jax.",
    )
    parser.add_argument("directory", metavar="DIR", help="the --workdir of a run")
    parser.add_argument("--format", required=True, choices=export.FORMATS)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="new or empty folder")
    parser.add_argument("--set", default="", metavar="NAME", help="the --set of the run")
    args = parser.parse_args(argv)
    try:
        dataset = load_dataset(args.directory, args.set)
        folder = export.export_dataset(dataset, args.format, args.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(
        f"{len(dataset.labels)} images of {dataset.num_classes} classes are in {folder}; its "
        "README.md says how to load them"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
