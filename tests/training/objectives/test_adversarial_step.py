"""The adversarial step on tiny networks: each learns its own, and both see all there is."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from nano_batches import TEXT_TOKENS, batch_of
from nano_weights import SAMPLING, TEXT, random_params, save_nano

from camctrl_jax.checkpoints.runs import Checkpoints
from camctrl_jax.checkpoints.weights import open_weights, save_weights_folder
from camctrl_jax.data.text import WordEmbedder
from camctrl_jax.diffusion.adversarial import AdversarialConfig
from camctrl_jax.diffusion.condition import NullText
from camctrl_jax.diffusion.flow import FlowConfig
from camctrl_jax.diffusion.guidance import Guidance
from camctrl_jax.diffusion.sampler import Sampling, sample
from camctrl_jax.interop.described import Distilled
from camctrl_jax.models import MMDiT, leading_to, mmdit_preset, vae_preset
from camctrl_jax.models.critic import Critic, CriticConfig
from camctrl_jax.parallel.mesh import MeshConfig, make_mesh
from camctrl_jax.sampling.pipeline import Denoiser
from camctrl_jax.training.objectives.adversarial import DISCRIMINATOR, Adversarial
from camctrl_jax.training.program import Program
from camctrl_jax.training.state import Trained
from camctrl_jax.training.students import Teacher
from camctrl_jax.training.synthetic import SYNTHETIC, SyntheticClips
from camctrl_jax.training.update import Update
from camctrl_jax.training.values import ConfigError

MODEL = mmdit_preset("nano", num_dual=1, num_single=1)
SETTINGS = AdversarialConfig(penalty=1.0, fake_penalty=0.5, centering=0.01, wrong_camera=0.5)
SGD = Update(optax.sgd(0.05), ema_decay=0.9)
STILL = Update(optax.set_to_zero())
OBJECTIVE = Adversarial(
    update=SGD,
    model=MODEL,
    vae=vae_preset("nano"),
    flow=FlowConfig(shift=1.5),
    embedder=WordEmbedder(dim=64, max_tokens=TEXT_TOKENS),
    teacher=Teacher("random", None, Guidance(camera=2.0)),
    method="adversarial",
    valid_steps=(1,),
    settings=SETTINGS,
    critic=Critic(CriticConfig(MODEL)),
    critic_update=SGD,
)
KEY = jax.random.key(3)


def started(objective=OBJECTIVE):
    """A state whose critic begins as the teacher, with random heads."""
    params = random_params(MMDiT(replace(objective.model, scan_layers=False)).abstract_params(), 7)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    state = Program(objective, mesh).create(params, KEY, objective.starting_others(mesh))
    critic = state.others[DISCRIMINATOR]
    judgement = random_params(critic.params["judgement"], 8)
    critic = replace(critic, params=critic.params | {"judgement": judgement})
    return replace(state, others={DISCRIMINATOR: critic})


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def differs(one, other):
    return any(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)))


@pytest.fixture(scope="module")
def state():
    return started()


@pytest.fixture(scope="module")
def step():
    return jax.jit(OBJECTIVE.step)


@pytest.fixture(scope="module")
def inputs():
    return jax.device_put(OBJECTIVE.examples(batch_of(5), KEY, {}).inputs)


def test_the_critic_begins_as_the_teacher_and_the_generator_as_it_was_given(state):
    teacher = OBJECTIVE.teacher.start(MODEL, None)
    backbone = state.others[DISCRIMINATOR].params["backbone"]
    assert teacher.keys() - backbone.keys() == {"norm_out", "proj_out"}
    same(backbone, {name: teacher[name] for name in backbone})
    assert differs(backbone, {name: state.params[name] for name in backbone})
    same(state.params, state.ema)


@pytest.mark.slow
def test_an_update_of_the_critic_leaves_the_generator_as_it_was(state):
    waiting = replace(OBJECTIVE, critic_first=2)
    after, metrics = jax.jit(waiting.step)(state, batch_of(5), KEY, {})
    for name in ("params", "ema", "opt_state"):
        same(getattr(after, name), getattr(state, name))
    assert differs(after.others, state.others)
    assert int(after.step) == 1
    assert float(metrics["grad_norm"]) == float(metrics["learning_rate"]) == 0.0
    assert float(metrics["loss"]) > 0


@pytest.mark.parametrize("accumulate", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_a_generator_that_waits_begins_where_one_begins_that_does_not(accumulate):
    """Its rates and the warm-up of its average count its own updates, not those of the critic before."""
    rate = optax.linear_schedule(0.1, 0.05, 2)
    update = Update(optax.sgd(rate), schedule=rate, ema_decay=0.9, accumulate=accumulate)
    still = replace(STILL, accumulate=accumulate)
    waiting = replace(OBJECTIVE, update=update, critic_update=still, critic_first=2)
    step, at = jax.jit(waiting.step), [started(waiting)]
    rates = []
    for _ in range(4):
        after, metrics = step(at[-1], batch_of(5), KEY, {})
        at.append(after)
        rates.append(float(metrics["learning_rate"]))
    np.testing.assert_allclose(rates, [0.0, 0.0, 0.1, 0.075], rtol=1e-5)
    same(at[2].params, at[0].params)
    # The average is nearly the parameters after its first update, decay 1 / 10, and less so after the second.
    for after, before, decay in ((at[3], at[2], 1 / 10), (at[4], at[3], 2 / 11)):
        expected = jax.tree.map(lambda e, p, d=decay: d * e + (1 - d) * p, before.ema, after.params)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), after.ema, expected)


def test_a_generator_that_waits_has_no_backward_pass(state):
    """Matrix products in either branch of its part of the step."""
    objective = replace(OBJECTIVE, critic_first=2)
    traced = jax.make_jaxpr(objective.step)(state, batch_of(5), KEY, {})
    (choice,) = (each for each in traced.eqns if each.primitive.name == "cond")
    learns, waits = (str(branch).count("dot_general") for branch in choice.params["branches"])
    forward = jax.make_jaxpr(partial(objective.loss, frozen={}))(
        state.params,
        jax.device_put(objective.examples(batch_of(5), KEY, {}).inputs),
        critic=state.others[DISCRIMINATOR].params,
    )
    assert waits == str(forward).count("dot_general")
    assert learns > 1.5 * waits > 0


@pytest.mark.slow
def test_an_update_of_the_generator_leaves_the_critic_as_it_was(state):
    objective = replace(OBJECTIVE, critic_update=STILL)
    after, metrics = jax.jit(objective.step)(state, batch_of(5), KEY, {})
    same(after.others[DISCRIMINATOR].params, state.others[DISCRIMINATOR].params)
    assert differs(after.params, state.params)
    assert float(metrics["critic_grad_norm"]) > 0


def test_a_step_is_an_update_of_the_critic_and_then_one_of_the_generator(step, state):
    """The generator answers to the critic of after its update: with the one of before, it goes elsewhere."""
    both = step(state, batch_of(5), KEY, {})[0]
    only = jax.jit(replace(OBJECTIVE, critic_first=2).step)(state, batch_of(5), KEY, {})[0]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), both.others, only.others)
    stale = jax.jit(replace(OBJECTIVE, critic_update=STILL).step)(state, batch_of(5), KEY, {})[0]
    assert differs(both.params, stale.params)
    fresh = jax.jit(replace(OBJECTIVE, critic_update=STILL).step)(
        replace(
            state, others={DISCRIMINATOR: Trained(only.others[DISCRIMINATOR].params, optax.EmptyState())}
        ),
        batch_of(5),
        KEY,
        {},
    )[0]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), both.params, fresh.params)


def test_the_generator_makes_what_the_sampler_makes_in_one_step(state, inputs):
    condition = OBJECTIVE.condition(inputs)
    null = NullText(inputs["text"][:1], inputs["text_mask"][:1])
    sampled = sample(
        Denoiser(MODEL, jnp.float32),
        state.params,
        inputs["noise"],
        condition,
        null,
        Sampling(Guidance(), 1, 1.5),
    )
    np.testing.assert_allclose(OBJECTIVE.made(state.params, inputs, condition), sampled, rtol=1e-5, atol=1e-5)


def test_logits_and_their_gradient_change_with_all_the_critic_is_told_and_not_with_given_noise(state, inputs):
    critic = state.others[DISCRIMINATOR].params

    @jax.jit
    def judged(inputs, clips):
        condition = OBJECTIVE.condition(inputs)
        logits = OBJECTIVE.judged(critic, clips, inputs, condition)
        return logits, jax.grad(lambda x: OBJECTIVE.judged(critic, x, inputs, condition).sum())(clips)

    clips = inputs["latents"]
    logits, gradient = judged(inputs, clips)
    assert logits.shape == inputs["condition_mask"].shape
    labelled = inputs["camera_valid"]
    shifted = inputs["world_from_camera"].at[:, 1:, :3, 3].add(0.5)
    text, mask = inputs["text"] + 0.5, inputs["condition_mask"].at[:, 0].set(~inputs["condition_mask"][:, 0])
    for changed, affected in (
        ({"world_from_camera": shifted}, labelled),
        ({"text": text}, np.full(5, True)),
        ({"condition_mask": mask}, np.full(5, True)),
    ):
        others = judged({**inputs, **changed}, clips)
        for plain, other in zip((logits, gradient), others):
            moved = np.abs(other - plain).reshape(5, -1).max(axis=1) > 1e-6
            np.testing.assert_array_equal(moved, affected, err_msg=str(changed.keys()))
    given = inputs["condition_mask"][:, :, None, None, None]
    noisy = jnp.where(given, clips + jax.random.normal(KEY, clips.shape), clips)
    assert float(jnp.abs(noisy - clips).max()) > 1
    same(judged(inputs, noisy), (logits, gradient))
    assert float(jnp.abs(jnp.where(given, gradient, 0.0)).max()) == 0.0


def test_a_critic_that_ignores_the_camera_is_caught(state):
    batch = jax.device_put(batch_of(8, labelled=True))
    for weight in (0.0, 0.5):  # measured on held-out clips whether or not it is trained on
        objective = replace(OBJECTIVE, settings=replace(SETTINGS, wrong_camera=weight))
        measure = jax.jit(objective.measure)
        reading = objective.measured(state)
        gap = float(measure(reading, batch, KEY, {})["camera_gap"])
        assert abs(gap) > 1e-4
        critic = reading[DISCRIMINATOR]
        blind = jax.tree.map(jnp.zeros_like, critic["backbone"]["camera_embedder"])
        blind = critic | {"backbone": critic["backbone"] | {"camera_embedder": blind}}
        assert float(measure(reading | {DISCRIMINATOR: blind}, batch, KEY, {})["camera_gap"]) == 0.0
    unlabelled = jax.device_put(batch_of(8, labelled=False))
    assert np.isnan(float(measure(reading, unlabelled, KEY, {})["camera_gap"]))


@pytest.mark.parametrize("kind", ["images", "still", "alike"])
def test_cameras_that_are_right_are_no_wrong_ones(state, kind):
    """Of images, of clips that hold still, and of clips that move alike: nothing is punished or measured."""
    plain = batch_of(4, labelled=True, frames=1 if kind == "images" else 9)
    poses = plain["world_from_camera"].copy()
    poses[:] = np.eye(4) if kind == "still" else poses[:1]
    critic, generator = state.others[DISCRIMINATOR].params, state.params

    @jax.jit
    def judged(batch):
        found = []
        for weight in (0.0, 0.5):
            settings = replace(SETTINGS, wrong_camera=weight)
            own, inputs = replace(OBJECTIVE, settings=settings), OBJECTIVE.examples(batch, KEY, {}).inputs
            found.append(own.critic_loss(critic, inputs, generator, compare_cameras=True))
        (without, _), (punished, aside) = found
        return punished - without, aside.samples["camera_gap"]

    more, gap = judged(plain | {"world_from_camera": poses})
    assert float(more) == 0.0
    assert np.isnan(gap).all()
    # One of four moves otherwise: it and the one that is told its cameras.
    if kind != "images":
        poses[1, 1:, :3, 3] += np.linspace(0.1, 1.0, 8)[:, None]
        more, gap = judged(plain | {"world_from_camera": poses})
        assert float(more) > 0.0
        np.testing.assert_array_equal(np.isnan(gap), [True, False, False, True])


def test_poses_of_unlabelled_clips_are_never_read(step, state):
    plain = batch_of(5)
    poses = plain["world_from_camera"].copy()
    poses[~plain["camera_valid"]] = np.nan
    after, metrics = step(state, plain | {"world_from_camera": poses}, KEY, {})
    same(after, step(state, plain, KEY, {})[0])
    assert np.isfinite(float(metrics["critic_loss"]))


@pytest.mark.slow
def test_the_critic_learns_to_tell_true_clips_from_made_ones_and_the_generator_to_be_taken_for_them():
    adam = Update(optax.adam(2e-3, b1=0.0, b2=0.9), ema_decay=0.9)
    learning = replace(OBJECTIVE, update=adam, critic_update=adam, critic_first=40)
    state, step, seen = started(learning), jax.jit(learning.step), []
    batch = batch_of(8)
    for _ in range(40):
        state, metrics = step(state, batch, KEY, {})
        seen.append({name: float(value) for name, value in metrics.items()})
    assert np.mean([m["gap"] for m in seen[-5:]]) > np.mean([m["gap"] for m in seen[:3]]) + 1.0
    assert np.mean([m["critic_loss"] for m in seen[-5:]]) < np.mean([m["critic_loss"] for m in seen[:3]])
    losses = []
    judging = replace(learning, critic_first=0, critic_update=STILL)
    step = jax.jit(judging.step)
    for _ in range(20):
        state, metrics = step(state, batch, KEY, {})
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:2])


@pytest.mark.parametrize(
    ("logits", "anchor"),
    [
        ("frame", 0.0),
        pytest.param("clip", 0.0, marks=pytest.mark.slow),
        pytest.param("frame", 3.0, marks=pytest.mark.slow),
        pytest.param("clip", 3.0, marks=pytest.mark.slow),
    ],
)
def test_a_batch_in_parts_gives_what_the_whole_gives(state, logits, anchor):
    whole, frozen = with_synthetic_clips(1) if anchor else (OBJECTIVE, {})
    settings = replace(SETTINGS, anchor=anchor)
    whole = replace(whole, critic=Critic(CriticConfig(MODEL, logits)), settings=settings)
    parts = replace(whole, update=replace(SGD, accumulate=2), critic_update=replace(SGD, accumulate=2))
    one, told = jax.jit(whole.step)(state, batch_of(8), KEY, frozen)
    two, metrics = jax.jit(parts.step)(state, batch_of(8), KEY, frozen)
    assert ("real_distance" in told) == bool(anchor)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-6), one, two)
    for name, value in told.items():
        assert float(metrics[name]) == pytest.approx(float(value), rel=1e-3, abs=1e-5, nan_ok=True), name


def test_some_samples_stand_for_all_in_the_penalty(state, inputs):
    """Of every five samples one, whichever is named: the penalty is its own."""
    critic = state.others[DISCRIMINATOR].params
    some = replace(OBJECTIVE, settings=replace(SETTINGS, penalty_every=5))
    every = jax.jit(OBJECTIVE.critic_loss)(critic, inputs, state.params)[1].samples["penalty"]
    one = jax.jit(lambda first: some.critic_loss(critic, inputs, state.params, first=first)[1])
    for first in (0, 2, 4):
        np.testing.assert_allclose(one(first).samples["penalty"], np.full(5, every[first]), rtol=2e-3)


@pytest.mark.slow
def test_every_clip_is_penalised_in_its_turn(state):
    """Five steps of one batch, of which one clip in five has no camera, do not always move the same clip."""
    some = replace(
        OBJECTIVE, settings=replace(SETTINGS, penalty_every=5, wrong_camera=0.0), critic_update=STILL
    )
    some = replace(some, update=STILL)
    firsts = {int(some._first_penalised(jax.random.fold_in(KEY, step))) for step in range(40)}
    assert firsts == set(range(5))
    step, seen = jax.jit(some.step), set()
    for _ in range(4):
        state, metrics = step(state, batch_of(5), KEY, {})
        seen.add(round(float(metrics["penalty"]), 6))
    assert len(seen) > 1


@pytest.mark.slow
def test_retrieved_frames_are_read_by_both_networks(state):
    metrics = jax.jit(OBJECTIVE.step)(state, batch_of(5, retrieved=2), KEY, {})[1]
    assert np.isfinite([float(metrics[name]) for name in ("loss", "critic_loss", "gap", "penalty")]).all()


def test_nan_in_either_network_reaches_what_stops_a_run(state):
    """Also while the generator waits, whose own loss is not minimised then."""
    step = jax.jit(replace(OBJECTIVE, critic_first=2).step)
    critic = state.others[DISCRIMINATOR]
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, critic.params["judgement"]["logit"])
    judgement = critic.params["judgement"] | {"logit": broken}
    bad_critic = replace(critic, params=critic.params | {"judgement": judgement})
    metrics = step(replace(state, others={DISCRIMINATOR: bad_critic}), batch_of(5), KEY, {})[1]
    assert np.isnan(float(metrics["critic_loss"]))
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params["proj_out"])
    metrics = step(replace(state, params=state.params | {"proj_out": broken}), batch_of(5), KEY, {})[1]
    assert np.isnan(float(metrics["loss"]))


@pytest.mark.parametrize("scanned", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_checkpoint_holds_both_networks_at_one_step_and_a_resumed_run_goes_on_with_both(tmp_path, scanned):
    """Both updates are one program: whatever ends a run leaves a state of before both or after both."""
    model = mmdit_preset("nano", num_dual=2 if scanned else 1, num_single=1, scan_layers=scanned)
    adam = Update(optax.adam(1e-3, b1=0.0, b2=0.9), ema_decay=0.9)
    objective = replace(
        OBJECTIVE, model=model, critic=Critic(CriticConfig(model)), update=adam, critic_update=adam
    )
    program = Program(objective, make_mesh(MeshConfig(), jax.devices()[:1]))
    step, states = program.jitted_step, []
    state = program.from_stored(
        jax.device_put(program.to_stored(started(objective)), program.stored_shardings)
    )
    checkpoints = Checkpoints(tmp_path)
    for number in (1, 2):
        state, _ = step(state, batch_of(5), KEY, {})
        states.append(jax.device_get(program.to_stored(state)))
        if number == 1:
            checkpoints.save(1, program.to_stored(state), {}, {})
            checkpoints.wait()
    stored, _ = checkpoints.restore(program.stored_state, program.stored_shardings)
    checkpoints.close()
    assert int(stored.step) == 1
    same(jax.device_get(stored), states[0])
    again, _ = step(program.from_stored(stored), batch_of(5), KEY, {})
    same(jax.device_get(program.to_stored(again)), states[1])
    assert differs(states[0].others, states[1].others)
    assert differs(states[0].params, states[1].params)


def student_folder(directory, **distilled):
    """A weights folder of a nano student."""
    config = mmdit_preset("nano", num_single=1)
    told = {"method": "consistency", "teacher_sha256": "", "guidance_folded": {}, "valid_steps": (1,)}
    return save_weights_folder(
        directory,
        mmdit=(config, random_params(MMDiT(config).abstract_params(), 1)),
        text=TEXT,
        sampling=SAMPLING,
        distilled=Distilled(**told | distilled) if distilled is not None else None,
        card="# student\n",
    )


def test_it_starts_from_a_student_of_one_step_and_nothing_else(tmp_path):
    student = student_folder(tmp_path / "one", guidance_folded={"camera": 2.0})
    OBJECTIVE.check_distilled(open_weights(str(student)))
    many = student_folder(tmp_path / "many", method="progressive", valid_steps=(16,))
    with pytest.raises(ConfigError, match=r"made for \(16,\) steps: adversarial post-training starts from"):
        OBJECTIVE.check_distilled(open_weights(str(many)))
    with pytest.raises(
        ConfigError, match=r"no student: adversarial .* variant 'consistency' of configs/dist"
    ):
        OBJECTIVE.check_distilled(open_weights(str(save_nano(tmp_path / "teacher"))))
    with pytest.raises(ConfigError, match=r"config.init_from='': adversarial post-training starts from"):
        _ = OBJECTIVE.begins_as


def test_a_teacher_of_other_sizes_is_refused(tmp_path):
    folder = open_weights(str(save_nano(tmp_path / "teacher")))
    embedder = WordEmbedder(dim=64, max_tokens=32)
    fitting = replace(OBJECTIVE, teacher=Teacher(folder.spec, folder, Guidance()), embedder=embedder)
    fitting = replace(fitting, flow=FlowConfig(), vae_spec=folder.spec)
    replace(fitting, model=mmdit_preset("nano", num_single=1)).check_teacher()
    with pytest.raises(ConfigError, match=r"has num_single=1, the student .config.model. 3"):
        replace(fitting, model=mmdit_preset("nano")).check_teacher()


def test_its_work_counts_both_networks():
    one = OBJECTIVE.work(batch_of(1)).flops
    fewer = replace(OBJECTIVE, settings=replace(SETTINGS, fake_penalty=0.0, wrong_camera=0.0))
    assert one / fewer.work(batch_of(1)).flops == pytest.approx((3 * 6 + 2 + 2) / (3 * 4 + 2 + 2))


def test_its_step_is_known_before_there_are_arrays():
    """What a pod report compiles: shapes of both networks, of what is frozen, and where they live."""
    program = Program(OBJECTIVE, make_mesh(MeshConfig(), jax.devices()[:1]))
    state = program.abstract_state
    own, critic = (
        sum(leaf.size for leaf in jax.tree.leaves(params))
        for params in (state.params, state.others[DISCRIMINATOR].params["backbone"])
    )
    assert 0.9 * own < critic < own
    assert OBJECTIVE.frozen_shapes().keys() == {"autoencoder"}
    fields = {name: (array.shape, array.dtype) for name, array in batch_of(5).items()}
    key = jax.eval_shape(lambda: jax.random.key(0))
    fields = program.abstract_batch(fields)
    lowered = program.jitted_step.lower(state, fields, key, OBJECTIVE.frozen_shapes())
    assert lowered.out_info[1].keys() >= {"loss", "critic_loss", "gap", "penalty", "camera_gap"}


def with_synthetic_clips(steps):
    student = replace(MODEL, target_time=True)
    made = SyntheticClips(
        Teacher("random", None, Guidance()), steps, student, OBJECTIVE.flow, jnp.float32, OBJECTIVE.placement
    )
    params = random_params(MMDiT(student).abstract_params(), 9)
    return replace(OBJECTIVE, synthetic=made), {SYNTHETIC: params}


@pytest.mark.parametrize("retrieved", [0, 2])
def test_synthetic_clips_are_those_that_the_sampler_makes_of_the_same_noise(retrieved):
    objective, frozen = with_synthetic_clips(4)
    inputs = jax.device_put(objective.examples(batch_of(5, retrieved=retrieved), KEY, frozen).inputs)
    condition, student = objective.condition(inputs), objective.synthetic.model
    null = NullText(inputs["text"][:1], inputs["text_mask"][:1])
    sampling = Sampling(Guidance(), 4, objective.flow.shift)
    velocity = Denoiser(student, jnp.float32)
    expected = sample(velocity, frozen[SYNTHETIC], inputs["noise"], condition, null, sampling)
    found = np.asarray(inputs["real"])
    assert np.linalg.norm(found[:, retrieved:] - expected) <= 1e-5 * np.linalg.norm(expected)
    given = np.asarray(condition.mask)
    np.testing.assert_array_equal(found[given], np.asarray(condition.clean)[given])
    assert given.any()


@pytest.mark.parametrize("kind", ["rp", "ns"])
def test_synthetic_clips_take_the_place_of_true_ones_for_critic_and_generator(state, kind):
    objective, frozen = with_synthetic_clips(2)
    settings = AdversarialConfig(loss=kind, penalty=1.0, wrong_camera=0.5)
    objective = replace(objective, settings=settings)
    inputs = jax.device_put(objective.examples(batch_of(5), KEY, frozen).inputs)
    critic = state.others[DISCRIMINATOR].params
    judged = objective.judged(critic, inputs["real"], inputs, objective.condition(inputs))
    _, aside = objective.critic_loss(critic, inputs, state.params)
    counts = objective.counts(inputs)
    expected = jnp.mean(judged, axis=1, where=counts)
    np.testing.assert_allclose(aside.samples["real_logit"], expected, rtol=1e-4, atol=1e-5)
    of_data = OBJECTIVE.examples(batch_of(5), KEY, {}).inputs
    np.testing.assert_array_equal(of_data["real"], objective.condition(inputs).clean)
    assert differs(of_data["real"], inputs["real"])
    plain, _ = objective.loss(state.params, inputs, {}, critic=critic)
    other, _ = objective.loss(state.params, inputs | {"real": of_data["real"]}, {}, critic=critic)
    assert (float(plain) != float(other)) == (kind == "rp")


def test_data_meet_other_noise_and_synthetic_clips_stay_with_theirs():
    objective, frozen = with_synthetic_clips(2)
    for judged, noise_stays in ((objective, True), (OBJECTIVE, False)):
        examples = judged.examples(batch_of(5), KEY, frozen)
        again = judged.again(examples, jax.random.key(8)).inputs
        np.testing.assert_array_equal(again["real"], examples.inputs["real"])
        assert differs(again["critic_time"], examples.inputs["critic_time"])
        assert differs(again["noise"], examples.inputs["noise"]) != noise_stays


@pytest.mark.parametrize(("logits", "retrieved"), [("frame", 2), ("clip", 0)])
def test_the_anchor_is_the_distance_from_the_clip_of_the_same_noise(logits, retrieved):
    objective, frozen = with_synthetic_clips(2)
    objective = replace(objective, critic=Critic(CriticConfig(MODEL, logits)))
    state = started(objective)
    inputs = jax.device_put(objective.examples(batch_of(5, retrieved=retrieved), KEY, frozen).inputs)
    critic = state.others[DISCRIMINATOR].params
    held = replace(objective, settings=replace(SETTINGS, anchor=3.0))
    plain, aside = objective.loss(state.params, inputs, {}, critic=critic)
    value, _ = held.loss(state.params, inputs, {}, critic=critic)
    condition = objective.condition(inputs)
    squares = np.square(objective.made(state.params, inputs, condition) - inputs["real"])
    free = ~np.asarray(inputs["condition_mask"])
    by_frame = squares[:, retrieved:].mean(axis=(2, 3, 4))
    by_clip = [row[there].mean() for row, there in zip(by_frame, free)]
    expected = np.mean(by_clip) if logits == "clip" else by_frame[free].mean()
    assert expected > 0
    np.testing.assert_allclose(aside.means["real_distance"], expected, rtol=1e-5)
    np.testing.assert_allclose(value, plain + 3.0 * expected, rtol=1e-5)


@pytest.mark.parametrize("first", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_anchored_generator_comes_nearer_to_the_student(first):
    """Also where the critic goes first: until then nothing moves."""
    objective, frozen = with_synthetic_clips(1)
    settings = AdversarialConfig(penalty=1.0, anchor=100.0)
    update = replace(SGD, optimizer=optax.adam(1e-3))
    objective = replace(objective, settings=settings, update=update, critic_update=STILL, critic_first=first)
    step, state, distances = jax.jit(objective.step), started(objective), []
    for _ in range(6 + first):
        state, metrics = step(state, batch_of(5), KEY, frozen)
        distances.append(float(metrics["real_distance"]))
    assert distances[-1] < 0.7 * distances[0]
    measured = objective.measure(objective.measured(state), batch_of(5), KEY, frozen)
    assert 0 < float(measured["real_distance"]) < np.inf


def test_a_generator_that_makes_the_clips_of_the_student_is_at_no_distance_from_it():
    objective, frozen = with_synthetic_clips(1)
    inputs = jax.device_put(objective.examples(batch_of(5), KEY, frozen).inputs)
    critic = started().others[DISCRIMINATOR].params
    same_clips = leading_to(frozen[SYNTHETIC], 0.0)
    _, aside = objective.loss(same_clips, inputs, {}, critic=critic)
    assert float(aside.means["real_distance"]) < 1e-10
