"""Hostile requests to a served model: from many threads, for a long time, and while its versions are replaced."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from torture import forks
from torture.c_api import TENSORS
from torture.world import OnWorld

FULL = {"chunks": 15, "minutes": 20, "requests": 50_000, "versions": 6}  # minutes and requests: of the case `memory`
CHUNK = 10_000
WIDE = 5000  # items of the larger catalogue
WARM_UP = 0.1  # share of the time after which memory should be flat
BLOCKS = 18
"""Stretches of the time after that. The slope of memory is that of their means: neighbouring samples are not
independent, and an interval from all of them would be far too narrow."""
SECONDS, SLOWEST, BETWEEN = 900, 0.2, 5  # to load a version; a request; with each new version


class Requests(OnWorld):
    about = (
        "10,000 hostile requests to all signatures, from 8 threads through the C API, to a trained model and to one of "
        "5,000 odd ids with kernels of bfloat16. Each answer is held against the contract, and a row of every seventh "
        "against the answer to its history alone. `memory`: the same for at least twenty minutes. `versions`: the same "
        "while versions of different models are published and removed."
    )

    def cases(self) -> Sequence[str]:
        return ["memory", "versions", *(f"chunk-{k}" for k in range(self.number(FULL["chunks"])))]

    def run(self, case: str) -> dict[str, Any]:
        if case == "versions":
            return self._versions()
        models = [self._model(name) for name in ("world", "wide")]
        if case == "memory":
            seconds, requests = 60 * FULL["minutes"] * self.scale, self.number(FULL["requests"])
            return _with_slope(self._asked(case, models, seconds=max(30, seconds), requests=requests))
        return _without_memory(self._asked(case, models, requests=min(CHUNK, self.number(15 * CHUNK))))

    def summary(self, results: Sequence[dict[str, Any]]) -> str:
        asked, refused = (sum(result.get(name, 0) for result in results) for name in ("requests", "refused"))
        text = f"{asked:,} requests, of which {refused:,} malformed ones were refused."
        long = next((result for result in results if "resident" in result), None)
        if long is None:
            return text
        (p50, p99), (p50_end, p99_end) = (long["milliseconds"]["all"][part] for part in ("first", "last"))
        slopes = [
            f"{words} {long[name]:.0f} MiB, {middle:+.2f} MiB in ten minutes ({low:+.2f} to {high:+.2f})"
            for name, words in (("in_use", "memory in use"), ("resident", "resident"))
            for low, middle, high in [long[f"{name}_slope"]]
        ]
        return (
            f"{text} Over {long['asked_for'] / 60:.0f} minutes: {'; '.join(slopes)}; p50 {p50:.1f} ms and p99 "
            f"{p99:.0f} ms in the first fifth, {p50_end:.1f} and {p99_end:.0f} ms in the last."
        )

    # ------------------------------------------------------------------------------------------------- cases

    def _versions(self) -> dict[str, Any]:
        """Publishes versions of three models in turn, as an export does, while requests run."""
        sources = [self._version(name) for name in ("world", "wide", "rounded")]
        folder, live, stop = (self.folder / name for name in ("served", "live", "stop"))
        for path in (folder, live, stop):
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
        _publish(sources[0], folder)
        count = max(3, round(FULL["versions"] * self.scale))

        def replace(server: subprocess.Popen) -> None:
            for number in range(1, count + 1):
                if number > 1:
                    _publish(sources[(number - 1) % len(sources)], folder)
                deadline = time.monotonic() + SECONDS
                while server.poll() is None and not (live.exists() and live.read_text() == str(number)):
                    if time.monotonic() > deadline:
                        server.send_signal(signal.SIGUSR1)  # it writes where its threads are to the log
                        time.sleep(BETWEEN)
                        server.kill()
                    time.sleep(0.1)
                time.sleep(BETWEEN)
            stop.touch()

        result = self._asked("versions", [folder], live=live, stop=stop, meanwhile=replace)
        if not result["found"] and len(result["versions"]) != count:
            result["found"] = f"only the versions {result['versions']} were asked, of {count}"
        return _without_memory(result)

    def _asked(self, case: str, models: list[Path], meanwhile: Any = None, **plan: Any) -> dict[str, Any]:
        """Runs torture.served; a crash is a finding that names the requests at which the threads were."""
        answer, progress = self.folder / "answer.json", self.folder / "progress"
        answer.unlink(missing_ok=True)
        whole = {"requests": 0, "seconds": 0, "live": None, "stop": None} | plan
        whole |= {"libraries": str(Path(tf.__file__).parent), "models": models, "progress": progress}
        whole["seed"] = f"{self.seed} {case}"
        (self.folder / "plan.json").write_text(json.dumps(whole, default=str))
        words = [sys.executable, "-m", "torture.served", self.folder / "plan.json", answer]
        places = os.pathsep.join([str(forks.ROOT), str(forks.ROOT / "tests")])
        environment = os.environ | {"PYTHONPATH": places, "TF_CPP_MIN_LOG_LEVEL": "3"}
        with (self.folder / "log.txt").open("w+") as log:
            server = subprocess.Popen(words, env=environment, stderr=log, stdout=log)
            try:
                if meanwhile:
                    meanwhile(server)
                server.wait(whole["seconds"] + whole["requests"] * SLOWEST + SECONDS)
            finally:
                server.kill()
                server.wait()
        if server.returncode or not answer.exists():
            at = np.fromfile(progress, np.int64).tolist() if progress.exists() else []
            text = (self.folder / "log.txt").read_text(errors="replace")[-800:]
            return {"found": f"the server ended with status {server.returncode} at the requests {at}: {text}"}
        result = json.loads(answer.read_text())
        return {"found": "; ".join(result.pop("faults"))} | result

    # ------------------------------------------------------------------------------------------------ models

    def _version(self, name: str) -> Path:
        """A version with the tensors of its signatures beside it; made where it is missing."""
        version = self.folder / "sources" / name
        if not version.exists():
            making = self.folder / "making"
            shutil.rmtree(making, ignore_errors=True)
            if name == "wide":
                ended = forks.Fork(lambda: _export_wide(making), self.folder).wait(SECONDS)
                assert not ended.status, ended
            else:
                run = self.world.after("train") / "run"
                more = ("--weights=bfloat16", "--top_k=20") if name == "rounded" else ()
                words = ("export.main", f"--workdir={run}", f"--export_dir={making}", *more)
                ended = forks.command(words, self.folder).wait(SECONDS)
                assert not ended.status, ended
            (making / "1" / "assets.extra" / TENSORS).write_text(json.dumps(tensors(making / "1")))
            version.parent.mkdir(exist_ok=True)
            (making / "1").rename(version)
        return version

    def _model(self, name: str) -> Path:
        """A model's folder with one version."""
        folder = self.folder / "models" / name
        if not folder.exists():
            _publish(self._version(name), folder)
        return folder


