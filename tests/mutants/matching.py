"""Methods without trajectories: gradients, distributions, queues, clusters, several pictures."""

from tests.mutants import of_file

_GRADIENT = "tests/distill/test_gradient_matching.py"
_DISTRIBUTION = "tests/distill/test_distribution_matching.py"
_IDM = "tests/distill/test_idm.py"
_CLUSTERS = "tests/distill/test_clusters.py"
_DREAM = "tests/distill/test_dream.py"
_BATCHES = "tests/distill/test_real_batches.py"
_MOSAIC = "tests/data/test_mosaic.py"

MUTANTS = [
    *of_file(
        "ltdd_jax/distill/gradient_distance.py", _GRADIENT,
        ("gradients of vectors count", "if x.ndim > 1)", "if x.ndim > 0)",
         "test_distance_equals_loops_over_rows_and_ignores_vectors"),
        ("gradient rows are inputs", "z.reshape(-1, z.shape[-1])", "z.reshape(z.shape[-1], -1)",
         "test_distance_equals_loops_over_rows_and_ignores_vectors"),
        ("classifier in DREAM's distance", "if x.ndim == 4)", "if x.ndim > 1)",
         f"{_DREAM}::test_distance_is_of_convolutions_alone"),
    ),
    *of_file(
        "ltdd_jax/distill/gradient_matching.py", _GRADIENT,
        ("DC trains after the last step", "place < outer - 1", "place < outer",
         "test_the_network_is_trained_on_the_new_images_between_two_steps"),
        ("DC trains on the images before", "train(keys[2], params, synthetic)",
         "train(keys[2], params, state.synthetic)",
         "test_the_network_is_trained_on_the_new_images_between_two_steps"),
        ("DSA augments synthetic images otherwise", "augment(jax.random.clone(key), own)",
         "augment(jax.random.fold_in(key, 1), own)",
         "test_real_and_synthetic_images_are_augmented_alike"),
    ),
    *of_file(
        "ltdd_jax/distill/real_batches.py", _BATCHES,
        ("padding of a class counts", "(np.arange(width) < len(rows)) / len(rows)",
         "(np.arange(width) < width) / width",
         "test_each_class_gives_different_images_of_its_own_and_fewer_where_it_is_small"),
        ("natural batches repeat images", "generator.permutation(num_rows)[:size] for",
         "generator.integers(0, num_rows, size) for",
         "test_natural_batches_are_of_all_images"),
    ),
    *of_file(
        "ltdd_jax/distill/distribution_matching.py", _DISTRIBUTION,
        ("DM sums the synthetic embeddings", "embed(params, made).mean(axis=0)",
         "embed(params, made).sum(axis=0)",
         "test_every_image_of_a_class_gets_the_same_closed_form_gradient"),
        ("DM keeps its network", "task.network.init(network_key)",
         "task.network.init(jax.random.key(0))", "test_every_iteration_has_a_new_network"),
        ("DM's batch norms see padding", "present / present.sum()",
         "present * 0 + 1 / present.size", "test_batch_norms_see_all_classes_at_once"),
        ("DM's batch norms see one class", "if task.network.has_statistics else match_in_turn",
         "if False else match_in_turn", "test_batch_norms_see_all_classes_at_once"),
    ),
    *of_file(
        "ltdd_jax/distill/image_steps.py", _IDM,
        ("IDM moves one class alone", "(momentum * velocity).at[label].add(gradient)",
         "velocity.at[label].set(momentum * velocity[label] + gradient)",
         "test_every_class_is_a_step_of_all_images"),
    ),
    *of_file(
        "ltdd_jax/distill/idm.py", _IDM,
        ("IDM's accuracy is a fraction", "100 * self.hits", "self.hits",
         "test_queue_equals_a_deque"),
        ("IDM's new network inherits an accuracy", "hits=self.hits.at[place].set(0)",
         "hits=self.hits", "test_queue_equals_a_deque"),
        ("IDM's accuracy is another network's", "accuracy = queue.accuracy[drawn]",
         "accuracy = queue.accuracy[0]", "test_images_follow_one_drawn_network_and_its_accuracy"),
        ("IDM follows free places", "jax.random.randint(keys[1], (), 0, queue.length)",
         "jax.random.randint(keys[1], (), 0, queue.capacity)",
         "test_images_follow_one_drawn_network_and_its_accuracy"),
        ("IDM matches images as they are stored", "shown = mosaic.expand(own, factor)",
         "shown = own", "test_loss_of_a_class_and_its_gradient"),
        ("IDM forgets the momentum of its networks",
         "return queue.replace(\n            hits=queue.hits.at[place].add",
         "queue = queue.replace(opt_state=jax.tree.map(jnp.zeros_like, queue.opt_state))\n"
         "        return queue.replace(\n            hits=queue.hits.at[place].add",
         "test_members_are_trained_by_heavy_ball_with_decay_and_counted"),
    ),
    *of_file(
        "ltdd_jax/distill/clusters.py", _CLUSTERS,
        ("k-means draws its first centres uniformly", "points[draw(key, nearest)]",
         "points[draw(key, jnp.ones_like(nearest))]",
         "test_a_class_with_fewer_images_than_centres_gives_every_image"),
        ("k-means chooses padding", "jnp.where(present[None], distances, jnp.inf)", "distances",
         "test_a_class_with_fewer_images_than_centres_gives_every_image"),
    ),
    *of_file(
        "ltdd_jax/distill/dream.py", _DREAM,
        ("DREAM steps in normalised images", "low + width * pixels, label, real[rows]",
         "low + pixels, label, real[rows]",
         "test_steps_are_of_pixels_whatever_the_normalisation"),
        ("DREAM leaves the range of pixels", "jnp.clip(pixels, 0, 1)", "pixels",
         "test_images_are_kept_in_the_range_of_pixels"),
        ("DREAM takes every class for the first", "jnp.full(len(images), label)",
         "jnp.full(len(images), 0)", "test_loss_of_a_class_and_its_gradient"),
        ("DREAM matches padding", "augment(key, real), label, weights)",
         "augment(key, real), label, jnp.full(len(real), 1 / len(real)))",
         "test_loss_of_a_class_and_its_gradient"),
        ("DREAM augments synthetic pictures otherwise", "augment(jax.random.clone(key), shown)",
         "augment(jax.random.fold_in(key, 1), shown)",
         "test_real_and_synthetic_pictures_are_augmented_alike_and_drawn_where_there_are_many"),
        ("DREAM matches the first pictures", "jax.random.permutation(rows_key, decoded)",
         "jnp.arange(decoded)",
         "test_real_and_synthetic_pictures_are_augmented_alike_and_drawn_where_there_are_many"),
        ("DREAM's shares change places", "entropy + (1 - own) *", "entropy + own *",
         "test_network_learns_both_labels_of_mixed_images"),
        ("DREAM chooses anew every time", 'place % settings["cluster_interval"] == 0,',
         "place >= 0,",
         "test_representatives_are_chosen_at_intervals"),
    ),
    *of_file(
        "ltdd_jax/data/mosaic.py", _MOSAIC,
        ("cells are counted column by column", "parts.transpose(1, 3, 0, 2, 4, 5)",
         "parts.transpose(3, 1, 0, 2, 4, 5)",
         "test_four_constants_become_four_constant_images_row_by_row"),
        ("labels follow each image", "jnp.tile(labels, (factor**2, *(1,) * (labels.ndim - 1)))",
         "jnp.repeat(labels, factor**2, axis=0)", "test_expansion_is_bilinear_and_cell_major"),
    ),
    *of_file(
        "ltdd_jax/data/cutmix.py", "tests/data/test_cutmix.py",
        ("cutmix takes the partner's share", "1 - box.mean(dtype=jnp.float32)",
         "box.mean(dtype=jnp.float32)",
         "test_a_box_comes_from_the_partner_and_the_label_follows_its_area"),
    ),
    *of_file(
        "ltdd_jax/data/augment.py", "tests/data/test_augment.py",
        ("Siamese numbers for every image", "1 if siamese else len(images)", "len(images)",
         "test_siamese_calls_with_one_key_transform_batches_of_any_size_alike[]"),
    ),
    *of_file(
        "ltdd_jax/pipeline/artefacts.py", "tests/pipeline/test_rows.py",
        ("students see images as they are stored",
         "mosaic.expand(np.asarray(self.synthetic.images), self.partition)",
         "mosaic.expand(np.repeat(self.synthetic.images, self.partition**2, axis=0), 1)",
         "test_students_see_every_picture_of_an_image"),
    ),
]  # fmt: skip
