"""Two entries say that weights are a flow map; weights in which they disagree are not opened."""

import json

import jax
import numpy as np
import pytest
from nano_weights import SAMPLING, TEXT, random_params, save_run

from camctrl_jax.checkpoints.architecture import Architecture
from camctrl_jax.checkpoints.weights import WeightsError, expected_mmdit, open_weights, save_weights_folder
from camctrl_jax.interop.described import Distilled
from camctrl_jax.models import mmdit_preset

FLOW_MAP = Distilled("flow_map", "", {"camera": 2.0}, (4, 1, 2))
CONSISTENCY = Distilled("consistency", "", {"camera": 2.0}, (1,))
CASES = [
    (True, FLOW_MAP, None),
    (False, CONSISTENCY, None),
    (False, None, None),
    (False, FLOW_MAP, "target_time is false, and distilled.method 'flow_map'"),
    (True, CONSISTENCY, "target_time is true, and distilled.method 'consistency'"),
    (True, None, "target_time is true, and distilled.method None"),
]


def opened(spec, refused):
    """The weights, or None where they are refused by these words."""
    if refused is None:
        return open_weights(str(spec))
    with pytest.raises(WeightsError, match=refused) as error:
        open_weights(str(spec))
    assert str(spec) in str(error.value)
    return None


@pytest.mark.parametrize(("told", "distilled", "refused"), CASES)
def test_a_weights_folder_is_a_flow_map_in_both_entries_or_in_neither(tmp_path, told, distilled, refused):
    config = mmdit_preset("nano", num_single=1, target_time=told)
    folder = save_weights_folder(
        tmp_path / "weights",
        mmdit=(config, random_params(expected_mmdit(config), 1)),
        text=TEXT,
        sampling=SAMPLING,
        distilled=distilled,
        card="# nano\n",
    )
    weights = opened(folder, refused)
    assert weights is None or weights.mmdit_config.target_time == told
    assert json.loads((folder / "model.json").read_text())["mmdit"]["target_time"] == told


@pytest.mark.parametrize(("told", "distilled", "refused"), CASES)
def test_a_run_is_a_flow_map_in_both_entries_or_in_neither(tmp_path, told, distilled, refused):
    config = mmdit_preset("nano", num_single=1, target_time=told)
    built = Architecture(mmdit=config, text=TEXT, distilled=distilled)
    params = jax.tree.map(np.asarray, {"x": np.zeros(1)})
    weights = opened(save_run(tmp_path / "run", params, built.to_json()), refused)
    assert weights is None or weights.distilled == distilled