def tensors(version: Path) -> dict[str, Any]:
    """The names of the tensors of each signature's inputs and outputs."""
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((version / "saved_model.pb").read_bytes())
    return {
        name: {side: {key: info.name for key, info in getattr(s, side).items()} for side in ("inputs", "outputs")}
        for name, s in saved.meta_graphs[0].signature_def.items()
        if name != "__saved_model_init_op"
    }


def _publish(source: Path, folder: Path) -> None:
    """Publishes a copy of a version as an export does, and removes all but the newest two."""
    from export import versions

    with versions.made_aside(folder) as aside:
        shutil.copytree(source, aside / "model")
        versions.published(aside / "model", folder)
    versions.keep_newest(folder, 2)


def _export_wide(folder: Path) -> None:
    """A model of 5,000 items with odd ids, not trained, with an item–item model by rows and kernels of bfloat16."""
    import scipy.sparse as sp
    from conftest import EVCF, built

    from export.savedmodel import export_model
    from vae_cf_tf.linear.item_item import NormalizedEase
    from vae_cf_tf.models.hybrid import HybridModel, ItemItemLayer
    from vae_cf_tf.settings import Settings

    rng = random.Random(0)
    odd = [" ", "é\u2028", 'a"b;c=d', "a\0b", "\ufeff1", "x" * 5000, "%s", "-1", "\t", "{}", "NaN", "i" * 22, "i" * 23]
    ids = [*odd, *(rng.choice(("{}", "item {}", "映画 {}")).format(number) for number in range(WIDE - len(odd)))]
    shape = {"hidden_dim": 24, "latent_dim": 8, "pseudo_inputs": 4, "latent": "hierarchical", "layers": 2}
    network = built(Settings.of(**{**EVCF, **shape}), WIDE)
    layer = ItemItemLayer(WIDE, megabytes=20, name="item_item")
    users = sp.random(2000, WIDE, 0.004, "csr", np.float32, np.random.default_rng(0))
    users.data[:] = 1
    layer.fit(NormalizedEase(l2=0.5, max_items=1000), users)
    export_model(HybridModel(network, layer, weight=4.0, discount=0.5), ids, {}, {}, folder, weights="bfloat16")


# ---------------------------------------------------------------------------------------------------- figures


def _with_slope(result: dict[str, Any]) -> dict[str, Any]:
    """Adds the slopes of memory after the warm-up, MiB in ten minutes, between the ends of their 95 % intervals."""
    if "memory" not in result:
        return result
    times, *memory = np.array(result.pop("memory"), float).T
    is_warm = times > WARM_UP * times[-1]
    for name, values in zip(("resident", "in_use"), memory, strict=True):
        values = values[is_warm] / 2**20
        result[name] = round(float(values.mean()), 1)
        result[f"{name}_slope"] = [round(value, 3) for value in slope(times[is_warm] / 600, values)]
        result[f"{name}_blocks"] = [round(float(part.mean()), 1) for part in np.array_split(values, BLOCKS)]
    return result


def slope(times: np.ndarray, values: np.ndarray) -> tuple[float, float, float]:
    """The least-squares slope of the means of BLOCKS stretches, between the ends of its 95 % interval."""
    means = [[part.mean() for part in np.array_split(array, BLOCKS)] for array in (times, values)]
    fit = scipy.stats.linregress(*means)
    half = float(scipy.stats.t.ppf(0.975, BLOCKS - 2) * fit.stderr)
    return fit.slope - half, fit.slope, fit.slope + half


def _without_memory(result: dict[str, Any]) -> dict[str, Any]:
    """With the first and last of its memory only."""
    memory = result.pop("memory", [])
    return result | {"mebibytes": [round(size / 2**20) for _, size, _ in (memory[:1] + memory[-1:])]}
