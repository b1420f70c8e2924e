"""Every test process gets its own Hub on 127.0.0.1, an empty cache."""

import os
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from local_hub import LocalHub

# Tiny models: compiling is all the time. Loops that LLVM gets as loops compile in a third of the time of fusions, an
# option that jaxlib 0.12 does not know, and an unknown one ends the process.
_XLA_FLAGS = "--xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):
    _XLA_FLAGS += " --xla_cpu_use_fusion_emitters=false"

# Before huggingface_hub and jax are imported, which read their settings then.
_HUB = LocalHub()
_HOME = tempfile.TemporaryDirectory()
os.environ.update(
    HF_ENDPOINT=_HUB.url,
    HF_TOKEN="hf_" + "x" * 34,
    HF_HOME=_HOME.name,
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_UPDATE_DOWNLOAD_COUNTS="0",  # evaluate would tell a server outside
    TRANSFORMERS_NO_ADVISORY_WARNINGS="1",
    JAX_PLATFORMS=os.environ.get("JAX_PLATFORMS", "cpu"),
    XLA_FLAGS=os.environ.get("XLA_FLAGS", _XLA_FLAGS),
)
for _name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
    os.environ.pop(_name, None)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from matrix import Tally, table
from safetensors.numpy import load_file, save_file

from modeling_vit_cls import FlaxViTClsForImageClassification, ViTClsConfig

jax.config.update("jax_numpy_rank_promotion", "raise")

# What an earlier run, in either world, has compiled is not compiled again. Each process writes into a folder of its
# own, which begins with links to what there is: nobody reads half of a program, whatever a test kills.
_COMPILED = Path(__file__).parents[1] / "build" / "compiled"
_COMPILED.mkdir(parents=True, exist_ok=True)
_OWN = tempfile.TemporaryDirectory(dir=_COMPILED)
for _program in (entry for entry in _COMPILED.iterdir() if entry.is_file()):
    os.link(_program, Path(_OWN.name) / _program.name)
jax.config.update("jax_compilation_cache_dir", _OWN.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_enable_xla_caches", "none")  # else the folder's name is part of each key

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TINY |= {"image_size": 8, "patch_size": 4, "num_labels": 5}


def tiny_config(**overrides) -> ViTClsConfig:
    """8 x 8 images, 4-pixel patches, width 16, depth 2, 5 classes."""
    return ViTClsConfig(**{**TINY, **overrides})


def spread(params, scale: float = 0.3):
    """Parameters far from their initial zeros and ones, so that no bias or norm can be forgotten unseen."""
    leaves, tree = jax.tree.flatten(params)
    generator = np.random.default_rng(0)
    return tree.unflatten([leaf + generator.normal(0, scale, leaf.shape).astype(leaf.dtype) for leaf in leaves])


def tiny_model(model_class=FlaxViTClsForImageClassification, **overrides):
    """A model of `tiny_config` whose parameters are all different from their initial values, drawn by NumPy alone."""

    def scales_of_one(model, *_):
        """What `spread` adds to: compiling the initialisers of each shape takes a second."""
        shapes = flatten_dict(model.params_shape_tree)
        return unflatten_dict(
            {path: np.full(leaf.shape, path[-1] == "scale", leaf.dtype) for path, leaf in shapes.items()}
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_class, "init_weights", scales_of_one)
        model = model_class(tiny_config(**overrides))
    model.params = jax.tree.map(jnp.asarray, spread(model.params))
    return model


def arrays(tree):
    """A tree in NumPy, for formulas by hand: NumPy lets (D,) meet (B, D), which JAX refuses in the tests."""
    return jax.tree.map(np.asarray, tree)


def pixels(batch: int = 2, size: tuple[int, int] = (8, 8), channels: int = 3) -> np.ndarray:
    """Random pixel_values (B, C, H, W)."""
    return np.random.default_rng(1).normal(size=(batch, channels, *size)).astype(np.float32)


def read_npz(file) -> dict[str, np.ndarray]:
    """All arrays of an npz file by name; the file is closed."""
    with np.load(file) as arrays:
        return dict(arrays)


def assert_same(first, second) -> None:
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second)):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def rewrite(folder, change) -> None:
    """Save the folder's tensors again, changed."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "flax"})


@pytest.fixture
def hub() -> LocalHub:
    return _HUB


@pytest.fixture(scope="session")
def model():
    """One classifier for the tests that do not change it."""
    return tiny_model()


@pytest.fixture(scope="session")
def model_folder(model, tmp_path_factory) -> Path:
    """The folder of this classifier, for the tests that copy it."""
    folder = tmp_path_factory.mktemp("model") / "trained"
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(model, tmp_path):
    """A saved classifier."""
    model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def tally(record_property, request) -> Iterator[Tally]:
    """What came of the cases of a test of the matrix; a test that counts none fails."""
    tally = Tally()
    yield tally
    assert tally.outcomes
    record_property("tally", (request.node.name, dict(tally.outcomes), tally.slowest))


def pytest_sessionfinish() -> None:
    """Leave to later runs what this process has compiled, each program in one step."""
    for program in Path(_OWN.name).iterdir():
        program.replace(_COMPILED / program.name)


def pytest_addoption(parser) -> None:
    help_text = "write the outcomes of the faults to benchmarks/results/fault_matrix.md, for docs/guarantees.md"
    parser.addoption("--write-faults", action="store_true", help=help_text)


def pytest_terminal_summary(terminalreporter) -> None:
    """The figures of the matrix, from all processes."""
    reports = [report for report in terminalreporter.getreports("") if report.when == "teardown"]
    rows = [tuple(value) for report in reports for name, value in report.user_properties if name == "tally"]
    if rows:
        terminalreporter.section("faults and their outcomes")
        if terminalreporter.config.getoption("write_faults"):
            from benchmarks.report import write

            write("fault_matrix", table(rows))
        else:
            terminalreporter.write_line("\n".join(table(rows)))
