"""Accuracies that the literature prints for long-tailed data sets, with their citations.

Top-1 accuracy in percent on the balanced test set, mean ± std, typed from the papers' tables. A
method that was evaluated by hard or soft labels, another network's labels or other augmentation
stands here beside the others as it does in print; what was compared is for the reader to judge.
"""

import dataclasses
from collections.abc import Iterator

DAMED = "Zhao et al., Distilling Long-tailed Datasets, CVPR 2025, arXiv 2408.14506"
RLDD = "Cui et al., Rethinking Long-tailed Dataset Distillation, AAAI 2026, arXiv 2511.18858"
ADSA = "ADSA, NeurIPS 2025, arXiv 2511.17914; own set-up, student and teachers not said"
NOT_SAID = "not said"
# How the program of a method's own paper prepares its images and trains the students, where that is
# another way than block (i) of this program. The tables of long-tailed data do not say it.
_NOT_WHITENED = "images not whitened"
_PROTOCOLS = {
    "dc": f"{_NOT_WHITENED}, students without augmentation",
    "idm": _NOT_WHITENED,
    "dream": f"{_NOT_WHITENED}, students in batches of 64, their rate times 0.2 at 2/3 and 5/6, "
    "colour and flip always with one of crop, scale and rotation, CutMix for every other batch",
}
NUM_CLASSES = {"cifar10": 10, "cifar100": 100, "tiny_imagenet": 200, "imagenet": 1000}
_BEST = "best of 21 evaluations on the test set, one network each"  # the released program


@dataclasses.dataclass(frozen=True)
class Published:
    """One printed number.

    Attributes:
      data: data source, such as "cifar10"; all sets are long-tailed.
      imbalance_factor: largest over smallest class.
      ipc: images per class.
      method: name on the command line where this program has it.
      mean: top-1 accuracy, percent.
      std: as printed; None where none is.
      source: the paper whose table it stands in.
      selection: how the evaluated iterate was chosen.
      protocol: of the students, in the program of the method's own paper, where it is another than
        that of block (i); "" where it is the same or belongs to block (ii).
      student: network that was trained on the set, or `NOT_SAID`; where it is another than the
        ConvNet, the set was distilled with that.
    """

    data: str
    imbalance_factor: int
    ipc: int
    method: str
    mean: float
    std: float | None
    source: str
    selection: str
    student: str
    protocol: str = ""


