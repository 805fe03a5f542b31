"""What an export leaves on the disk: whole versions only, of the right size, with card, titles and warm-up."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import EVCF, PLAIN, built, synthetic_events
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from serving_kit import FACTS, ITEM_IDS, TITLES, TOP_K, exported, model
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2
from typed import Typed, here, mistake, process

from export import card, main, savedmodel, titles
from trainers.main import train_and_evaluate
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import LOCK, locked, read_json, write_json
from vae_cf_tf.settings import Settings

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "export" / "serving"


def names(folder: Path) -> list[str]:
    """What a server could see in a folder: not the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK)


def test_versions_grow_and_nothing_is_overwritten(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "kept").write_text("as it was")
    (tmp_path / "notes").mkdir()
    numbers = [savedmodel.export_model(model(), ITEM_IDS, TITLES, FACTS, tmp_path, TOP_K).name for _ in range(2)]
    assert numbers == ["8", "9"]
    assert names(tmp_path) == ["7", "8", "9", "notes"]
    assert (tmp_path / "7" / "kept").read_text() == "as it was"


def test_a_version_that_appears_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    rename, seen = os.rename, []

    def late(source, target):
        if not seen:  # another export is faster by a moment
            seen.append(target)
            (Path(target) / "variables").mkdir(parents=True)
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    version = savedmodel.export_model(model(), ITEM_IDS, TITLES, FACTS, tmp_path, TOP_K)
    assert [seen[0].name, version.name] == ["1", "2"]
    assert names(tmp_path / "1") == ["variables"]


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(card, "write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        savedmodel.export_model(model(), ITEM_IDS, TITLES, FACTS, tmp_path, TOP_K)
    assert names(tmp_path) == []


KILLED = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from vae_cf_tf.cli import quiet
quiet.import_tensorflow()
from serving_kit import FACTS, ITEM_IDS, TITLES, model
from export import savedmodel
import os
if sys.argv[4] == "last":  # everything is written, and not yet renamed
    os.rename = lambda *_: os.kill(os.getpid(), 9)
print("ready", flush=True)
savedmodel.export_model(model(), ITEM_IDS, TITLES, FACTS, sys.argv[3], 5)
"""


def test_killed_at_any_moment_it_leaves_no_version_that_is_not_whole(tmp_path):
    whole = 0
    for delay in (0.9, "last"):
        command = [sys.executable, "-c", KILLED, ROOT, ROOT / "tests", tmp_path, str(delay)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        if delay != "last":
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        assert process.wait() in (-signal.SIGKILL, 0)
        process.stdout.close()
        assert delay != "last" or names(tmp_path)[0].startswith(".unfinished-")
        versions = [path for path in tmp_path.iterdir() if path.name.isdecimal()]
        assert len(versions) - whole in (0, 1)
        whole = len(versions)
        for version in versions:
            assert card.read(version)["items"] == len(ITEM_IDS)
            assert (version / "assets.extra" / "tf_serving_warmup_requests").stat().st_size > 0
    (tmp_path / ".unfinished-left").mkdir(exist_ok=True)
    version = savedmodel.export_model(model(), ITEM_IDS, TITLES, FACTS, tmp_path, TOP_K)
    assert version.name == str(whole + 1)
    assert all(name.isdecimal() for name in names(tmp_path)), "what killed exports left should be gone"


def test_another_running_export_is_left_alone(tmp_path):
    running = tmp_path / ".unfinished-other"
    running.mkdir()
    with locked(running, "busy"):
        savedmodel.export_model(model(), ITEM_IDS, TITLES, FACTS, tmp_path, TOP_K)
        assert names(tmp_path) == [".unfinished-other", "1"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a\nb"], "line break"),
        (["a\rb"], "line break"),
        ([""], "empty"),
        (["i1"], "two columns: 'i1'"),
    ],
)
def test_item_ids_that_cannot_be_served_are_refused(ids, message, tmp_path):
    with pytest.raises(UserError, match=message):
        savedmodel.export_model(model(), ids + ITEM_IDS[1:], {}, FACTS, tmp_path, TOP_K)
    assert names(tmp_path) == []


def test_weights_that_are_not_finite_are_refused(tmp_path):
    broken = model()
    broken.decoder.output_layer.bias.assign(np.full(len(ITEM_IDS), np.nan, np.float32))
    with pytest.raises(UserError, match="NaN"):
        savedmodel.export_model(broken, ITEM_IDS, {}, FACTS, tmp_path, TOP_K)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("weights", "share", "is_wrong"),
    [("float32", 0.009, False), ("float32", 0.011, True), ("bfloat16", 0.2, False), ("bfloat16", 0.3, True)],
)
def test_scores_may_differ_by_a_share_of_their_standard_deviation(weights, share, is_wrong):
    trained, signs = model(), np.resize([1, -1], len(ITEM_IDS))

    def shifted(histories):
        scores = trained(histories).numpy()
        size = 1e-3 + share * scores.std(axis=1, keepdims=True)  # which is the shift's RMS
        return tf.constant(scores + signs * size)

    refused = pytest.raises(UserError, match=r"answers otherwise than the model .* was not published")
    with refused if is_wrong else contextlib.nullcontext():
        savedmodel._compare(exported(weights), shifted, ITEM_IDS, weights)


def prediction_parameters(items: int, hidden: int, latent: int) -> int:
    """Of H+Vamp gated with two layers: the two encoders without variances, and the decoder."""

    def linear(rows: int, units: int) -> int:
        return rows * units + units

    def gated(rows: int) -> int:
        return 2 * linear(rows, hidden)

    upper = gated(items) + gated(hidden) + linear(hidden, latent)
    lower = gated(items) + gated(latent) + gated(2 * hidden) + linear(hidden, latent)
    decoder = 2 * gated(latent) + gated(2 * hidden) + linear(hidden, items)
    return upper + lower + decoder


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_the_size_is_that_of_encoder_and_decoder(weights, tmp_path):
    items, hidden, latent = 3000, 600, 200
    settings = Settings.of(**EVCF | {"hidden_dim": hidden, "latent_dim": latent, "pseudo_inputs": 300})
    version = savedmodel.export_model(
        built(settings, items), [str(i) for i in range(items)], {}, FACTS, tmp_path, 100, weights
    )
    size = sum(path.stat().st_size for path in version.rglob("*") if path.is_file())
    needed = prediction_parameters(items, hidden, latent) * (4 if weights == "float32" else 2)
    assert needed <= size <= needed * 1.01 + 1_000_000  # the graphs of all signatures, and the catalogue
    assert card.read(version)["parameters"] == prediction_parameters(items, hidden, latent)


def test_the_card_tells_what_is_there():
    version = exported()
    facts = card.read(version)
    assert facts["items"] == len(ITEM_IDS)
    assert facts["data_fingerprint"] == FACTS["data_fingerprint"]
    assert facts["parameters"] == prediction_parameters(len(ITEM_IDS), 12, 5)
    assert facts["user_histories"].startswith("none")
    assert facts["signatures"]["recommend"] == {
        "inputs": {"history": "string [?, ?]"},
        "outputs": {"item_ids": f"string [?, {TOP_K}]", "scores": f"float32 [?, {TOP_K}]"},
    }
    assert facts["signatures"]["recommend_examples"]["inputs"] == {"examples": "string [?]"}
    assert facts["signatures"]["embed"]["outputs"] == {"embedding": "float32 [?, 10]"}
    assert facts["signatures"]["serving_default"]["outputs"] == {"scores": f"float32 [?, {len(ITEM_IDS)}]"}
    for name, size in facts["bytes"].items():
        assert (version / name).stat().st_size == size
    assert titles.read(version) == TITLES
    assert (version / "assets" / "item_ids.txt").read_bytes().decode() == "".join(f"{i}\n" for i in ITEM_IDS)


def test_the_warm_up_requests_are_answered():
    version = exported()
    loaded = tf.saved_model.load(str(version))
    signatures = set()
    records = list(tf.data.TFRecordDataset(str(version / "assets.extra" / "tf_serving_warmup_requests")))
    assert len(records) <= 1000
    for record in records:
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        signature = request.model_spec.signature_name
        signatures.add(signature)
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        answer = loaded.signatures[signature](**inputs)
        assert all(np.isfinite(v).all() for v in answer.values() if v.dtype == tf.float32)
        if "history" in inputs:
            asked = {item for item in inputs["history"].numpy().ravel() if item}
            assert asked
            assert asked <= {item.encode() for item in ITEM_IDS}
    assert signatures == set(loaded.signatures)


def test_models_config_is_a_model_server_config():
    parsed = text_format.Parse((SHIPPED / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    (config,) = parsed.model_config_list.config
    assert (config.name, config.base_path, config.model_platform) == ("vamp", "/models/vamp", "tensorflow")


def batching_parameters():
    """The message tensorflow.serving.BatchingParameters, which tensorflow-serving-api does not ship, with the fields of
    tensorflow_serving/servables/tensorflow/session_bundle_config.proto."""
    file = descriptor_pb2.FileDescriptorProto(
        name="batching.proto", package="tensorflow.serving", syntax="proto3", dependency=[wrappers_pb2.DESCRIPTOR.name]
    )
    message = file.message_type.add(name="BatchingParameters")
    kinds = descriptor_pb2.FieldDescriptorProto
    for number, name in enumerate(
        ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"), 1
    ):
        message.field.add(
            name=name, number=number, label=1, type=kinds.TYPE_MESSAGE, type_name=".google.protobuf.Int64Value"
        )
    message.field.add(
        name="thread_pool_name", number=5, label=1, type=kinds.TYPE_MESSAGE, type_name=".google.protobuf.StringValue"
    )
    message.field.add(name="allowed_batch_sizes", number=6, label=3, type=kinds.TYPE_INT64)
    message.field.add(name="pad_variable_length_inputs", number=7, label=1, type=kinds.TYPE_BOOL)
    for number, name, kind in ((8, "enable_large_batch_splitting", "Bool"), (9, "max_execution_batch_size", "Int64")):
        wrapper = f".google.protobuf.{kind}Value"
        message.field.add(name=name, number=number, label=1, type=kinds.TYPE_MESSAGE, type_name=wrapper)
    pool = descriptor_pool.DescriptorPool()
    wrappers = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    pool.Add(wrappers)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.serving.BatchingParameters"))()


def test_batching_config_is_a_batching_parameters():
    config = text_format.Parse((SHIPPED / "batching.config").read_text(), batching_parameters())
    assert not config.pad_variable_length_inputs, "padding adds items of other users to a history"
    assert config.enable_large_batch_splitting.value
    batch, request = config.max_execution_batch_size.value, config.max_batch_size.value
    assert 1 <= batch < request, "requests larger than a batch are split"
    assert request <= batch * config.max_enqueued_batches.value, "the largest request fits into an empty queue"
    assert not config.allowed_batch_sizes, "the server wants their last to be max_batch_size, which is no batch here"
    assert config.num_batch_threads.value >= 1
    with pytest.raises(text_format.ParseError):
        text_format.Parse("max_batch: 3", batching_parameters())


def test_the_printed_command_line_works_when_pasted():
    items = ['a"b;c=d', "映画 7", "i1"]
    line = shlex.split(main.cli_line(exported(), items))
    tool = Path(sys.executable).with_name("saved_model_cli")
    assert line[0] == tool.name
    done = subprocess.run([tool, *line[1:]], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-1000:]
    answer = tf.saved_model.load(str(exported())).signatures["recommend"](history=tf.constant([items]))
    first = answer["item_ids"].numpy()[0, 0]
    assert f"Result for output key item_ids:\n[[{first!r}" in done.stdout


MISTAKES = """
import json, sys
from typed import here
answers = [here("export.main", *arguments) for arguments in json.loads(sys.argv[1])]
print(json.dumps([answers, [name for name in ("tensorflow", "keras") if name in sys.modules]]))
"""


def test_mistakes_of_the_flags_are_told_before_tensorflow_is_imported(tmp_path):
    old, newer, empty = tmp_path / "old", tmp_path / "newer", tmp_path / "empty"
    for folder in (old, newer, empty):
        folder.mkdir()
    settings = Settings().to_dict()
    (newer / "config.json").write_text(json.dumps(settings))
    (old / "config.json").write_text(json.dumps({name: v for name, v in settings.items() if name != "version"}))
    cases = [
        ([f"--workdir={newer}"], "--export_dir is missing. Usage: "),
        ([], "--workdir is missing. Usage: "),
        (["--workdir="], "--workdir is missing. Usage: "),
        ([f"--workdir={tmp_path / 'none'}"], f"{tmp_path / 'none'} is not the workdir of a run"),
        ([f"--workdir={empty}"], f"{empty} is not the workdir of a run"),
        ([f"--workdir={old}"], f"The run in {old} was trained by vae_cf_tf 0.1"),
        ([f"--workdir={newer}", f"--export_dir={tmp_path}/a[b"], "which TensorFlow takes for a pattern"),
        ([f"--workdir={newer}", "--weights=int8"], "--weights takes one of float32, bfloat16"),
    ]
    models = f"--export_dir={tmp_path / 'models'}"
    lines = [arguments if n == 0 else [models, *arguments] for n, (arguments, _) in enumerate(cases)]
    done = subprocess.run(
        [sys.executable, "-c", MISTAKES, json.dumps(lines)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers, imported = json.loads(done.stdout)
    assert imported == []
    for answer, (_, words) in zip(answers, cases, strict=True):
        mistake(Typed(*answer), words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "newer", "old"]


def test_the_main_job_and_export_main_write_the_same_model(tmp_path):
    run = tmp_path / "run"
    sizes = PLAIN | {"hidden_dim": 16, "latent_dim": 6, "batch_size": 32, "ease_l2": "50", "epochs": 2}
    data = synthetic_events(tmp_path, titles=True)
    train_and_evaluate(Settings.of(data=str(data), workdir=str(run), **sizes), say=lambda line: None)
    (own,) = (path for path in (run / "export").iterdir() if path.name.isdecimal())
    done = process("export.main", f"--workdir={run}", f"--export_dir={tmp_path / 'models'}")
    other = tmp_path / "models" / "1"
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{other}\nembed: history string [?, ?] → embedding float32 [?, 6]\n")
    ids = (own / "assets" / "item_ids.txt").read_text().splitlines()
    history = tf.constant([ids[:3], ids[40:43], [""] * 3])
    answers = []
    for version in (own, other):
        signatures = tf.saved_model.load(str(version)).signatures
        answers.append({name: signatures[name](history=history) for name in ("serving_default", "recommend", "embed")})
    assert np.std(answers[0]["serving_default"]["scores"].numpy(), axis=1).min() > 1e-3
    for name, outputs in answers[0].items():
        for key, value in outputs.items():
            np.testing.assert_array_equal(value, answers[1][name][key], err_msg=f"{name}, {key}")
    own_card, other_card = (card.read(version) for version in (own, other))
    for facts in (own_card, other_card):  # names of the graph differ from process to process
        del facts["bytes"], facts["sha256"]
    assert own_card["metrics"]["test"]["ndcg@100"]["mean"] > 0
    assert own_card == other_card
    assert titles.read(own) == titles.read(other) != {}


def test_inspect_shows_the_card(tmp_path):
    shown = here("export.inspect", exported().parent).stdout
    assert str(exported()) in shown
    for text in ("0123456789abcdef", "recommend: history string [?, ?]", "Items: 40;", "variables.index"):
        assert text in shown
    mistake(here("export.inspect", tmp_path), "no SavedModel")
    mistake(here("export.inspect"), "One folder is wanted, 0")
    shutil.copytree(exported(), tmp_path / "1")
    (tmp_path / "1" / "assets.extra" / "model_card.json").write_text("{")
    mistake(here("export.inspect", tmp_path), "no readable model card")


def test_verify_names_each_damaged_file(tmp_path):
    version = shutil.copytree(exported(), tmp_path / "1")
    files = [path for path in sorted(version.rglob("*")) if path.is_file()]
    whole = here("export.inspect", tmp_path, "--verify")
    assert (whole.status, whole.stdout) == (0, f"{version}: {len(files)} files, all as they were exported.\n")
    for path in files:
        content = path.read_bytes()
        at = len(content) // 2
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        mistake(here("export.inspect", tmp_path, "--verify"), path.name)
        path.unlink()
        mistake(here("export.inspect", tmp_path, "--verify"), path.name)
        path.write_bytes(content)
    (version / "assets" / "more.txt").write_text("x")
    mistake(here("export.inspect", tmp_path, "--verify"), "more.txt is no file of the export")


def test_a_card_without_checksums_is_one_line(tmp_path):
    version = shutil.copytree(exported(), tmp_path / "1")
    path = version / "assets.extra" / "model_card.json"
    write_json(path, {name: fact for name, fact in read_json(path).items() if name != "sha256"})
    mistake(here("export.inspect", tmp_path, "--verify"), "has no checksums")


def test_the_card_shows_metrics_with_their_errors():
    facts = card.read(exported()) | {"metrics": {"test": {"ndcg@100": {"mean": 0.41234, "stderr": 0.00725}}}}
    assert "ndcg@100   0.4123 ± 0.0073" in card.text(json.loads(json.dumps(facts)))
