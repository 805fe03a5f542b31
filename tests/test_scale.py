"""Costs that only show at the size of the public data sets; `make test-slow` runs them and prints the figures."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vae_cf_tf.data.prepared import SHARD_USERS, finish, write_split
from vae_cf_tf.data.split import HeldOut, Split
from vae_cf_tf.data.synthetic import synthetic_matrix

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def test_memory_of_training_at_the_shape_of_ml_20m(tmp_path):
    """Multi-VAE on 116,677 × 20,108 with 8.5 M interactions, baselines and evaluation included, under 3 GiB."""
    train = synthetic_matrix(116_677, 20_108, 8_500_000, seed=0)
    known, wanted = (synthetic_matrix(10_000, 20_108, n, seed=s) for n, s in ((580_000, 1), (145_000, 2)))
    wanted = wanted - wanted.multiply(known)
    wanted.eliminate_zeros()
    held_out = HeldOut(known, wanted.tocsr())
    ids = [str(i) for i in range(20_108)]
    Split(train, held_out, held_out, ids, {}).save(tmp_path)
    flags = ["--flagfile=trainers/flags/multvae.flags", f"--workdir={tmp_path}", "--epochs=1", "--ease_l2=700"]
    subprocess.run([sys.executable, "-m", "trainers.main", *flags], cwd=ROOT, check=True)
    values = json.loads((tmp_path / "metrics.json").read_text())
    print(f"\npeak RSS {values['peak_rss_mb']:.0f} MiB, {values['users_per_second']:.0f} users/s")
    assert [baseline["name"] for baseline in values["baselines"]] == ["popularity", "item_knn", "ease"]
    assert values["peak_rss_mb"] < 3 * 1024


def test_memory_of_training_from_shards_does_not_grow_with_the_users(tmp_path):
    """The whole job, a pass over 5 M users of 10 of 5,000 items beside one of 50,000: within 10 %."""
    known, wanted = (synthetic_matrix(1_000, 5_000, n, seed=s) for n, s in ((8_000, 1), (2_000, 2)))
    held_out = HeldOut(known, (wanted - wanted.multiply(known)).tocsr())
    held_out.target.eliminate_zeros()
    peaks = {}
    for users, epochs in ((50_000, 4), (5_000_000, 1)):
        folder, workdir = tmp_path / str(users), tmp_path / f"run{users}"
        folder.mkdir()
        train = synthetic_matrix(users, 5_000, 10 * users, seed=0)
        write_split(Split(train, held_out, held_out, [str(i) for i in range(5_000)], {}), folder)
        finish(folder, {}, {}, SHARD_USERS, "a test")
        del train
        flags = ["--flagfile=trainers/flags/multvae.flags", f"--data={folder}", f"--workdir={workdir}"]
        flags += ["--train_from=shards", "--hidden_dim=32", "--latent_dim=16", "--batch_size=2000"]
        flags.append(f"--epochs={epochs}")
        subprocess.run([sys.executable, "-m", "trainers.main", *flags], cwd=ROOT, check=True)
        values = json.loads((workdir / "metrics.json").read_text())
        peaks[users] = values["peak_rss_mb"]
        print(f"\n{users:,} users: peak RSS {peaks[users]:.0f} MiB, {values['users_per_second']:.0f} users/s")
    assert peaks[5_000_000] < 1.1 * peaks[50_000]


FITTED = """
import resource, sys, time
from vae_cf_tf.data.synthetic import synthetic_matrix
from vae_cf_tf.linear.factors import ImplicitFactors
from vae_cf_tf.models.hybrid import ItemItemLayer
from vae_cf_tf.registries import ITEM_ITEM
from vae_cf_tf.settings import ItemItemSettings

settings, train = ItemItemSettings(), synthetic_matrix(200_000, 200_000, 20_000_000, seed=0)
layer = ItemItemLayer(200_000, settings.item_path_mb)
for name in ("factors", *ITEM_ITEM.names()):
    start = time.perf_counter()
    if name == "factors":
        layer.assign_factors(ImplicitFactors(layer.rank).fit(train))
    else:
        layer.fit(ITEM_ITEM[name].from_settings(settings), train)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(name, time.perf_counter() - start, peak, flush=True)
"""


def test_item_item_models_of_200_000_items_and_20_million_events():
    """Each kind is fitted and stored, under 8 GiB in all."""
    result = subprocess.run([sys.executable, "-c", FITTED], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    print(f"\nfitted, seconds, peak MiB:\n{result.stdout}")
    assert float(result.stdout.split()[-1]) < 8 * 1024


def test_reading_and_splitting_25_million_ratings(tmp_path):
    """A ratings.csv of ML-25M's shape, under 4 GiB."""
    rng, path = np.random.default_rng(0), tmp_path / "ratings.csv"
    with open(path, "w") as f:
        f.write("userId,movieId,rating,timestamp\n")
        for block in range(25):
            users = np.sort(rng.integers(1, 162_542, 1_000_000))
            movies = (59_047 * rng.random(1_000_000) ** 3).astype(int) + 1
            ratings, times = rng.integers(1, 11, 1_000_000) / 2, rng.integers(8e8, 16e8, 1_000_000)
            np.savetxt(f, np.stack([users, movies, ratings, times + block], 1), fmt="%d,%d,%.1f,%d")
    code = (
        "import resource, sys, time; start = time.perf_counter()\n"
        "from vae_cf_tf.settings import Settings\n"
        "from vae_cf_tf.data.load import load_split\n"
        "split = load_split(Settings.of(data=sys.argv[1]), lambda line: None)\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "print(time.perf_counter() - start, split.train.nnz, peak)"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    seconds, interactions, peak = map(float, result.stdout.split())
    print(f"\nread and split in {seconds:.1f} s, peak RSS {peak:.0f} MiB")
    assert interactions > 5_000_000
    assert peak < 4 * 1024
