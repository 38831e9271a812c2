"""Settings of the families of methods, a section each; part of the table in `fields`."""

from ltdd_jax.rules import FREE, MOMENTUM, POSITIVE, Field, at_least, one_of, within

_START = (
    "Start epochs are drawn from [min_start_epoch, upper), upper at most max_start_epoch. With "
    "sequential, upper grows linearly from current_start_epoch to max_start_epoch over "
    "expansion_end iterations; without, it is max_start_epoch."
)


def _phase(steps, current, maximum, weight, matched, weighted) -> dict[str, Field]:
    return {
        "student_steps": Field(
            steps, at_least(1), "Student steps per iteration (paper: 80 CIFAR-10, 40 CIFAR-100)."
        ),
        "step_size_factor": Field(
            1.0,
            POSITIVE,
            "Times the learned step size, the learning rate of this phase's student (ours; paper: "
            "1). The set is evaluated with the step size itself.",
        ),
        "min_start_epoch": Field(0, at_least(0), _START),
        "current_start_epoch": Field(current, at_least(0), "See min_start_epoch."),
        "max_start_epoch": Field(maximum, at_least(1), "See min_start_epoch."),
        "sequential": Field(False, FREE, "See min_start_epoch."),
        "expansion_end": Field(1000, at_least(1), "See min_start_epoch."),
        "loss_weight": Field(
            weight, at_least(0), "Weight of this phase's gradient; 0 leaves the phase out."
        ),
        "matched": Field(
            matched,
            one_of("all", "backbone", "classifier"),
            "Parameters whose distance from the expert is measured.",
        ),
        "class_weighted": Field(
            weighted,
            FREE,
            "Weight the student's loss by the class frequencies of the real data "
            "(distribution-agnostic matching).",
        ),
    }


TRAJECTORY = {
    "num_iterations": Field(
        10001,
        at_least(1),
        "Outer iterations (paper: 0 to 10 000 inclusive). All of them are in the set that is "
        "evaluated; the released program evaluates before the last one, after 10 000.",
    ),
    "gradient": Field(
        "exact",
        one_of("exact", "two_pass", "autodiff"),
        "Gradient through the student's steps: exact (stored parameters and adjoint), two_pass "
        "(the paper's constant-memory approximation) or autodiff (exact, large memory, for tests).",
    ),
    "expert_epochs": Field(2, at_least(1), "Epochs between start and target snapshot (paper: 2)."),
    "batch_size": Field(
        500,
        at_least(1),
        "Synthetic images per student step, or pictures where images hold several; more than there "
        "are means all of them (paper: 500).",
    ),
    "partition": Field(
        1,
        within(1, 8),
        "f: each image holds f x f pictures, which students see enlarged, each with the label of "
        "its image (paper: 1).",
    ),
    "initial_images": Field(
        "correct",
        one_of("correct", "real", "noise"),
        "correct: real images that an expert gets right; real: any; noise.",
    ),
    "scanned_experts": Field(
        "first",
        one_of("first", "all"),
        "Experts that may choose correct images. first: the first one, and a class of which it "
        "knows nothing begins as noise with uniform labels (paper); all: one after the other until "
        "there are enough, and a class that none knows as real images with hard labels (DATM).",
    ),
    "labels": Field(
        "soft",
        one_of("soft", "hard", "target"),
        "soft: label logits of experts, learned; hard: the class, fixed; target: the prediction "
        "of the target snapshot, renewed in each iteration (TESLA's option).",
    ),
    "label_experts": Field(
        "classifier",
        one_of("representation", "classifier"),
        "Kind of experts that choose the first images and give their labels.",
    ),
    "initial_step_size": Field(
        0.01, POSITIVE, "Student's learning rate at the start; it is learned (paper: 0.01)."
    ),
    "optimizer": Field(
        "sgd",
        one_of("sgd", "adam"),
        "Of images, labels and step size (paper: sgd). adam takes the momenta as the decay of its "
        "first moments and needs rates of its own, such as 0.01, 0.03 and 1e-4.",
    ),
    "schedule": Field(
        "constant",
        one_of("constant", "cosine"),
        "Of the three rates (paper: constant); cosine lets them fall to 2 % at the last iteration.",
    ),
    "image_lr": Field(100.0, at_least(0), "Outer SGD, images (paper: 100 or 1000)."),
    "image_momentum": Field(0.5, MOMENTUM, "Outer SGD, images (paper: 0.5)."),
    "label_lr": Field(
        2.0, at_least(0), "Outer SGD, label logits (paper: 2 for 10 classes, 10 for more)."
    ),
    "label_momentum": Field(0.9, MOMENTUM, "Outer SGD, label logits (paper: 0.9)."),
    "step_size_lr": Field(
        1e-5, at_least(0), "Outer SGD, step size (paper: 1e-5); 0 keeps it fixed."
    ),
    "step_size_momentum": Field(0.5, MOMENTUM, "Outer SGD, step size (paper: 0.5)."),
    "image_ema": Field(
        0.0,
        MOMENTUM,
        "Decay of the running mean of the images, which is then the result (FTD: 0.9995); 0 is "
        "off.",
    ),
    "class_weight_offset": Field(
        0.0, at_least(0), "f in the class weights (N_c + f) / (N + f) (paper: 0)."
    ),
    "class_weight_scale": Field(
        "frequency",
        one_of("frequency", "mean_one"),
        "frequency: class weights as they are, which with f = 0 sum to 1, so that the student's "
        "steps are on average as many times shorter as there are classes (paper); mean_one: "
        "divided by their mean, for steps about as long as the experts'.",
    ),
    "skip_threshold": Field(
        0.0,
        at_least(0),
        "Skip updates whose matching loss is above it, DATM's rule; 0 is off (paper: off).",
    ),
    "num_shards": Field(
        1,
        at_least(1),
        "Students that share each batch as the released program's GPUs do, each on its own path; "
        "1 is one student on the whole batch.",
    ),
    "experts_per_file": Field(
        10, at_least(1), "Trajectories are used in shuffled blocks of this many (paper: 10)."
    ),
    "pairs_per_iteration": Field(
        1,
        at_least(1),
        "Expert pairs per phase and iteration, their gradients averaged (paper: 1); spread over "
        "the devices.",
    ),
    "representation": _phase(80, 10, 20, 1.0, "backbone", True),
    "classifier": _phase(80, 0, 1, 0.2, "classifier", False),
}

SELECTION = {
    "rule": Field(
        "random",
        one_of("random", "k_center", "herding", "graph_cut", "k_medoids"),
        "How real images are chosen in each class.",
    ),
    "embedding": Field(
        "expert",
        one_of("expert", "teacher"),
        "Network in whose features the rules other than random compare images: a representation "
        "expert, or the first of the section teacher, for which no expert is trained.",
    ),
    "labels": Field(
        "hard", one_of("hard", "soft"), "hard: the class; soft: mean logits of classifier experts."
    ),
    "budget": Field(
        "per_class",
        one_of("per_class", "proportional"),
        "per_class: ipc images of each class; proportional: as many in all, shared out like the "
        "training images.",
    ),
    "graph_cut_weight": Field(
        1.0, at_least(0), "Weight of the similarity to the whole class in the graph cut."
    ),
    "step_size": Field(0.01, POSITIVE, "Learning rate the set is evaluated with."),
}
