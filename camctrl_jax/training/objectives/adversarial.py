"""Adversarial post-training: a model of one step, judged by a critic that is trained with it against clips
that count as real: the data's, or a student's.

The second half of APT (arXiv 2501.08316); ``consistency`` is the first. The generator is G(z, c) = z - v(z,
c, 1), and starts as a model that makes clips in one step (``config.init_from``). The critic
(``camctrl_jax.models.critic``) starts as the diffusion model itself (``config.distil.teacher``). Both are
told all there is: text, cameras, and what is given, clean. A step is an update of the critic and then one of
the generator, in one program: a checkpoint holds both networks at the same step, and nothing can come
between.

Axes: B batch, L latent frames of the window, R retrieved ones, h w latent height and width, C latent
channels, F logits of a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from ml_collections import ConfigDict

from camctrl_jax.checkpoints.architecture import Architecture
from camctrl_jax.checkpoints.weights import Weights
from camctrl_jax.data.stream import Batch
from camctrl_jax.diffusion.adversarial import (
    AdversarialConfig,
    cameras_differ,
    critic_loss,
    critic_times,
    generated,
    generator_loss,
    mean_over,
    means_of_samples,
    one_of_every,
    penalty,
    wrong_camera_loss,
)
from camctrl_jax.diffusion.condition import Condition
from camctrl_jax.errors import InvalidValue
from camctrl_jax.models import leading_to
from camctrl_jax.models.critic import Critic, CriticConfig, read_by_critics
from camctrl_jax.models.placement import Placement
from camctrl_jax.sampling.pipeline import Denoiser
from camctrl_jax.training import students
from camctrl_jax.training.adversarial_settings import adversarial_config, check, settings
from camctrl_jax.training.objective import Frozen, Metrics, Work
from camctrl_jax.training.objectives.denoise import Denoise
from camctrl_jax.training.optimizer import OptimizerConfig, make_optimizer
from camctrl_jax.training.state import Params, TrainState, create_state, global_norm
from camctrl_jax.training.students import Student
from camctrl_jax.training.synthetic import REAL_KEY, SYNTHETIC, WITHOUT, SyntheticClips, open_synthetic
from camctrl_jax.training.update import Aside, Examples, Loss, Update
from camctrl_jax.training.values import ConfigError, update_of

__all__ = ["DISCRIMINATOR", "Adversarial", "build", "check", "settings"]

DISCRIMINATOR = "discriminator"  # the role of the critic in the state

# Folded into a step's key, beside what denoising folds: for the critic's random numbers, the generator's, and
# for who is penalised.
_CRITIC_KEY, _GENERATOR_KEY, _PENALTY_KEY = 10, 11, 12
_WRONG = "wrong_"  # of fields of another sample
_REAL = "real"  # clips that count as real
_CAMERAS = ("world_from_camera", "intrinsics")
_START = (
    "adversarial post-training starts from a student that makes clips in one step; train it with a variant "
    "'consistency' of configs/distill_apt.py, or configs/distill_flow_map.py, and name it with "
    "--config.init_from="
)


@dataclass(frozen=True, kw_only=True)
class Adversarial(Student):
    """A generator of one step and its critic.

    Metrics: ``loss`` and ``grad_norm`` are the generator's; ``critic_loss``, ``critic_grad_norm``, the mean
    logits ``real_logit`` and ``fake_logit`` and their difference ``gap``, and ``penalty`` (before lambda) the
    critic's. On held-out clips, and in training with wrong cameras, ``camera_gap`` is the mean of D(x, s) -
    D(x, s_wrong) over labelled clips: 0 for a critic that ignores the camera. A ``gap`` that is larger in
    training than on held-out clips is a critic that knows its clips by heart. Where a student's clips count
    as real, ``real_distance`` is the mean squared distance of made latents from its own of the same noise.

    Attributes:
        settings: the losses.
        critic: the discriminator.
        critic_update: how its gradients become parameters; it has no average.
        critic_first: updates of the critic before the generator's first; until then ``grad_norm`` and
            ``learning_rate`` are 0.
        critic_shift: timestep shift of the times that the critic is told; None follows the tokens.
        synthetic: who makes the clips that count as real; None: they are the data's.
    """

    settings: AdversarialConfig = field(default_factory=AdversarialConfig)
    critic: Critic
    critic_update: Update
    critic_first: int = 0
    critic_shift: float | None = None
    synthetic: SyntheticClips | None = None
    shared_out = (SYNTHETIC,)
    # The guidance that it holds is that of the student it started from: see describe.
    lasting = ("method", "valid_steps")

    @property
    def begins_as(self) -> str:
        """Nothing: the teacher makes no clip in one step.

        Raises:
            ConfigError: a run that starts names no student that does.
        """
        raise ConfigError(f"config.init_from='': {_START}")

    def state(self, params: Params, key: Array) -> TrainState:
        """At step 0: beside the generator a critic with fresh heads, and the generator's own transformer
        where the teacher's takes its place (:meth:`starting_others`).
        """
        backbone = jax.tree.map(jnp.copy, read_by_critics(params))  # donated with the generator's
        critic = self.critic.init_params(key, backbone)
        others = {DISCRIMINATOR: (critic, self.critic_update.optimizer)}
        return create_state(params, self.update.optimizer, others)

    def starting_others(self, mesh: Mesh) -> dict[str, Params]:
        """The teacher's transformer, for the critic."""
        return {DISCRIMINATOR: {"backbone": read_by_critics(self.teacher.start(self.teacher_model, mesh))}}

    def starting_params(self, spec: str, mesh: Mesh) -> Params:
        """Those of a student that makes clips in one step; of a flow map, as it answers for that step."""
        params = super().starting_params(spec, mesh)
        return leading_to(params, 0.0) if "target_time_embed" in params else params

    def frozen(self) -> dict[str, Params]:
        """The autoencoder, and who makes clips: once the critic is made, nobody asks the teacher."""
        _ = self.teacher.fingerprint
        made = self.synthetic
        if made is not None:
            made.check_taught_by(self.teacher)
        return Denoise.frozen(self) | ({} if made is None else {SYNTHETIC: made.params(self.mesh)})

    def frozen_shapes(self) -> dict[str, Any]:
        """Their shapes and dtypes."""
        made = self.synthetic
        return Denoise.frozen_shapes(self) | ({} if made is None else {SYNTHETIC: made.shapes()})

    # One step.

    def examples(self, batch: Batch, key: Array, frozen: Frozen) -> Examples:
        """As for denoising, and what the critic draws: times, and noise to move clips by; cameras of another
        sample, wrong ones, where both have some; and the clips that count as real.
        """
        examples = super().examples(batch, key, frozen)
        critic_key = jax.random.fold_in(key, _CRITIC_KEY)
        inputs = self._with_times(dict(examples.inputs), critic_key)
        move_key = jax.random.fold_in(critic_key, 1)
        inputs["move"] = jax.random.normal(move_key, inputs["noise"].shape, jnp.float32)
        if self.model.camera is not None:
            inputs |= {_WRONG + name: jnp.roll(inputs[name], 1, axis=0) for name in _CAMERAS}
            valid = inputs["camera_valid"]
            inputs[_WRONG + "valid"] = valid & jnp.roll(valid, 1)
        condition = self.condition(inputs)
        inputs[_REAL] = condition.clean.astype(jnp.float32)
        if self.synthetic is not None:
            inputs[_REAL] = self.synthetic.made(frozen[SYNTHETIC], inputs["noise"], condition)
        of_clips = self.critic.config.logits == "clip"
        return Examples(inputs, jnp.ones_like(examples.weights) if of_clips else examples.weights)

    def again(self, examples: Examples, key: Array) -> Examples:
        """The same clips with other times, and other noise, unless what counts as real was made of it."""
        noise_key, time_key = jax.random.split(key)
        inputs = self._with_times(dict(examples.inputs), time_key)
        if self.synthetic is None:
            inputs["noise"] = jax.random.normal(noise_key, inputs["noise"].shape, jnp.float32)
        return Examples(inputs, examples.weights)

    def step(self, state: TrainState, batch: Batch, rng: Array, frozen: Frozen) -> tuple[TrainState, Metrics]:
        """An update of the critic, then one of the generator."""
        key = jax.random.fold_in(rng, state.step)
        examples = self.examples(batch, key, frozen)
        critic = state.others[DISCRIMINATOR]
        with jax.named_scope("critic"):
            first = self._first_penalised(key)
            loss = partial(self.critic_loss, generator=state.params, first=first)
            found = self.critic_update.gradients(loss, critic.params, examples)
            critic = self.critic_update.apply_to(critic, found.grads)
        with jax.named_scope("generator"):
            loss = partial(self.loss, frozen=frozen, critic=critic.params)
            examples = self.again(examples, jax.random.fold_in(key, _GENERATOR_KEY))
            new_state, aside, metrics = self._generator_updated(state, loss, examples)
        metrics |= {"critic_loss": found.loss, "critic_grad_norm": global_norm(found.grads)}
        metrics |= self.critic_metrics(found.aside) | self.metrics(aside, batch)
        return replace(new_state, others={DISCRIMINATOR: critic}), metrics

    def _generator_updated(
        self, state: TrainState, loss: Loss, examples: Examples
    ) -> tuple[TrainState, Aside, Metrics]:
        """As ``Update.minimise``; while the critic goes first the state is the same but for its count.

        Rates and average of the generator count its own updates.
        """
        if not self.critic_first:
            return self.update.minimise(state, loss, examples)

        def learn(state: TrainState) -> tuple[TrainState, Aside, Metrics]:
            return self.update.minimise(replace(state, step=state.step - self.critic_first), loss, examples)

        def wait(state: TrainState) -> tuple[TrainState, Aside, Metrics]:
            # In parts, as where it learns; with respect to nothing, so that there is no backward pass.
            found = self.update.gradients(lambda _, inputs: loss(state.params, inputs), {}, examples)
            nothing = jnp.zeros((), jnp.float32)
            return state, found.aside, {"loss": found.loss, "grad_norm": nothing, "learning_rate": nothing}

        waiting = state.step < self.critic_first
        new_state, aside, metrics = jax.lax.cond(waiting, wait, learn, state)
        return replace(new_state, step=state.step + 1), aside, metrics

    def loss(
        self,
        params: Params,
        inputs: Mapping[str, Array],
        frozen: Frozen,
        critic: Params | None = None,
    ) -> tuple[Array, Aside]:
        """The generator's loss, and that of every sample, f32 [B]."""
        if critic is None:
            raise InvalidValue("a generator has no loss without its critic: see Adversarial.step.")
        condition = self.condition(inputs)
        counts = self.counts(inputs)
        made = self.made(params, inputs, condition)
        fake = self.judged(critic, made, inputs, condition)
        real = fake  # not read by a loss that judges every clip by itself
        if self.settings.loss == "rp":
            real = jax.lax.stop_gradient(self.judged(critic, inputs[_REAL], inputs, condition))
        values, means = generator_loss(real, fake, self.settings.loss), {}
        if self.synthetic is not None:
            apart = self.apart(made, inputs, condition)
            means["real_distance"] = mean_over(apart, counts)
            values += self.settings.anchor * apart
        return mean_over(values, counts), Aside(means_of_samples(values, counts), means)

    def critic_loss(
        self,
        params: Params,
        inputs: Mapping[str, Array],
        generator: Params,
        compare_cameras: bool = False,
        first: Array | int = 0,
    ) -> tuple[Array, Aside]:
        """The critic's loss; beside it logits of every sample, f32 [B] each.

        Args:
            params: of the critic.
            inputs: of :meth:`examples`.
            generator: parameters of the generator, which gets no gradient.
            compare_cameras: tell ``camera_gap`` where wrong cameras have no weight, too.
            first: of every ``penalty_every`` samples the one that is penalised, i32 [].
        """
        settings, condition = self.settings, self.condition(inputs)
        counts, every = self.counts(inputs), self.settings.penalty_every
        one_of = partial(one_of_every, every=every, first=first)
        true = inputs[_REAL]
        made = jax.lax.stop_gradient(self.made(generator, inputs, condition))
        shown = {"real": (true, condition.plucker), "fake": (made, condition.plucker)}
        if self._has_wrong_cameras or (compare_cameras and self.model.camera is not None):
            wrong = self.wrong_condition(inputs).plucker
            shown["wrong"] = true, wrong
            labelled = inputs[_WRONG + "valid"] & cameras_differ(wrong, condition.plucker)
        weights = {"penalty": settings.penalty, "fake_penalty": settings.fake_penalty}
        weights = {name: weight for name, weight in weights.items() if weight}
        moved = {name: true if name == "penalty" else made for name in weights}
        moved = {name: clips + settings.sigma * inputs["move"] for name, clips in moved.items()}
        if every == 1:
            shown |= {name: (clips, condition.plucker) for name, clips in moved.items()}
        logits = self.judged_in_turn(params, shown, inputs, condition)
        if every > 1 and moved:
            some = jax.tree.map(one_of, dict(inputs))
            told = self.condition(some)
            moved = {name: (one_of(clips), told.plucker) for name, clips in moved.items()}
            logits |= self.judged_in_turn(params, moved, some, told)

        real, fake = logits["real"], logits["fake"]
        loss = mean_over(critic_loss(real, fake, settings.loss), counts)
        samples = {"real_logit": real, "fake_logit": fake, "gap": real - fake}
        means = {name: means_of_samples(values, counts) for name, values in samples.items()}
        for name, weight in weights.items():
            plain = real if name == "penalty" else fake
            values = penalty(one_of(plain), logits[name])
            loss += weight * mean_over(values, one_of(counts))
            # One value for each sample of the batch: each stands for its neighbours that were left out.
            means[name] = jnp.repeat(means_of_samples(values, one_of(counts)), every)
        if settings.centering:
            loss += settings.centering * mean_over(jnp.square(real + fake), counts)
        if "wrong" in logits:
            labelled = labelled[:, None]
            values = wrong_camera_loss(real, logits["wrong"], settings.loss)
            loss += settings.wrong_camera * mean_over(jnp.where(labelled, values, 0.0), counts)
            gap = jnp.where(labelled, real - logits["wrong"], jnp.nan)
            means["camera_gap"] = means_of_samples(gap, counts)
        return loss, Aside(samples=means)

    # What both networks see.

    def made(self, params: Params, inputs: Mapping[str, Array], condition: Condition) -> Array:
        """Clips of the generator, given latents clean: f32 [B, R + L, h, w, C]."""
        noise = inputs["noise"]
        end = jnp.ones(noise.shape[:1], jnp.float32)
        velocity = Denoiser(self.model, self.dtype, self.placement)(params, noise, end, condition)
        return generated(noise, velocity, condition.given, condition.mask)

    def judged(
        self, critic: Params, clips: Array, inputs: Mapping[str, Array], condition: Condition
    ) -> Array:
        """Logits f32 [B, F] of clips f32 [B, R + L, h, w, C]. What is given is clean in both places, whatever
        ``clips`` hold there: it is the same for true and generated ones.
        """
        given = condition.mask[:, :, None, None, None]
        return self.critic(
            critic,
            condition.inputs(jnp.where(given, condition.given, clips)),
            inputs["critic_time"],
            condition.text,
            condition.text_mask,
            condition.plucker,
            condition.retrieved,
        )

    def judged_in_turn(
        self,
        critic: Params,
        shown: Mapping[str, tuple[Array, Array | None]],
        inputs: Mapping[str, Array],
        condition: Condition,
    ) -> dict[str, Array]:
        """Logits of several sets of clips of the same samples, each with Pluecker maps.

        One after the other by one compiled network: in one longer batch, samples would leave their devices.
        """

        def judge(one: tuple[Array, Array | None]) -> Array:
            clips, plucker = one
            return self.judged(critic, clips, inputs, replace(condition, plucker=plucker))

        stacked = jax.tree.map(lambda *each: jnp.stack(each), *shown.values())
        return dict(zip(shown, jax.lax.map(judge, stacked)))

    def apart(self, made: Array, inputs: Mapping[str, Array], condition: Condition) -> Array:
        """Mean squared distance of made latents from those that count as real, a value for each logit: f32
        [B, F].
        """
        squares = jnp.square(made - inputs[_REAL])[:, condition.retrieved :].mean(axis=(2, 3, 4))
        if self.critic.config.logits == "clip":
            free = jnp.logical_not(inputs["condition_mask"])
            return jax.vmap(mean_over)(squares, free)[:, None]
        return squares

    def wrong_condition(self, inputs: Mapping[str, Array]) -> Condition:
        """What some examples would be told with the camera paths of others."""
        wrong = {name: inputs[_WRONG + name] for name in _CAMERAS}
        return self.condition({**inputs, **wrong, "camera_valid": inputs[_WRONG + "valid"]})

    def counts(self, inputs: Mapping[str, Array]) -> Array:
        """Which logits count, bool [B, F]: those of latent frames that are not given."""
        mask = inputs["condition_mask"]
        if self.critic.config.logits == "clip":
            return jnp.ones((len(mask), 1), bool)
        return jnp.logical_not(mask)

    def _first_penalised(self, key: Array) -> Array | int:
        """Drawn for every step: batches, and sets in turns, have patterns of their own, and one place in
        them would meet the same kind of clips for ever.
        """
        every = self.settings.penalty_every
        return jax.random.randint(jax.random.fold_in(key, _PENALTY_KEY), (), 0, every) if every > 1 else 0

    @property
    def _has_wrong_cameras(self) -> bool:
        return bool(self.settings.wrong_camera) and self.model.camera is not None

    def _with_times(self, inputs: dict[str, Array], key: Array) -> dict[str, Array]:
        shape = inputs["latents"].shape
        tokens = int(np.prod(shape[1:4])) // int(np.prod(self.model.patch))
        shift = self.flow.shift_of(tokens) if self.critic_shift is None else self.critic_shift
        uniform = jax.random.uniform(key, shape[:1], jnp.float32)
        return inputs | {"critic_time": critic_times(uniform, shift)}

    # What is told.

    def metrics(self, aside: Aside, batch: Batch) -> Metrics:
        """Those of denoising, and the generator's distance from a student's clips."""
        return super().metrics(aside, batch) | aside.means

    def critic_metrics(self, aside: Aside) -> Metrics:
        """Means over samples of what came beside the critic's loss; NaN where there are none."""
        return {name: jnp.nanmean(values) for name, values in aside.samples.items()}

    def measured(self, state: TrainState) -> Params:
        """The average of the generator, and the critic."""
        return {"generator": state.ema, DISCRIMINATOR: state.others[DISCRIMINATOR].params}

    def measure(self, params: Params, batch: Batch, key: Array, frozen: Frozen) -> Metrics:
        """Both losses and what came beside them, of what :meth:`measured` gave; every sample is penalised."""
        every = replace(self, settings=replace(self.settings, penalty_every=1))
        examples = self.examples(batch, key, frozen)
        generator, critic = params["generator"], params[DISCRIMINATOR]
        critics, aside = every.critic_loss(critic, examples.inputs, generator, compare_cameras=True)
        value, own = self.loss(generator, examples.inputs, frozen, critic=critic)
        found = {"loss": value, "critic_loss": critics} | self.critic_metrics(aside)
        return found | self.metrics(own, batch)

    def check_distilled(self, weights: Weights) -> None:
        """Raises: ConfigError if these weights to start from are no student that makes one step."""
        theirs = weights.distilled
        if theirs is None or 1 not in theirs.valid_steps:
            what = "no student" if theirs is None else f"made for {theirs.valid_steps} steps"
            raise ConfigError(f"config.init_from={weights.spec!r} is {what}: {_START}")
        if self.synthetic is not None:
            self.synthetic.check_start(weights)

    def describe(
        self, state: TrainState, probe: Callable[[int], Iterable[Any]], before: Architecture | None
    ) -> Architecture:
        """As a student's; the guidance that it holds is that of the one it started from."""
        built = super().describe(state, probe, before)
        if before is None or before.distilled is None:
            return built
        folded = before.distilled.guidance_folded
        return replace(built, distilled=replace(built.distilled, guidance_folded=folded))

    def work(self, batch: Mapping[str, Any]) -> Work:
        """Of both networks: the critic with its backward pass on each kind of clip; the generator once
        without and once with one, and through the critic, whose parameters get no gradient then.
        """
        one, settings = super().work(batch), self.settings
        moved = (bool(settings.penalty) + bool(settings.fake_penalty)) / settings.penalty_every
        trained = 2 + moved + self._has_wrong_cameras + 1  # forward and backward: three forward passes
        forward = 1 + (settings.loss == "rp") + (0 if self.synthetic is None else self.synthetic.steps)
        through = 1  # forward, and backward to the clips alone: two
        flops = one.flops * (trained + forward / 3 + through * 2 / 3)
        passes = int(np.ceil(one.passes * (trained + through) + forward))
        return replace(one, flops=flops, recomputed=one.recomputed * (trained + through), passes=passes)


