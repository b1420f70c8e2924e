"""LoRA adapters of PEFT: base plus adapter, merged by the formula of its paper, W + alpha / r * B A."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import arrays
from local_hub import Repository
from safetensors.numpy import load_file, save_file
from test_families import golden

from modeling_vit_cls import (
    CheckpointError,
    FlaxAutoModelForImageClassification,
    FlaxViTClsForImageClassification,
    FlaxViTClsModel,
    check_pretrained,
)

pytestmark = pytest.mark.world

BASE = golden("vit")
PREFIX = "base_model.model."
QUERY = "encoder.layer.0.attention.attention.query"
PROJECTION = "embeddings.patch_embeddings.projection"
SIZES = {QUERY: ((24,), (24,)), "encoder.layer.1.intermediate.dense": ((24,), (32,)), PROJECTION: ((3, 4, 4), (24,))}


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def matrices(module: str, rank: int = 2) -> dict[str, np.ndarray]:
    """A and B of a module, by the names that PEFT gives them."""
    inputs, outputs = SIZES[module]
    ones = (1,) * (len(inputs) - 1)
    name = f"{PREFIX}vit.{module}.lora_"
    return {f"{name}A.weight": draw(rank, *inputs), f"{name}B.weight": draw(*outputs, rank, *ones)}


def adapter(folder: Path, tensors: dict[str, np.ndarray] | None = None, base: str | Path = BASE, **fields: Any) -> Path:
    """A folder as PEFT saves it."""
    told = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 2, "lora_alpha": 6, "bias": "none"}
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**told, **fields}))
    save_file(matrices(QUERY) if tensors is None else tensors, folder / "adapter_model.safetensors")
    return folder


def merged_by_hand(folder: Path, changes: dict[str, float], base: str = "vit", **replaced: np.ndarray) -> Path:
    """The base with B A added to the weights of modules, each times a scale."""
    folder.mkdir()
    tensors = load_file(golden(base) / "model.safetensors")
    prefix = "vit." if base == "vit" else ""
    for module, scale in changes.items():
        a, b = matrices(module, 3 if scale in (3.0, 2.0) else 2).values()
        change = np.einsum("or,r...->o...", b.reshape(b.shape[:2]), a)
        tensors[f"{prefix}{module}.weight"] += np.float32(scale) * change
    save_file({**tensors, **replaced}, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text((golden(base) / "config.json").read_text())
    return folder


def same_numbers(first: Any, second: Any) -> None:
    """Two models have the same parameters but for rounding."""
    leaves = [dict(model_leaves(model)) for model in (first, second)]
    assert leaves[0].keys() == leaves[1].keys()
    for name, leaf in leaves[0].items():
        np.testing.assert_allclose(leaf, leaves[1][name], rtol=1e-5, atol=1e-6, err_msg=name)


def model_leaves(model: Any) -> Any:
    from flax.traverse_util import flatten_dict

    return flatten_dict(arrays(model.params), sep=".").items()


CASES: dict[str, tuple[dict[str, float], dict[str, Any]]] = {
    "one matrix": ({QUERY: 3.0}, {"r": 3, "lora_alpha": 9}),
    "all kinds": (dict.fromkeys(SIZES, 1.5), {"lora_alpha": 3, "target_modules": ["query"], "lora_dropout": 0.1}),
    "rslora": ({QUERY: 6 / 2**0.5}, {"use_rslora": True}),
    "patterns": (
        {QUERY: 2.0, "encoder.layer.1.intermediate.dense": 4.0},
        {"rank_pattern": {"query": 3}, "alpha_pattern": {"1.intermediate.dense": 8}},
    ),
    "defaults of peft": ({QUERY: 4.0}, {"lora_alpha": 8, "fan_in_fan_out": False, "init_lora_weights": "gaussian"}),
    "fan_in_fan_out, which PEFT sets to False for a Linear": ({QUERY: 1.5}, {"lora_alpha": 3, "fan_in_fan_out": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_is_merged_into_its_base(case, tmp_path):
    changes, fields = CASES[case]
    tensors = {}
    for module, scale in changes.items():
        tensors |= matrices(module, 3 if scale in (3.0, 2.0) else 2)
    folder = adapter(tmp_path / "adapter", tensors, **fields)
    model, report = FlaxViTClsForImageClassification.from_pretrained(folder, output_loading_info=True)
    same_numbers(model, FlaxViTClsForImageClassification.from_pretrained(merged_by_hand(tmp_path / "hand", changes)))
    assert report.file_notes == [
        f"a LoRA adapter, merged into its base {golden('vit')} (weights that it changes: {len(changes)})"
    ]
    check = check_pretrained(folder)
    assert (check.loads, check.parameters) == (True, model.num_parameters())


def test_a_base_without_a_prefix_or_with_names_of_version_5_is_as_good(tmp_path):
    model = FlaxViTClsForImageClassification.from_pretrained(adapter(tmp_path / "a", base=golden("vit_v5_names")))
    plain = FlaxViTClsForImageClassification.from_pretrained(golden("vit_v5_names"))
    a, b = matrices(QUERY).values()
    kernel = "vit_cls.encoder.layer_00.attention.query.kernel"
    np.testing.assert_allclose(
        dict(model_leaves(model))[kernel], dict(model_leaves(plain))[kernel] + 3 * (b @ a).T, rtol=1e-5, atol=1e-5
    )
    backbone = FlaxViTClsModel.from_pretrained(adapter(tmp_path / "b", base=golden("vit_pooler")))
    assert backbone.config.representation_size == 24


@pytest.mark.parametrize(("base", "readout"), [("vit_pooler", "cls"), ("dinov2_giant", "cls_mean")])
def test_a_classifier_of_the_adapter_is_that_of_the_model(base, readout, tmp_path):
    width = 24 * (2 if readout == "cls_mean" else 1)
    head = {f"{PREFIX}classifier.weight": draw(7, width), f"{PREFIX}classifier.bias": draw(7)}
    folder = adapter(tmp_path / "adapter", head, base=golden(base), modules_to_save=["classifier"])
    for kind in (FlaxViTClsForImageClassification, FlaxAutoModelForImageClassification):
        model = kind.from_pretrained(folder)
        assert (model.config.readout, model.config.num_classes) == (readout, 7)
        np.testing.assert_array_equal(model.params["classifier"]["kernel"], draw(7, width).T)
    assert model.config.representation_size is None
    report = check_pretrained(folder)
    assert (report.loads, report.labels) == (True, [f"LABEL_{i}" for i in range(7)])


def test_names_of_classes_stay_where_their_number_does(tmp_path):
    names = {"0": "ant", "1": "bee", "2": "cat", "3": "dog", "4": "eel"}
    base = merged_by_hand(tmp_path / "base", {})
    fields = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**fields, "id2label": names}))
    for classes, expected in ((5, list(names.values())), (2, ["LABEL_0", "LABEL_1"])):
        head = {f"{PREFIX}classifier.weight": draw(classes, 24), f"{PREFIX}classifier.bias": draw(classes)}
        model = FlaxViTClsForImageClassification.from_pretrained(adapter(tmp_path / str(classes), head, base=base))
        assert list(model.config.id2label.values()) == expected


def test_a_processor_beside_the_adapter_comes_before_that_of_the_base(tmp_path):
    folder = adapter(tmp_path / "adapter")
    size = {"height": 16, "width": 16}
    processor = {"image_processor_type": "ViTImageProcessor", "size": size, "image_mean": [0.1, 0.2, 0.3]}
    assert FlaxViTClsForImageClassification.from_pretrained(folder).image_processor.image_mean == [0.5] * 3
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    assert FlaxViTClsForImageClassification.from_pretrained(folder).image_processor.image_mean == [0.1, 0.2, 0.3]


def test_half_precision_of_the_base_stays(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    tensors = {
        name: tensor.astype(np.float16) for name, tensor in load_file(golden("vit") / "model.safetensors").items()
    }
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    (base / "config.json").write_text((golden("vit") / "config.json").read_text())
    model = FlaxViTClsForImageClassification.from_pretrained(adapter(tmp_path / "adapter", base=base))
    assert {leaf.dtype for _, leaf in model_leaves(model)} == {np.dtype(np.float16)}


def test_base_and_adapter_come_from_the_hub(hub, tmp_path):
    folder = adapter(tmp_path / "adapter", base="user/peft-base", revision="main")
    for repo_id, files in {"user/peft-base": golden("vit"), "user/peft-adapter": folder}.items():
        hub.repositories[repo_id] = Repository()
        names = [file for file in files.iterdir() if file.suffix in (".json", ".safetensors")]
        hub.repositories[repo_id].commit({file.name: file.read_bytes() for file in names}, "theirs", "main")
    report = check_pretrained("user/peft-adapter")
    assert (report.loads, report.problem) == (True, None)
    assert report.notes == [
        "user/peft-adapter: a LoRA adapter, merged into its base user/peft-base (weights that it changes: 1)"
    ]
    model = FlaxViTClsForImageClassification.from_pretrained("user/peft-adapter")
    same_numbers(model, FlaxViTClsForImageClassification.from_pretrained(adapter(tmp_path / "adapter")))
    gone = adapter(tmp_path / "gone", base="user/gone")
    with pytest.raises(CheckpointError, match="is a LoRA adapter, and its base model cannot be read: user/gone"):
        FlaxViTClsForImageClassification.from_pretrained(gone)


REFUSED = {
    "peft_type": "IA3",
    "use_dora": True,
    "lora_bias": True,
    "bias": "all",
    "init_lora_weights": "pissa",
    "layer_replication": [[0, 1]],
    "trainable_token_indices": [1],
    "base_model_name_or_path": None,
    "r": 0,
    "lora_alpha": "x",
    "rank_pattern": {"(": 2},
    "alpha_pattern": {"query": None},
}


@pytest.mark.parametrize("field", REFUSED)
def test_anything_but_plain_lora_is_refused_by_its_field(field, tmp_path):
    folder = adapter(tmp_path / "adapter", **{field: REFUSED[field]})
    with pytest.raises(CheckpointError, match=rf"adapter_config.json: .*{field}") as error:
        FlaxViTClsForImageClassification.from_pretrained(folder)
    assert check_pretrained(folder).problem == str(error.value)


def wrong(name: str) -> dict[str, np.ndarray]:
    """Tensors of an adapter with one that does not belong to it."""
    whole, (a, b) = matrices(QUERY), list(matrices(QUERY))
    vit = f"{PREFIX}vit."
    return {
        "without B": {a: whole[a]},
        "another rank": {a: draw(3, 24), b: draw(24, 3)},
        "another width": {a: draw(2, 20), b: whole[b]},
        "not two axes": {a: draw(2), b: whole[b]},
        "integers": {**whole, a: np.ones((2, 24), np.int32)},
        "a module that the model does not have": {
            a.replace("query", "qkv"): whole[a],
            b.replace("query", "qkv"): whole[b],
        },
        "a block too many": {a.replace("layer.0", "layer.7"): whole[a], b.replace("layer.0", "layer.7"): whole[b]},
        "a magnitude of DoRA": {**whole, f"{vit}{QUERY}.lora_magnitude_vector": draw(24)},
        "no prefix": {**whole, "classifier.weight": draw(5, 24)},
        "a module of another task": {**whole, f"{PREFIX}decoder.weight": draw(5, 24)},
        "a bias alone": {**whole, f"{PREFIX}classifier.bias": draw(4)},
    }[name]


WRONG = [
    *(
        "without B",
        "another rank",
        "another width",
        "not two axes",
        "integers",
        "a module that the model does not have",
    ),
    *("a block too many", "a magnitude of DoRA", "no prefix", "a module of another task"),
    "a bias alone",
]


@pytest.mark.parametrize("name", WRONG)
def test_a_tensor_that_does_not_fit_is_named(name, tmp_path):
    folder = adapter(tmp_path / "adapter", wrong(name))
    with pytest.raises(
        CheckpointError, match=r"adapter_model.safetensors: tensor '(base_model.model.|classifier)"
    ) as error:
        FlaxViTClsForImageClassification.from_pretrained(folder)
    assert check_pretrained(folder).problem == str(error.value)


@pytest.mark.parametrize("matrix", ["A", "B"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_an_adapter_that_is_not_finite_is_named(matrix, value, tmp_path):
    tensors = matrices(QUERY)
    name = f"{PREFIX}vit.{QUERY}.lora_{matrix}.weight"
    tensors[name][1, 1] = value
    folder = adapter(tmp_path / "adapter", tensors)
    message = f"{folder / 'adapter_model.safetensors'}: tensor {name!r} has NaN or infinite numbers"
    with pytest.raises(CheckpointError, match=re.escape(message)):
        FlaxViTClsForImageClassification.from_pretrained(folder)


def test_a_base_that_is_ours_or_an_adapter_or_pickled_is_refused(folder, tmp_path):
    with pytest.raises(CheckpointError, match="is a checkpoint of this package, which PEFT does not know"):
        FlaxViTClsForImageClassification.from_pretrained(adapter(tmp_path / "ours", base=folder))
    with pytest.raises(CheckpointError, match="is a LORA adapter of PEFT for .*, not a whole model"):
        FlaxViTClsForImageClassification.from_pretrained(adapter(tmp_path / "two", base=adapter(tmp_path / "one")))
    pickled = adapter(tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model.bin: pickled weights are never read"):
        FlaxViTClsForImageClassification.from_pretrained(pickled)


@pytest.mark.parametrize("base", ["clip_model", "siglip_model"])
def test_of_a_whole_clip_the_adapter_of_the_image_tower_is_merged(base, tmp_path):
    tensors = load_file(golden(base) / "model.safetensors")
    changes, lora = {}, {}
    for tower in ("vision_model", "text_model"):
        name = f"{tower}.encoder.layers.0.self_attn.q_proj"
        out, width = tensors[f"{name}.weight"].shape
        lora |= {f"{PREFIX}{name}.lora_A.weight": draw(2, width), f"{PREFIX}{name}.lora_B.weight": draw(out, 2)}
        changes[f"{name}.weight"] = 3 * draw(out, 2) @ draw(2, width)
    folder = adapter(tmp_path / "adapter", lora, base=golden(base))
    model, report = FlaxViTClsModel.from_pretrained(folder, output_loading_info=True)
    by_hand = tmp_path / "hand"
    by_hand.mkdir()
    tensors |= {name: tensors[name] + change for name, change in changes.items()}
    save_file(tensors, by_hand / "model.safetensors")
    (by_hand / "config.json").write_text((golden(base) / "config.json").read_text())
    same_numbers(model, FlaxViTClsModel.from_pretrained(by_hand))
    assert report.file_notes[0].endswith("(weights that it changes: 1)")


def test_a_mask_token_beside_trained_embeddings_is_left_out_as_that_of_the_base(tmp_path):
    folder = adapter(tmp_path / "a", {**matrices(QUERY), f"{PREFIX}vit.embeddings.mask_token": draw(1, 1, 24)})
    model = FlaxViTClsForImageClassification.from_pretrained(folder)
    same_numbers(model, FlaxViTClsForImageClassification.from_pretrained(adapter(tmp_path / "b")))


def test_an_adapter_beside_its_base_is_merged_into_it(tmp_path):
    folder = merged_by_hand(tmp_path / "both", {})
    adapter(folder, base=folder, lora_alpha=3)
    model, report = FlaxViTClsForImageClassification.from_pretrained(folder, output_loading_info=True)
    by_hand = merged_by_hand(tmp_path / "hand", {QUERY: 1.5})
    same_numbers(model, FlaxViTClsForImageClassification.from_pretrained(by_hand))
    assert report.file_notes == [f"a LoRA adapter, merged into its base {folder} (weights that it changes: 1)"]
    assert check_pretrained(folder).notes == [f"{folder}: {report.file_notes[0]}"]
    with pytest.raises(CheckpointError, match="is a LORA adapter of PEFT for .*, not a whole model"):
        FlaxViTClsForImageClassification.from_pretrained(adapter(tmp_path / "of_both", base=folder))


@pytest.mark.parametrize("base", [BASE, "user/elsewhere", None])
def test_whole_weights_beside_an_adapter_of_another_base_are_refused(base, tmp_path):
    folder = merged_by_hand(tmp_path / "both", {})
    adapter(folder, base_model_name_or_path=base and str(base))
    message = f"{folder}: holds both whole weights and an adapter of PEFT"
    with pytest.raises(CheckpointError, match=re.escape(message)) as error:
        FlaxViTClsForImageClassification.from_pretrained(folder)
    assert check_pretrained(folder).problem == str(error.value)
    plain = FlaxViTClsForImageClassification.from_pretrained(folder / "model.safetensors")
    same_numbers(plain, FlaxViTClsForImageClassification.from_pretrained(BASE))
    if base == BASE:
        merged = FlaxViTClsForImageClassification.from_pretrained(folder / "adapter_model.safetensors")
        same_numbers(merged, FlaxViTClsForImageClassification.from_pretrained(adapter(tmp_path / "alone")))


def test_the_parent_of_an_adapter_names_the_subfolder(tmp_path):
    adapter(tmp_path / "other")
    with pytest.raises(CheckpointError, match="is no checkpoint, .*: give subfolder='other'"):
        FlaxViTClsForImageClassification.from_pretrained(tmp_path)
    FlaxViTClsForImageClassification.from_pretrained(tmp_path, subfolder="other")


def test_a_merged_model_is_saved_whole(tmp_path):
    model = FlaxViTClsForImageClassification.from_pretrained(adapter(tmp_path / "adapter"))
    model.save_pretrained(tmp_path / "saved")
    same_numbers(FlaxViTClsForImageClassification.from_pretrained(tmp_path / "saved"), model)
    model.save_pretrained(tmp_path / "adapter")  # over the adapter, whose files stay
    same_numbers(FlaxViTClsForImageClassification.from_pretrained(tmp_path / "adapter"), model)
