"""check_pretrained: what it says of a checkpoint is what from_pretrained does with it, from its headers alone."""

import itertools
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from conftest import read_npz, tiny_config
from flax.serialization import msgpack_serialize
from flax.traverse_util import unflatten_dict
from local_hub import Repository
from matrix import SOAK
from safetensors.numpy import load_file, save, save_file
from test_families import FOLDERS, golden, weights
from test_families_faults import VALUES, no_part_of_the_model, read, write

from hub_scripts.__main__ import main
from hub_scripts.check import run_all
from modeling_vit_cls import (
    CheckpointError,
    ConfigError,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
    check_pretrained,
)
from modeling_vit_cls.families.open import has_head, open_checkpoint, read_headers

pytestmark = pytest.mark.world

_numbers = itertools.count()
MEGABYTE = 1_000_000


def loaded(source: Path | str, path: Path) -> Any:
    """The model of a checkpoint with its head, if any, or the error."""
    try:
        kind = FlaxViTClsForImageClassification if has_head(open_checkpoint(path)) else FlaxViTClsModel
        return kind.from_pretrained(source)
    except (CheckpointError, ConfigError) as error:
        return error


def push(hub, files: dict[str, bytes]) -> str:
    """A new repository with these files."""
    repo_id = f"user/check-{next(_numbers)}"
    hub.repositories[repo_id] = Repository()
    hub.repositories[repo_id].commit(files, "theirs", "main")
    return repo_id


def files_of(folder: Path) -> dict[str, bytes]:
    of_the_tests = ("expected.npz", "patch_sizes.npz", "versions.txt")
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name not in of_the_tests}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_report_of_a_folder_and_of_a_repository_is_what_a_load_gives(folder, hub):
    report = check_pretrained(weights(folder))
    model = loaded(weights(folder), weights(folder))
    assert (report.loads, report.problem) == (True, None)
    assert report.parameters == model.num_parameters()
    assert (report.image_size, report.patch_size) == (model.config.image_hw, model.config.patch_size)
    assert report.readout == model.config.readout
    names = list(model.config.id2label.values()) if isinstance(model, FlaxViTClsForImageClassification) else None
    assert report.labels == names
    remote = check_pretrained(push(hub, files_of(folder)))
    assert remote.download_size == sum(map(len, files_of(folder).values()))
    own = {"name": "", "download_size": None, "bytes_read": None, "notes": []}
    assert {**remote.to_dict(), **own} == {**report.to_dict(), **own}
    assert len(remote.notes) == len(report.notes)


