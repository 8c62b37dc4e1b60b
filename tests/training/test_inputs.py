"""What a run reads, as far as its settings can be wrong."""

import numpy as np
import pytest
from stored_text import write_text_file

from camctrl_jax.training.config import default_config
from camctrl_jax.training.inputs import embedder_of, preview_clips
from camctrl_jax.training.values import ConfigError


def config_of(**changes):
    config = default_config()
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.safetensors"
    write_text_file(path, {"": np.ones((1, 8), np.float32)}, max_tokens=4)
    return str(path)


def test_embeddings_that_are_not_there_are_named_with_their_key(tmp_path):
    config = config_of(**{"data.text.source": str(tmp_path / "none.safetensors")})
    with pytest.raises(ConfigError, match=r"config\.data\.text\.source=.*none\.safetensors"):
        embedder_of(config)


def test_embeddings_of_another_width_are_refused_with_the_right_one(text_file):
    with pytest.raises(ConfigError, match=r"set --config\.data\.text\.dim=8"):
        embedder_of(config_of(**{"data.text.source": text_file, "data.text.dim": 16}))
    assert embedder_of(config_of(**{"data.text.source": text_file, "data.text.dim": 8})).dim == 8


def test_worlds_whose_captions_have_no_embedding_are_refused_with_a_remedy(text_file):
    sizes = {"data.height": 16, "data.width": 32, "data.worlds.frames": 1, "data.worlds.samples": 1}
    text = {"data.text.source": text_file, "data.text.dim": 8, "data.frames": 1, "data.worlds.workers": 0}
    with pytest.raises(ConfigError, match=r"holds no embedding of .*--config\.sample_every=0"):
        preview_clips(config_of(**sizes, **text))
