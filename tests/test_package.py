"""The package as its users meet it: imported, installed elsewhere, run from a shell."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import modeling_vit_cls
from hub_scripts.__main__ import main

ROOT = Path(__file__).parents[1]


def run(program: str, *, cwd: Path, python: str | Path = sys.executable) -> str:
    """Output of a Python program in a process of its own, as users run it: without the tests' flags of XLA."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [python, "-c", program]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.world
def test_public_names():
    for name in modeling_vit_cls.__all__:
        assert getattr(modeling_vit_cls, name) is not None


NO_TORCH_NO_NETWORK = """
import sys
sys.modules.update(dict.fromkeys(("torch", "torchvision", "tensorflow", "timm")))  # as if they were not installed
def connect(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise RuntimeError(f"{event} {args}")
sys.addaudithook(connect)
import modeling_vit_cls
modeling_vit_cls.vit_cls_forward(0, __import__("numpy").zeros((4, 4, 3), "float32"), 2, 8, 2, 16, 2, 10)
"""


@pytest.mark.world
def test_import_needs_no_torch_and_no_network(tmp_path):
    run(NO_TORCH_NO_NETWORK, cwd=tmp_path)


# What the package needs of its dependencies, imported by name; then the package itself.
IMPORT_TIME = """
import time
start = time.process_time()
import jax, jax.numpy, flax.linen, flax.struct, flax.traverse_util, huggingface_hub, safetensors.numpy, PIL.ImageOps
import transformers
from transformers import AutoConfig, AutoImageProcessor, BaseImageProcessor, BatchFeature, PretrainedConfig
from transformers.utils import ModelOutput
from huggingface_hub import HfApi, snapshot_download, split_state_dict_into_shards_factory
if hasattr(transformers, "FlaxAutoModel"):
    from transformers import FlaxAutoModelForImageClassification, FlaxPreTrainedModel
middle = time.process_time()
import modeling_vit_cls
print((time.process_time() - start) / (middle - start))
"""


def test_import_time_is_that_of_the_dependencies(tmp_path):
    assert min(float(run(IMPORT_TIME, cwd=tmp_path)) for _ in range(2)) < 1.3


def test_wheel_works_elsewhere(tmp_path):
    """Built, installed without the source tree into a fresh environment that borrows the dependencies, and used."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"modeling_vit_cls/cards/card.md.jinja", "modeling_vit_cls/CITATION.cff"} <= names
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    dependencies = Path(next(path for path in sys.path if path.endswith("site-packages")))
    site = Path(run("import site; print(site.getsitepackages()[0])", cwd=tmp_path, python=python).strip())
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    # After the wheel's own folder on the path, and without the .pth file that leads to the source tree.
    (site / "dependencies.pth").write_text(f"import sys; sys.path.append({str(dependencies)!r})\n")
    used = run("import modeling_vit_cls as v; print(v.__file__); v.list_variants()", cwd=tmp_path, python=python)
    assert Path(used.strip()).is_relative_to(tmp_path)
    shown = subprocess.run(
        [tmp_path / "env" / "bin" / "vit-cls", "variants", "*_base_*", "--json"], capture_output=True, check=True
    )
    assert json.loads(shown.stdout)[0]["name"] == "vit_cls_base_patch32_224"
    shown = subprocess.run([tmp_path / "env" / "bin" / "vit-cls", "recipes", "--json"], capture_output=True, check=True)
    shown_models = [tmp_path / "env" / "bin" / "vit-cls", "models", "--json"]
    models = json.loads(subprocess.run(shown_models, capture_output=True, check=True).stdout)
    assert [row["hub_id"] for row in models] == [row.hub_id for row in modeling_vit_cls.list_pretrained()]
    recipes = sorted(file.stem for file in (ROOT / "configuration").glob("*.yaml"))
    assert [row["name"] for row in json.loads(shown.stdout)] == recipes


def test_variants_verb(capsys):
    assert main(["variants", "*_tiny_*"]) == 0
    first = capsys.readouterr().out.splitlines()[1]
    assert first.split()[:3] == ["vit_cls_tiny_patch16_224", "5,717,416", "2.5"]
    assert main(["variants", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == modeling_vit_cls.list_variants()


def test_verbs_fail_in_one_line(capsys):
    assert main(["variants", "resnet*"]) == 1
    assert capsys.readouterr().err == "vit-cls: no variant matches 'resnet*'; `vit-cls variants` lists them all\n"
    with pytest.raises(ValueError, match="resnet"):
        main(["--debug", "variants", "resnet*"])
    for arguments in ([], ["variant"]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
    with pytest.raises(SystemExit) as stopped:
        main(["variants", "--help"])
    assert stopped.value.code == 0
    assert "example: vit-cls variants '*_base_*'" in capsys.readouterr().out


@pytest.mark.world
@pytest.mark.parametrize(
    "what", ["import modeling_vit_cls", "import hub_scripts.command, modeling_vit_cls.training.run"]
)
def test_importing_says_nothing_and_leaves_the_environment(what, tmp_path):
    program = f"import os, hub_scripts.__main__; {what}; assert 'TRANSFORMERS_NO_ADVISORY_WARNINGS' not in os.environ"
    environment = {k: v for k, v in os.environ.items() if k != "TRANSFORMERS_NO_ADVISORY_WARNINGS"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment, check=True
    )
    assert done.stdout + done.stderr == ""