def faults(folder: Path, chance: random.Random, to: Path) -> list[str]:
    """Files of a golden folder with something wrong, written to subfolders of `to`; returns what each fault is."""
    tensors = read(folder)
    name = chance.choice([name for name in tensors if not no_part_of_the_model(folder, name)])
    rest = {key: tensor for key, tensor in tensors.items() if key != name}
    changed: dict[str, dict[str, np.ndarray]] = {
        "removed": rest,
        "renamed": {**rest, name + "s": tensors[name]},
        "reshaped": {**rest, name: np.append(tensors[name], tensors[name].dtype.type(0))},
        "recast": {**rest, name: tensors[name].astype(np.int32)},
        "added": {**tensors, "extra.weight": np.zeros(3, np.float32)},
        "wrapped": {"module." + key: tensor for key, tensor in tensors.items()},
    }
    kinds = [*changed, "truncated", "header"]
    if (folder / "config.json").exists():
        kinds += ["field 1", "field 2", "field 3"]
    for kind in kinds:
        (to / kind).mkdir()
        file = write(changed.get(kind, tensors), folder, to / kind)
        if (folder / "config.json").exists():
            fields = json.loads((folder / "config.json").read_text())
            if kind.startswith("field"):
                fields[chance.choice(sorted(fields))] = chance.choice(VALUES)
            (to / kind / "config.json").write_text(json.dumps(fields))
        content = file.read_bytes()
        if kind == "truncated":
            file.write_bytes(content[: -chance.randint(1, len(content) // 2)])
        if kind == "header":
            file.write_bytes(bytes([content[0] ^ 64]) + content[1:])
    return kinds


FAULTY = ["clip_model", "dinov2_giant", "flax_vit", "meta_dinov2", "npz_big_vision", "siglip2", "timm_vit"]
FAULTY_FOLDERS = [folder for folder in FOLDERS if SOAK > 1 or folder.name in FAULTY]


@pytest.mark.parametrize("folder", FAULTY_FOLDERS, ids=lambda folder: folder.name)
def test_check_and_load_agree_about_faults_word_for_word(folder, hub, tmp_path, tally):
    for kind in faults(folder, random.Random(folder.name), tmp_path):
        path = tmp_path / kind
        result, report = loaded(path, path), check_pretrained(path)
        assert report.loads == (not isinstance(result, Exception)), (kind, result, report.problem)
        assert report.loads or report.problem == str(result)
        repo_id = push(hub, files_of(path))
        remote = check_pretrained(repo_id)
        assert remote.problem == (report.problem and report.problem.replace(str(path), repo_id))
        tally.note("loads" if report.loads else "refused by both in the same words")


def odd_repositories() -> dict[str, dict[str, bytes]]:
    """Repositories with something wrong, of the golden ViT."""
    whole = files_of(golden("vit"))
    config, weights_file = {"config.json": whole["config.json"]}, whole["model.safetensors"]
    index = {
        "weight_map": dict.fromkeys(load_file(golden("vit") / "model.safetensors"), "model-00001-of-00002.safetensors")
    }
    lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 44012\n"
    return {
        "empty": {},
        "without weights": config,
        "without a config": {"model.safetensors": weights_file},
        "a broken config": {**whole, "config.json": b"{"},
        "another model": {**whole, "config.json": b'{"model_type": "bert"}'},
        "two files": {**config, "a.safetensors": weights_file, "b.safetensors": weights_file},
        "one file of another name": {**config, "a.safetensors": weights_file},
        "one whole shard": {
            **config,
            "model.safetensors.index.json": json.dumps(index).encode(),
            "model-00001-of-00002.safetensors": weights_file,
        },
        "a missing shard": {**config, "model.safetensors.index.json": json.dumps(index).encode()},
        "an index that leads outside": {
            **config,
            "model.safetensors.index.json": b'{"weight_map": {"a": "../model.safetensors"}}',
        },
        "pickled": {**config, "pytorch_model.bin": b"x"},
        "a pointer of git-lfs": {**config, "model.safetensors": lfs},
        "an empty file": {**config, "model.safetensors": b""},
        "seven bytes": {**config, "model.safetensors": b"x" * 7},
        "an adapter without its weights": {
            "adapter_config.json": b'{"peft_type": "LORA", "base_model_name_or_path": "a/b"}'
        },
        "a processor that is no JSON": {**whole, "preprocessor_config.json": b"{"},
    }


ODD = odd_repositories()


@pytest.mark.parametrize("name", ODD)
def test_check_and_load_agree_about_repositories_word_for_word(name, hub):
    repo_id = push(hub, ODD[name])
    report = check_pretrained(repo_id)
    try:
        FlaxViTClsModel.from_pretrained(repo_id)
        problem = None
    except (CheckpointError, ConfigError) as error:
        problem = re.sub(r"/[^ ]*/snapshots/[0-9a-f]{40}", repo_id, " ".join(str(error).split()))
    assert report.problem == problem
    assert report.loads == (problem is None)


def test_the_numbers_of_a_header_cannot_be_read():
    tensors = read_headers(golden("vit"))
    with pytest.raises(CheckpointError, match=r"model.safetensors: tensor '.*': only its name, type and shape"):
        next(iter(tensors.values())).read()


@pytest.fixture(scope="module")
def large() -> dict[str, bytes]:
    """A repository of 29 MB: one block as wide as a ViT-B."""
    config = tiny_config(hidden_size=768, num_attention_heads=12, intermediate_size=3072, num_hidden_layers=1)
    shapes = FlaxViTClsForImageClassification(config, _do_init=False)._shapes
    tensors = {name: np.zeros(leaf.shape, np.float32) for name, leaf in shapes.items()}
    card = b"---\nlicense: other\nlicense_name: my-licence\n---\n# A model\n"
    fields = {**config.to_dict(), "architectures": ["ViTClsForImageClassification"]}
    return {"config.json": json.dumps(fields).encode(), "model.safetensors": save(tensors), "README.md": card}


def sent(hub, repo_id: str) -> int:
    """Bytes that the Hub sent of a repository, or for it."""
    return sum(size for path, size in hub.sent.items() if repo_id in path)


def test_a_check_transfers_the_headers_alone(hub, large):
    repo_id = push(hub, large)
    report = check_pretrained(repo_id)
    assert report.loads
    assert report.licence == "my-licence"
    assert report.download_size == len(large["config.json"]) + len(large["model.safetensors"]) > 28 * MEGABYTE
    assert report.bytes_read is not None
    assert 0 < report.bytes_read < 100_000
    assert sent(hub, repo_id) < 100_000


def test_of_an_npz_file_the_directory_and_the_beginnings_of_arrays_are_read(hub, tmp_path):
    arrays = read_npz(golden("npz_augreg") / "checkpoint.npz")
    np.savez(tmp_path / "S_16.npz", **arrays, **{"pre_logits/kernel": np.zeros((4000, 3000), np.float32)})  # pyright: ignore
    repo_id = push(hub, {"S_16.npz": (tmp_path / "S_16.npz").read_bytes()})
    problem = check_pretrained(tmp_path / "S_16.npz").problem
    assert check_pretrained(repo_id).problem == (problem and problem.replace(str(tmp_path), repo_id))
    assert sent(hub, repo_id) < 200_000
    hub.ranges = False
    assert "S_16.npz: the server ignores range requests" in str(check_pretrained(repo_id).problem)
    hub.ranges = True
    assert sent(hub, repo_id) < 24 * MEGABYTE


def test_of_a_msgpack_file_the_names_and_the_beginnings_of_arrays_are_read(hub):
    config = tiny_config(hidden_size=768, num_attention_heads=12, intermediate_size=3072, num_hidden_layers=1)
    tensors = read(golden("flax_vit"))
    kernel = "vit/encoder/layer/0/intermediate/dense/kernel"
    tensors[kernel] = np.zeros((config.hidden_size, 4 * config.intermediate_size), np.float32)
    tree = unflatten_dict({tuple(name.split("/")): tensor for name, tensor in tensors.items()})
    fields = (golden("flax_vit") / "config.json").read_bytes()
    repo_id = push(hub, {"config.json": fields, "flax_model.msgpack": msgpack_serialize(tree)})
    problem = "tensor 'vit.encoder.layer.0.intermediate.dense.kernel' has shape (768, 12288), expected (24, 32)"
    assert problem in str(check_pretrained(repo_id).problem)
    assert sent(hub, repo_id) < 100_000


def test_a_server_that_ignores_ranges_is_left_after_the_header(hub, large):
    repo_id = push(hub, large)
    hub.ranges = False
    report = check_pretrained(repo_id)
    hub.ranges = True
    assert report.loads
    assert report.bytes_read is not None
    assert report.bytes_read < 100_000
    assert sent(hub, repo_id) < 20 * MEGABYTE  # the system's buffers take some more than what is read


@pytest.mark.parametrize(
    ("length", "words"),
    [(2**63, "is not a whole safetensors file"), (10**9, "is not a whole safetensors file"), (5_000_000, "at most")],
)
def test_a_header_that_claims_a_length_is_not_fetched_at_it(hub, large, length, words):
    content = length.to_bytes(8, "little") + large["model.safetensors"][8:]
    repo_id = push(hub, {**large, "model.safetensors": content})
    assert words in str(check_pretrained(repo_id).problem)
    assert sent(hub, repo_id) < 5 * MEGABYTE


@pytest.fixture
def known(hub, large, monkeypatch):
    """A repository whose small files are in the cache: a check asks for the list and for the weights, nothing else."""
    repo_id = push(hub, large)
    assert check_pretrained(repo_id).loads
    monkeypatch.setattr("time.sleep", lambda _: None)
    yield repo_id
    hub.faults = iter(())


ANSWERS = [
    *[(status, "could not be downloaded|is gated|nor a repository") for status in ("401", "403", "404", "500")],
    ("portal", "does not answer like a Hub|bytes on the server|could not be downloaded"),
    ("lost before", "could not be downloaded"),
    ("cut", "could not be downloaded|the server sent"),
    ("shifted", "the server sent byte 1 first, not 0"),
    ("larger", "has 100,000,000,000,000 bytes on the server, but 2"),
]


@pytest.mark.parametrize(("answer", "words"), ANSWERS)
@pytest.mark.parametrize("request_number", [0, 1])
def test_a_wrong_answer_is_a_problem_in_one_line_without_a_token(hub, known, answer, words, request_number):
    hub.faults = itertools.chain([""] * request_number, itertools.repeat(answer))
    report = check_pretrained(known)
    assert not report.loads
    assert report.problem is not None
    assert report.problem.startswith(known)
    assert re.search(words, report.problem)
    assert "\n" not in report.problem
    assert "hf_x" not in report.problem


def test_the_rest_of_an_answer_that_breaks_off_is_asked_for(hub, known):
    hub.faults = iter(["", "cut"])
    assert check_pretrained(known).loads


def test_without_a_network_the_cache_is_checked(hub, model):
    repo_id = push(hub, {})
    model.push_to_hub(repo_id)
    assert "not in the cache" in str(check_pretrained(repo_id, local_files_only=True).problem)
    FlaxViTClsModel.from_pretrained(repo_id)
    before = len(hub.requests)
    report = check_pretrained(repo_id, local_files_only=True)
    assert (report.loads, report.download_size, len(hub.requests)) == (True, None, before)


def test_subfolders_revisions_and_variants_are_those_of_a_load(hub, large):
    repo_id = push(hub, {f"small/{name}": content for name, content in large.items()})
    assert "no config.json" in str(check_pretrained(repo_id).problem)
    assert check_pretrained(repo_id, subfolder="small").loads
    assert "has no revision 'v9'" in str(check_pretrained(repo_id, revision="v9").problem)
    assert "must be inside the checkpoint" in str(check_pretrained(repo_id, subfolder="../small").problem)
    assert "variant='fp16'" in str(check_pretrained(repo_id, variant="fp16", subfolder="small").problem)
    half = push(hub, {("model.fp16.safetensors" if "model" in name else name): file for name, file in large.items()})
    assert check_pretrained(half, variant="fp16").loads


def test_the_licence_of_a_folder_is_that_of_its_card(folder):
    assert check_pretrained(folder).licence is None
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    assert check_pretrained(folder).licence == "apache-2.0"
    (folder / "README.md").write_text("---\nlicense: [mit\n---\n")
    assert check_pretrained(folder).licence is None


def test_warnings_of_a_load_are_notes_and_are_not_logged(tmp_path, caplog):
    shutil.copy(golden("vit") / "model.safetensors", tmp_path)
    fields = json.loads((golden("vit") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**fields, "label2id": {"a": 1}}))
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "Nonsense"}')
    report = check_pretrained(tmp_path)
    assert report.loads
    assert "cannot be used: " in str(report.image_processor)
    assert caplog.messages == []
    FlaxViTClsForImageClassification.from_pretrained(tmp_path)
    assert sorted(caplog.messages) == sorted(report.notes)


def test_the_verb_prints_what_the_checkpoint_is_and_ends_with_its_problem(hub, large, capsys):
    repo_id = push(hub, large)
    assert main(["check", repo_id]) == 0
    shown = capsys.readouterr().out
    assert "head             5 classes: LABEL_0, LABEL_1, LABEL_2, ..." in shown
    assert "licence          my-licence" in shown
    assert main(["check", "user/nowhere", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["loads"] is False
    assert err == f"vit-cls: {json.loads(out)['problem']}\n"


def test_many_checkpoints_make_a_table_and_a_failure_stops_nothing(hub, large, capsys, monkeypatch):
    names = [(name, {}) for name in (push(hub, large), "user/no|where", push(hub, {}), push(hub, large))]
    with pytest.raises(CheckpointError, match="2 of 4 checkpoints do not load"):
        run_all(names, as_json=False)
    out, err = capsys.readouterr()
    rows = out.splitlines()
    assert [row.split(" | ")[1] for row in rows] == ["loads", "---", "yes", "no", "no", "yes"]
    assert len({row.count("|") for row in rows}) == 1
    assert len(err.splitlines()) == 2

    def fails(*_, **__):
        raise RuntimeError("out\nof luck")

    monkeypatch.setattr("modeling_vit_cls.pretrained.check.check_pretrained", fails)
    with pytest.raises(CheckpointError, match="1 of 1"):
        run_all(names[:1], as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["problem"] == "RuntimeError: out of luck"


def test_a_hub_that_does_not_answer_is_no_verdict(monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    report = check_pretrained("user/somewhere")
    assert report.loads is None
    assert report.problem
    assert main(["check", "user/somewhere"]) == 1
    assert "loads            not known" in capsys.readouterr().out


def test_a_base_on_a_hub_that_does_not_answer_is_no_verdict_on_its_adapter(tmp_path, monkeypatch):
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": "user/base"})
    )
    save_file(
        {"base_model.model.q.lora_A.weight": np.ones((2, 4)), "base_model.model.q.lora_B.weight": np.ones((4, 2))},
        tmp_path / "adapter_model.safetensors",
    )
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    report = check_pretrained(tmp_path)
    assert report.loads is None
    assert "its base model cannot be read" in str(report.problem)
