"""Labels after distillation, the students of a teacher, and the two blocks of the report."""

from tests.mutants import of_file

MUTANTS = [
    *of_file(
        "ltdd_jax/data/crops.py", "tests/data/test_crops.py",
        ("crops off by half a pixel", "length[:, None] - 0.5", "length[:, None]",
         "test_a_box_of_whole_pixels_is_cropped_then_resized"),
        ("cutmix side is the share", "share = jnp.sqrt(1 - kept)", "share = 1 - kept",
         "test_drawn_patches_leave_the_share_that_beta_says"),
    ),
    *of_file(
        "ltdd_jax/data/views.py", "tests/data/test_views.py",
        ("patch of the uncropped partner", "crop(draws.partners[rows]), patches",
         "images[draws.partners[rows]], patches",
         "test_view_is_cropped_mirrored_and_mixed_with_the_partners_crop[1.0]"),
    ),
    *of_file(
        "ltdd_jax/evaluate/calibration.py", "tests/evaluate/test_calibration.py",
        ("prior put into the labels", "(logits - tau * np.log(prior))",
         "(logits + tau * np.log(prior))", "test_prior_of_two_gaussians_is_taken_out"),
        ("tau of the scan alone", "return middle if spread(middle)",
         "return best if spread(middle)", "test_golden_section_goes_beyond_the_scan"),
    ),
    *of_file(
        "ltdd_jax/evaluate/ranking.py", "tests/evaluate/test_ranking.py",
        ("recovery rewarded", "improvement - (1 - weight) * recovery",
         "improvement + (1 - weight) * recovery", "test_score_at_the_ends_of_its_range"),
    ),
    *of_file(
        "ltdd_jax/losses.py", "tests/evaluate/test_student.py",
        ("temperature not squared", "temperature**2 * (jnp", "temperature * (jnp",
         "test_steps_are_those_written_out"),
    ),
    *of_file(
        "ltdd_jax/evaluate/student.py", "tests/evaluate/test_student.py",
        ("teacher asked on the clean image", "ask(teachers, teaching.params, images)",
         "ask(teachers, teaching.params, lesson.images[batch.indices])",
         "test_steps_are_those_written_out"),
        ("stored view of another epoch", "epoch % num_views", "(epoch + 1) % num_views",
         "test_stored_views_come_round_in_turn_with_their_labels"),
        ("average not tested", "return self.train.params if self.averaged is None else "
         "self.averaged", "return self.train.params",
         "test_predictions_are_of_the_average test_steps_are_those_written_out"),
    ),
    *of_file(
        "ltdd_jax/pipeline/rows.py", "tests/pipeline/test_rows.py",
        ("hard labels stay soft", "dataclasses.replace(synthetic, label_logits=hard)",
         "synthetic", "test_further_rows_change_labels_or_pixels_and_nothing_else"),
        ("rows without the rate that they take", "wanted |= {row.rate_of for",
         "wanted |= {row.name for",
         "test_rows_of_some_kinds_come_with_those_whose_rate_they_take"),
    ),
    *of_file(
        "ltdd_jax/pipeline/labels.py", "tests/pipeline/test_rows.py",
        ("points of a curve keep the labels of their method",
         "labelled[iteration] = read_labels(run, kept)[0]", "labelled[iteration] = kept",
         "test_random_real_images_get_labels_of_the_same_source"),
    ),
    *of_file(
        "ltdd_jax/pipeline/taught_rows.py", "tests/pipeline/test_rows.py",
        ("students are trained again for labels that they never read",
         "final = artefacts.read_set(run, artefacts.FINAL)", "final = labels_of.read_final(run)",
         "test_labels_alone_make_no_other_set_for_students_of_a_teacher"),
    ),
    *of_file(
        "ltdd_jax/pipeline/evaluate.py", "tests/pipeline/test_rates.py",
        ("rates are tried again to fill up", "width = min(settings.num_seeds, len(lanes))",
         "width = settings.num_seeds", "test_no_rate_of_the_whole_training_set_is_tried_twice"),
    ),
    *of_file(
        "ltdd_jax/pipeline/evaluate.py", "tests/pipeline/test_rows.py",
        ("block (ii) ranked against block (i)", '"ii_distilled": ("ii_random_real",)',
         '"ii_distilled": ("random_real",)',
         "test_distilled_rows_are_ranked_within_their_block"),
    ),
    *of_file(
        "ltdd_jax/report/blocks.py", "tests/report/test_blocks.py",
        ("blocks in one table", 'found.setdefault(row.get("block", "i"), {})',
         'found.setdefault("i", {})', "test_each_block_has_its_own_tables"),
    ),
    *of_file(
        "ltdd_jax/pipeline/labels.py", "tests/pipeline/test_labels.py",
        ("the first stage labels", 'EXPERT = "classifier"', 'EXPERT = "representation"',
         "test_experts_label_by_their_mean"),
        ("labels are not calibrated", "return shift(run, logits, find_tau(run, logits, labels))",
         "return logits", "test_teachers_label_the_images_and_nothing_is_distilled_again"),
        ("views of another key", "jax.random.key_data(key)), recipe",
         "jax.random.key_data(jax.random.fold_in(key, 1))), recipe",
         "test_views_are_labelled_by_what_the_teacher_says_of_the_very_views"),
    ),
    *of_file(
        "ltdd_jax/pipeline/taught_rows.py", "tests/pipeline/test_blocks.py",
        ("students without teachers' answers",
         "params = tuple(teacher.params for teacher in asked)",
         "params = tuple(jax.tree.map(np.zeros_like, teacher.params) for teacher in asked)",
         "test_students_believe_the_teacher_and_the_blocks_stay_apart"),
    ),
]  # fmt: skip
