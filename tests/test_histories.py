import numpy as np
import pytest
import tensorflow as tf

from vae_cf_tf.models import histories as hist

HISTORIES = [[0, 3, 4], [], [2]]
SEED = tf.constant([1, 2])


def ragged(rows=HISTORIES):
    return tf.ragged.constant(rows, dtype=tf.int32, row_splits_dtype=tf.int32)


def test_unit_norm_rows_have_length_one_and_an_empty_history_is_zero():
    dense = hist.dense_rows(hist.unit_norm(ragged()), 5).numpy()
    third = 3**-0.5
    np.testing.assert_allclose(dense, [[third, 0, 0, third, third], [0] * 5, [0, 0, 1, 0, 0]], rtol=1e-6)


def test_rows_of_names_the_user_of_each_item():
    for rows in (HISTORIES, [], [[], [], []], [[], [1], []]):
        histories = tf.RaggedTensor.from_row_lengths(
            tf.constant([i for row in rows for i in row], tf.int32), tf.constant([len(row) for row in rows], tf.int32)
        )
        np.testing.assert_array_equal(hist.rows_of(histories), histories.value_rowids())


def test_multi_hot_is_the_counts():
    assert hist.multi_hot(ragged(), 5).numpy().tolist() == [[1, 0, 0, 1, 1], [0] * 5, [0, 0, 1, 0, 0]]


def test_dropout_of_a_history_keeps_the_norm_before_it_and_scales_by_the_kept_share():
    many = ragged([list(range(1000))])
    dense = hist.dense_rows(hist.unit_norm(many, 0.5, SEED), 1000).numpy()
    kept = dense[dense > 0]
    assert 400 < len(kept) < 600
    np.testing.assert_allclose(kept, 2 / 1000**0.5, rtol=1e-6)


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.3])
def test_keep_mask_keeps_its_share_and_is_a_function_of_the_seed(rate):
    shape = tf.constant([300, 1001])
    mask = hist.keep_mask(shape, rate, SEED).numpy()
    n = mask.size
    assert abs(mask.mean() - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / n)
    np.testing.assert_array_equal(mask, hist.keep_mask(shape, rate, SEED).numpy())
    other = hist.keep_mask(shape, rate, tf.constant([1, 3])).numpy()
    assert abs((mask == other).mean() - (rate**2 + (1 - rate) ** 2)) < 0.01  # independent of one another


def test_keep_mask_counts_beyond_32_bits(monkeypatch):
    sizes = []

    def draw(shape, *_, **__):
        sizes.append(int(shape[0]))
        raise InterruptedError  # 3 GB of random words are not needed

    monkeypatch.setattr(tf.random, "stateless_uniform", draw)
    with pytest.raises(InterruptedError):
        hist.keep_mask(tf.constant([3000, 1_000_000]), 0.5, SEED)
    assert sizes == [3000 * 1_000_000 // 4 + 1]