# Each table: data source, student, (imbalance factor, images per class) of the columns, and for
# each paper its rows. The second paper takes the rows of the first from it.
_TABLES = (
    (
        "cifar10",
        ("convnet",),
        tuple((factor, ipc) for factor in (10, 50, 100) for ipc in (10, 20, 50)),
        {
            DAMED: """
random    32.5±2.2 39.6±0.9 51.9±1.5 33.2±0.4 42.0±1.3 51.6±1.3 34.4±2.0 41.4±0.7 52.6±0.5
k_center  21.9±0.8 24.2±0.8 31.7±0.9 17.8±0.2 20.8±0.5 26.1±0.2 16.2±0.5 19.0±1.0 24.2±1.2
graph_cut 28.7±0.9 34.2±1.0 40.6±1.0 24.2±0.7 28.6±0.8 33.9±0.4 22.9±0.9 26.0±0.5 33.3±1.0
dc        37.9±0.9 38.5±0.9 37.4±1.4 37.3±0.9 38.8±1.0 35.8±1.2 36.7±0.8 38.1±1.0 35.3±1.4
mtt       58.0±0.8 59.5±0.4 62.0±0.9 45.8±1.4 49.9±0.8 53.6±0.5 37.7±0.6 41.6±1.1 47.8±1.1
dream     34.6±0.6 42.2±1.5 50.5±0.7 30.8±0.6 38.4±0.3 45.5±0.9 30.8±1.7 34.9±0.8 42.2±0.8
idm       54.8±0.4 57.1±0.3 60.1±0.3 51.9±0.7 53.3±0.6 56.1±0.4 49.8±0.6 50.9±0.5 53.1±0.4
datm      57.2±0.4 60.4±0.2 66.7±0.6 41.6±0.2 43.4±0.3 50.3±0.2 37.3±0.2 38.9±0.1 44.3±0.1
dam_ed    58.1±0.3 63.0±1.0 70.5±0.4 54.2±1.0 59.4±0.7 65.8±0.2 53.4±0.1 58.2±0.6 64.0±0.9
""",
            RLDD: """
minimax   29.2±0.5 28.5±0.6 39.9±0.1 18.4±0.3 22.5±0.2 25.2±0.2 19.9±0.4 23.3±0.2 28.0±0.6
rded      46.2±0.2 55.5±0.3 62.0±0.3 43.3±0.3 46.1±0.3 53.2±0.3 41.2±0.3 45.3±0.2 49.9±0.3
edc       56.4±0.2 62.7±0.3 68.5±0.1 55.2±0.2 60.2±0.2 64.1±0.3 53.2±0.5 57.4±0.3 60.5±0.4
rldd      63.6±0.5 68.3±0.2 74.1±0.2 62.9±0.2 67.3±0.3 70.6±0.1 62.7±0.1 66.4±0.2 68.8±0.4
""",
        },
    ),
    (
        "cifar10",
        ("convnet",),
        ((200, 50),),
        {DAMED: "random 49.9\nmtt 23.9\ndatm 40.1\ndam_ed 62.3"},
    ),
    # The ablation of the first paper; its other two rows stand above.
    ("cifar10", ("convnet",), ((100, 50),), {DAMED: "ed 54.8\ndam 57.1"}),
    (
        "cifar10",
        ("convnet",),
        ((100, 1),),
        {RLDD: "cafe 15.2\ndream 15.3\ndatm 20.4\nrded 21.8\ndam_ed 24.1\nrldd 44.8"},
    ),
    (
        "cifar10",
        (NOT_SAID,),
        ((100, 10), (50, 50), (100, 50)),
        {ADSA: "edc 50.9 65.6 56.0\nedc_adsa 68.7 76.4 74.8"},
    ),
    (
        "cifar10",
        ("vgg11", "resnet18", "alexnet"),
        ((100, 10),),
        {
            DAMED: "mtt 27.4 29.6 26.3\ndatm 34.4 35.1 36.8\ndam_ed 29.7 43.6 37.9",
            RLDD: "rded 41.6 37.5 28.2\nrldd 64.6 58.7 56.5",
        },
    ),
    (
        "cifar100",
        ("convnet",),
        tuple((factor, ipc) for factor in (10, 20, 50) for ipc in (10, 20, 50)),
        {
            DAMED: """
random    14.2±0.6 21.7±0.6 32.1±0.6 15.0±0.3 21.6±0.5 30.5±0.5 13.4±0.5 20.6±0.6 26.9±0.5
k_center  10.7±0.9 15.9±1.0 24.8±0.2 10.0±0.5 15.1±0.6 23.8±0.3 8.7±0.6  12.4±0.6 19.8±0.5
graph_cut 16.9±0.3 22.2±0.4 29.9±0.4 16.0±0.5 20.7±0.5 28.7±0.3 13.1±0.5 17.2±0.6 24.8±0.5
dc        24.0±0.3 27.4±0.3 27.4±0.3 23.2±0.3 26.2±0.3 27.4±0.3 19.8±0.4 22.7±0.4 25.9±0.3
mtt       14.3±0.1 16.7±0.2 13.8±0.2 12.6±0.3 15.0±0.2 10.6±0.5 8.2±0.5  11.2±0.5 6.3±0.5
datm      28.2±0.4 34.1±0.2 31.6±0.1 25.3±0.3 27.2±0.1 27.1±0.1 22.2±0.4 19.8±0.4 22.9±0.4
dam_ed    31.5±0.2 37.5±0.4 40.0±0.1 31.4±0.5 35.1±0.4 37.0±0.7 29.8±0.3 31.9±0.5 33.2±0.5
""",
            RLDD: """
edc       31.5±0.3 36.6±0.1 38.5±0.2 32.7±0.3 34.2±0.2 -        30.2±0.2 -        -
rldd      47.1±0.1 48.8±0.1 49.9±0.3 45.5±0.4 46.9±0.2 48.1±0.2 42.1±0.1 43.4±0.2 44.2±0.1
""",
        },
    ),
    (
        "tiny_imagenet",
        ("convnet",),
        tuple((factor, ipc) for factor in (10, 20, 100) for ipc in (10, 20)),
        {
            DAMED: """
random    7.4±0.2  13.5±0.4 7.6±0.1  13.2±0.4 -        -
mtt       11.1±0.2 18.1±0.2 7.7±0.1  14.7±0.2 5.6±0.2  7.7±0.3
datm      21.3±0.1 14.5±0.1 14.0±0.6 19.0±0.3 10.1±0.3 11.9±0.1
dam_ed    26.0±0.3 27.9±0.2 23.6±0.3 25.5±0.3 17.1±0.8 18.0±0.5
""",
            RLDD: "rldd 37.8±0.4 38.9±0.2 36.1±0.1 37.0±0.1 28.5±0.2 29.8±0.1",
        },
    ),
    (
        "imagenet",
        ("convnet",),
        tuple((factor, ipc) for factor in (5, 10) for ipc in (10, 20)),
        {
            DAMED: """
random    3.9±0.1  7.0±0.1  3.9±0.1  6.8±0.1
tesla     3.0±0.1  -        2.7±0.1  -
datm      7.4±0.1  8.1±0.2  7.9±0.1  8.2±0.1
sre2l     6.7±0.1  10.1±0.1 7.7±0.3  10.9±1.0
dam_ed    20.8±0.2 21.0±0.1 20.3±0.1 20.7±0.1
""",
            RLDD: "rldd 24.7±0.4 25.0±0.3 23.5±0.2 24.1±0.4",
        },
    ),
)


