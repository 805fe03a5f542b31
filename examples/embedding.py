"""Users with a similar taste: `python -m examples.embedding MODEL LOG USER`.

MODEL is a run's workdir or an exported model, LOG what `--data` takes. The embedding of a user is the posterior mean of
the latent variables, given the user's items. Two users are near where the cosine of their embeddings is large.
"""

import sys

import numpy as np

import vae_cf_tf

model, path, user = sys.argv[1:]
log = vae_cf_tf.load(path)
liked = np.full(len(log.users), True) if log.ratings is None else log.ratings >= 4
histories: dict[str, list[str]] = {}
for u, i in zip(log.users[liked], log.items[liked], strict=True):
    histories.setdefault(log.user_ids[u], []).append(log.item_ids[i])
if user not in histories:
    sys.exit(f"{path} has no items that the user {user} liked. Its users are such as {next(iter(histories))}.")

embedding = vae_cf_tf.Recommender.load(model).embed(histories)
directions = embedding.div(np.linalg.norm(embedding, axis=1), axis=0)
cosine = (directions @ directions.loc[user]).drop(user).nlargest(5)
print(f"Nearest to user {user}, of {len(histories):,}:")
for other, value in cosine.items():
    common = set(histories[user]) & set(histories[other])
    print(f"  user {other}: cosine {value:.3f}, {len(common)} items in common")
