"""The student in the package: what it says it is, what it weighs, and that it steers."""

from __future__ import annotations

import numpy as np
import pytest

from camctrl_jax.checkpoints.pipelines import load_pipeline, open_model
from camctrl_jax.checkpoints.weights import default_folder, open_weights, student_folder
from camctrl_jax.clip_shape import ClipShape
from camctrl_jax.errors import InvalidValue
from camctrl_jax.metrics.psnr import psnr
from camctrl_jax.sampling.pipeline import ClipBatch
from camctrl_jax.sampling.students import usual_sampling
from camctrl_jax.worlds import WorldsConfig, caption_phrasings, render_rgb, sample_world

SHAPE = ClipShape(17, 96, 160)


def test_it_is_a_flow_map_of_the_default_weights_that_takes_four_steps():
    model, autoencoder = open_model("student")
    assert model.distilled.method == "flow_map"
    assert model.distilled.guidance_folded == {"text": 1.0, "camera": 2.0, "camera_without_text": None}
    assert model.delta.of == "default"
    assert model.delta.fingerprint == model.distilled.teacher_sha256
    assert autoencoder.path == default_folder()
    assert usual_sampling(model.sampling, model.distilled).steps == 4
    assert usual_sampling(model.sampling, model.distilled, steps=1).steps == 1
    with pytest.raises(InvalidValue, match="these weights are a student made for"):
        usual_sampling(model.sampling, model.distilled, steps=3)


def test_it_is_small_and_made_of_the_default_weights_that_are_here():
    sizes = [path.stat().st_size for path in student_folder().iterdir()]
    assert sum(sizes) < 14_000_000
    student, teacher = (open_weights(spec).mmdit_params(dtype=None) for spec in ("student", "default"))
    assert student.keys() - teacher.keys() == {"target_time_embed"}


@pytest.mark.slow
def test_in_one_step_it_follows_the_camera_and_repeats_itself():
    config = WorldsConfig(frames=SHAPE.frames, aspect=SHAPE.width / SHAPE.height)
    worlds = [sample_world(seed, config) for seed in range(1_000_000, 1_000_004)]
    truth = render_rgb(worlds, SHAPE.height, SHAPE.width)
    texts = [caption_phrasings(world)[0] for world in worlds]
    paths = [world.cameras for world in worlds]
    clips = ClipBatch(texts, [0, 1, 2, 3], SHAPE, paths, truth[:, :1])
    found = []
    for _ in range(2):
        pipeline = load_pipeline(*open_model("student"))
        sampling = usual_sampling(pipeline.defaults, pipeline.distilled, steps=1)
        found.append(np.asarray(pipeline.autoencoder.decode(pipeline.sample(clips, sampling))))
    np.testing.assert_array_equal(found[0], found[1])
    repeated = np.broadcast_to(truth[:, :1], truth.shape)
    scored = slice(5, None)
    gain = psnr(found[0][:, scored], truth[:, scored]) - psnr(repeated[:, scored], truth[:, scored])
    assert gain.mean() > 0.5, gain