def _read_tables() -> Iterator[Published]:
    for data, students, cells, papers in _TABLES:
        columns = [(*cell, student) for cell in cells for student in students]
        for source, rows in papers.items():
            for line in rows.strip().splitlines():
                method, *numbers = line.split()
                for (factor, ipc, student), number in zip(columns, numbers, strict=True):
                    mean, _, std = number.partition("±")
                    if mean != "-":
                        yield Published(
                            data=data,
                            imbalance_factor=factor,
                            ipc=ipc,
                            method=method,
                            mean=float(mean),
                            std=float(std) if std else None,
                            source=source,
                            selection=_BEST if method in ("dam_ed", "dam", "ed") else NOT_SAID,
                            student=student,
                            protocol=_PROTOCOLS.get(method, ""),
                        )


PUBLISHED: tuple[Published, ...] = tuple(_read_tables())


def find(
    data: str,
    imbalance_factor: float,
    ipc: int,
    method: str,
    student: str = "convnet",
    *,
    num_classes: int | None = None,
) -> Published | None:
    """The printed number of a cell, or None; the first where two papers print one.

    Args:
      data: as the other four, a field of `Published`.
      num_classes: of the set at hand; a part of the classes is another, easier set.
    """
    if num_classes not in (None, NUM_CLASSES.get(data)):
        return None
    wanted = (data, imbalance_factor, ipc, method, student)
    return next(
        (p for p in PUBLISHED
         if (p.data, p.imbalance_factor, p.ipc, p.method, p.student) == wanted),
        None,
    )  # fmt: skip


def cells(data: str) -> tuple[tuple[int, int], ...]:
    """(imbalance factor, images per class) for which a data set has any number, in order."""
    return tuple(sorted({(p.imbalance_factor, p.ipc) for p in PUBLISHED if p.data == data}))