def build(config: ConfigDict, mesh: Mesh, placement: Placement | None = None) -> Adversarial:
    """The objective of a configuration; see ``build_objective``."""
    every = config.adversarial.penalty_every
    if every > 1:
        what = f"one sample in config.adversarial.penalty_every={every} is penalised"
        students.check_shares(config, mesh, every, what)
    fields = students.student_fields(config, mesh, placement, students.open_teacher(config))
    own = config.adversarial
    learning = config.copy_and_resolve_references()
    learning.steps -= own.critic_first  # its rates begin when the critic has had its updates alone
    fields["update"] = update_of(learning)
    rates = OptimizerConfig(**config.optimizer)
    names = ("learning_rate", "initial_learning_rate", "final_learning_rate")
    rates = replace(rates, **{name: own.critic_rate * getattr(rates, name) for name in names})
    objective = Adversarial(
        **fields,
        method="adversarial",
        valid_steps=(1,),
        settings=adversarial_config(config),
        critic=Critic(CriticConfig(fields["model"], own.logits), fields["dtype"], fields["placement"]),
        critic_update=Update(make_optimizer(rates, config.steps), accumulate=config.accumulate),
        critic_first=own.critic_first,
        critic_shift=own.time_shift,
        synthetic=open_synthetic(config, fields),
    )
    objective.check_teacher()
    if objective.synthetic is not None:
        try:
            objective.check_teacher(objective.synthetic.student, REAL_KEY)
        except ConfigError as error:
            raise ConfigError(f"{error}; {WITHOUT}") from error
    return objective
