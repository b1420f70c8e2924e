"""A run goes on on other numbers of devices."""

import numpy as np
import pytest
from children import finished, start
from runs_on_meshes import HALF, WHOLE, second_half
from safetensors.numpy import load_file

from modeling_vit_cls import ConfigError

STATE = "training_state.safetensors"


def test_a_run_goes_on_on_other_numbers_of_devices(tmp_path):
    """Not the same bits on another mesh: it sums in another order, and AdamW divides noise by noise in key's bias."""
    finished(start("runs_on_meshes.py", tmp_path, devices=8))
    whole = tmp_path / "whole" / "run"
    second_half(whole, tmp_path / "one", 16)
    assert (tmp_path / "data=8" / "run" / WHOLE / STATE).read_bytes() == (whole / WHOLE / STATE).read_bytes()
    expected = load_file(whole / WHOLE / STATE)
    before = load_file(whole / HALF / STATE)
    for folder in ("fsdp=8", "one"):
        arrays = load_file(tmp_path / folder / "run" / WHOLE / STATE)
        assert set(arrays) == set(expected)
        for name, array in arrays.items():
            np.testing.assert_allclose(array, expected[name], rtol=1e-3, atol=2e-4, err_msg=f"{folder}: {name}")
        assert np.abs(arrays["params.classifier.kernel"] - before["params.classifier.kernel"]).max() > 5e-4
    with pytest.raises(ConfigError, match="gives 2 images of all devices in an update, .* had 16: use 16"):
        second_half(whole, tmp_path / "smaller", 2)
