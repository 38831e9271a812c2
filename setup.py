"""Packaging of ltdd_jax; tool settings are in pyproject.toml."""

import pathlib
import re

import setuptools

_ROOT = pathlib.Path(__file__).parent
_INIT = (_ROOT / "ltdd_jax" / "__init__.py").read_text(encoding="utf-8")

setuptools.setup(
    name="ltdd_jax",
    version=re.search(r'^__version__ = "(.+)"$', _INIT, re.MULTILINE)[1],
    description="Long-tailed dataset distillation in JAX and Flax",
    long_description=(_ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[
        *setuptools.find_packages(include=["ltdd_jax", "ltdd_jax.*"]),
        "ltdd_jax.configs",
        "ltdd_jax.configs.tables",
    ],
    package_dir={"ltdd_jax.configs": "configs", "ltdd_jax.configs.tables": "configs/tables"},
    package_data={"ltdd_jax": ["py.typed"]},
    entry_points={
        "console_scripts": ["ltdd=ltdd_jax.main:run", "ltdd-table=ltdd_jax.table.__main__:run"]
    },
    install_requires=[
        "absl-py>=2.1",
        "array_record>=0.8",
        "chex>=0.1.92",
        "etils[epath]>=1.15",
        "flax>=0.12.8",
        "fsspec>=2024.6",
        "importlib_resources>=6",  # tensorflow-datasets imports it undeclared
        "jax>=0.10.2,<0.12",
        "matplotlib>=3.9",  # the charts of report.html
        "ml-collections>=1.1",
        "numpy>=2",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "pillow>=11",
        "psutil>=5.9",
        "requests>=2.31",
        "scikit-learn>=1.5",  # the digits data set
        "scipy>=1.14",
        "tensorflow-datasets>=4.9.10",
        "tqdm>=4.66",
    ],
    extras_require={
        "test": [
            "hypothesis>=6.100",
            "mypy>=1.18",
            "pytest>=8.2",
            "pytest-xdist>=3.6",
            "ruff>=0.14",
            "tensorboard>=2.18",  # reads the event files
            "tensorboardX>=2.6.2",
        ],
        "tensorboard": ["tensorboardX>=2.6.2"],
        "notebooks": ["ipykernel>=6.29", "jupytext>=1.16", "nbconvert>=7.16"],
        "export": ["pyarrow>=17"],  # of --format=huggingface; --format=torch needs PyTorch
        # What reads the exports: tests/export skips those that are not there.
        "export-test": [
            "datasets>=4",
            "pyarrow>=17",
            "torch>=2.6",
            "torchvision>=0.21",
            "webdataset>=1",
        ],
        "docs": ["mkdocs-material>=9.6", "mkdocstrings[python]>=0.30"],
        "gcs": ["gcsfs>=2024.6"],
        "s3": ["s3fs>=2024.6"],
        "cuda": ["jax[cuda12]>=0.10.2,<0.12"],
        "tpu": ["jax[tpu]>=0.10.2,<0.12"],
    },
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
