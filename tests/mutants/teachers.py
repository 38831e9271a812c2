"""Networks with statistics, and teachers."""

from tests.mutants import of_file

_PIPELINE = "tests/pipeline/test_teachers.py"

MUTANTS = [
    *of_file(
        "ltdd_jax/nets/layers.py", "tests/nets/test_batch_norm.py",
        ("teacher: batch norm forgets at once", "momentum: float = 0.1", "momentum: float = 0.9",
         "test_a_training_step_of_the_layer_by_hand"),
        ("teacher: running variance is biased", "count / jnp.maximum(count - 1, 1)",
         "count / jnp.maximum(count, 1)", "test_a_training_step_of_the_layer_by_hand"),
    ),
    *of_file(
        "ltdd_jax/nets/__init__.py", "tests/nets/test_batch_norm.py",
        ("teacher: padding in the statistics", 'kwargs = {**kwargs, "weights": weights}',
         "kwargs = dict(kwargs)", "test_padding_rows_count_for_nothing"),
        ("teacher: outputs are observed", "kind, args[0])", "kind, call(*args, **kwargs))",
         "test_observed_are_the_true_inputs"),
    ),
    *of_file(
        "ltdd_jax/nets/resnet.py", "tests/nets/test_batch_norm.py",
        ("teacher: shortcuts with parameters", "plain_shortcut=True", "plain_shortcut=False",
         "test_number_of_parameters[resnet32_bn-options4-7386186]"),
    ),
    *of_file(
        "ltdd_jax/evaluate/train.py", "tests/nets/test_batch_norm.py",
        ("teacher: evaluation leaves statistics", "logits, params = network.train(params, images,"
         " weights)", "logits = network.apply(params, images)",
         "test_evaluation_trains_them_without_decay"),
    ),
    *of_file(
        "ltdd_jax/training.py", "tests/teachers/test_train.py",
        ("teacher: momentum of Nesterov is heavy-ball", "optax.trace(momentum, nesterov)",
         "optax.trace(momentum)", "test_nesterov_steps_ahead"),
    ),
    *of_file(
        "ltdd_jax/data/augment.py", "tests/data/test_augment.py",
        ("teacher: digits are mirrored", "flip(images, numbers.flip) if mirror else images",
         "flip(images, numbers.flip)", "test_crop_and_flip_shift_and_mirror_if_allowed"),
    ),
    *of_file(
        "ltdd_jax/teachers/balance.py", "tests/teachers/test_balance.py",
        ("teacher: frequent classes weigh most", "** -power", "** power",
         "test_class_weights_by_hand"),
        ("teacher: class weights sum to one", "(len(inverse) * inverse / inverse.sum())",
         "(inverse / inverse.sum())", "test_class_weights_by_hand"),
        ("teacher: logits shifted the other way", "tau * np.log(counts / counts.sum())",
         "-tau * np.log(counts / counts.sum())",
         "test_the_adjusted_minimiser_knows_no_prior[logit_adjusted]"),
        ("teacher: images instead of classes are drawn", "np.float64) ** power",
         "np.float64) ** (power + 1)", "test_rows_are_drawn_by_the_power_of_the_count[0.8]"),
        ("teacher: all rows of the first class", "return first[label] + within", "return within",
         "test_rows_are_drawn_by_the_power_of_the_count[0.8]"),
    ),
    *of_file(
        "ltdd_jax/teachers/glmc.py", "tests/teachers/test_glmc.py",
        ("teacher: heads learn in the wrong order", "(1 - progress) * plain + progress * balanced",
         "progress * plain + (1 - progress) * balanced",
         "test_the_heads_learn_one_after_the_other"),
        ("teacher: both views are aimed", "jax.lax.stop_gradient(projections)", "projections * 1",
         "test_what_is_aimed_at_gets_no_gradient"),
        ("teacher: patch of the wrong picture", "crops.mix_patches(*second, patch)",
         "crops.mix_patches(*second[::-1], patch)", "test_views_are_mixed_as_published"),
        ("teacher: no class weights", "weighted = target * class_weights[None]",
         "weighted = target", "test_loss_by_hand[0.3]"),
        ("teacher: views share their augmentation", "zip(keys[3:5]", "zip(keys[1:3]",
         "test_every_view_of_every_picture_has_its_own_augmentation"),
    ),
    *of_file(
        "ltdd_jax/teachers/train.py", "tests/teachers/test_train.py",
        ("teacher: classifier moves over too early", "jnp.square(epoch / recipe.num_epochs)",
         "(epoch / recipe.num_epochs)", "test_progress_is_the_square_of_the_share_of_epochs"),
        ("teacher: rate never falls", "jnp.asarray(rates)[epoch]", "jnp.asarray(rates)[0]",
         "test_a_step_by_hand"),
        ("teacher: short batches are used", "lambda x: x[:whole]", "lambda x: x",
         "test_an_epoch_depends_on_its_number_and_state_alone[glmc]"),
        ("teacher: heads are kept", "return glmc.drop_heads(state.params)", "return state.params",
         "test_an_epoch_depends_on_its_number_and_state_alone[glmc]"),
    ),
    *of_file(
        "ltdd_jax/pipeline/teachers.py", _PIPELINE,
        ("teacher: stream of the observers", "prng.stream_key(run.config.seed, member.kind)",
         'prng.stream_key(run.config.seed, "observer")', "test_the_last_epoch_is_handed_on"),
        ("teacher: every epoch is the first", "np.int32(done)", "np.int32(0)",
         "test_the_last_epoch_is_handed_on"),
        ("teacher: losses are lost on the way", 'losses = list(record["losses"])', "losses = []",
         "test_a_stopped_training_goes_on_bit_by_bit"),
        ("teacher: of another rate is taken", '"resnet_width", "depth"):',
         '"resnet_width", "depth", "learning_rate"):',
         "test_what_makes_a_teacher_another_one[fields2-False]"),
        ("teacher: trained again for another evaluation", '"runtime.precision", self.kind]',
         '"runtime.precision", self.kind, "evaluation"]',
         "test_what_makes_a_teacher_another_one[fields1-True]"),
    ),
    *of_file(
        "ltdd_jax/pipeline/distill.py", _PIPELINE,
        ("teacher: sets forget their teachers", "    if method.teachers:\n", "    if False:\n",
         "test_a_method_is_given_the_kind_that_it_asks_for"),
    ),
]  # fmt: skip
