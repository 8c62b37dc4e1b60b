"""The parts of a report that need no accelerator's compiler."""

import re

import jax
import jax.numpy as jnp
import pytest

from camctrl_jax.models.attention import attention
from camctrl_jax.parallel.chips import CHIPS
from camctrl_jax.pod_report.__main__ import main
from camctrl_jax.pod_report.bounds import advice, fits
from camctrl_jax.pod_report.collectives import Collective, collectives_of
from camctrl_jax.pod_report.compiling import (
    Memory,
    Report,
    batch_of,
    compile_step,
    config_of,
    program_of,
    stand_in_attention,
    step_of,
)
from camctrl_jax.pod_report.machines import Machine, machine_of
from camctrl_jax.training.inputs import open_inputs
from camctrl_jax.training.values import ConfigError

PROGRAM = """\
HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%body (state: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %state = (s32[], bf16[4,8]{1,0}) parameter(0)
  %gathered = bf16[16,8]{1,0} all-gather(%part), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
  %moved = (bf16[4,8]{1,0}, bf16[4,8]{1,0}, u32[], u32[]) collective-permute-start(%part), source_target_pairs={{0,4},{4,0}}
  %kernel = bf16[4,8]{1,0} custom-call(%part), custom_call_target="tpu_custom_call", backend_config={
"description":"spans lines"
}}, metadata={op_name="attention"}
  %alone = bf16[4,8]{1,0} all-reduce(%part), replica_groups={{0},{1},{2},{3}}, to_apply=%add
  %late = bf16[4,8]{1,0} all-reduce(%part), replica_groups={{0,1},{2,3}}, to_apply=%add
  ROOT %next = (s32[], bf16[4,8]{1,0}) tuple(%n, %part)
}

%condition (state: (s32[], bf16[4,8])) -> pred[] {
  %limit = s32[] constant(36)
  ROOT %less = pred[] compare(%n, %limit), direction=LT
}

ENTRY %main (a: bf16[4,8]) -> f32[8] {
  %loop = (s32[], bf16[4,8]{1,0}) while(%start), condition=%condition, body=%body
  %once = (s32[], bf16[4,8]{1,0}) while(%start), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"2"}}
  %whole = f32[8]{0} all-reduce(%b), replica_groups=mesh['x'=2,'y'=4] {'y'}, to_apply=%add
  ROOT %piece = f32[8]{0} reduce-scatter(%c), replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add
}
"""  # noqa: E501


def test_collectives_are_counted_as_often_as_they_run():
    hosts = [0, 0, 0, 0, 1, 1, 1, 1]
    assert set(collectives_of(PROGRAM, hosts)) == {
        Collective("all-gather", 4, False, 38, 38 * 16 * 8 * 2 * 3 / 4),
        Collective("collective-permute", 2, True, 38, 38 * 4 * 8 * 2),
        Collective("all-reduce", 4, False, 1, 2 * 32 * 3 / 4),
        Collective("all-reduce", 2, False, 38, 38 * 2 * 64 / 2),
        Collective("reduce-scatter", 2, True, 1, 32.0),
    }


@pytest.fixture(scope="module")
def program():
    config = config_of("configs/stage1.py:nano", ["--config.model.remat=full"])
    return config, program_of(config, Machine("here", CHIPS["v5e"], jax.devices()[:1]))


def test_the_batch_of_a_report_is_the_batch_of_a_run(program):
    config, run = program
    objective = run.objective
    encoder = objective.encoder(objective.frozen())
    inputs = open_inputs(config, run.mesh, encoder, objective.reads_cameras, lambda *_: None)
    drawn = next(inputs.stream)
    fields = {name: (array.shape, array.dtype) for name, array in drawn.items()}
    assert batch_of(config, "latents") == fields
    assert batch_of(config, "video")["video"][0] == (5, 5, 16, 32, 3)


def test_a_recipe_of_several_sets_is_reported_by_its_largest_batches():
    config = config_of("configs/stage2.py:worlds", [])
    assert (config.data.height, config.batch_size, config.data.worlds.retrieved) == (192, 40, 0)
    config = config_of("configs/stage2.py:worlds", ["--config.data.sets.large_memory.batch_size=40"])
    fields = batch_of(config, "latents")
    assert fields["retrieved_latents"][0] == (40, 4, 24, 40, 16)
    assert fields["latents"][0] == (40, 13, 24, 40, 16)


def test_advice_starts_with_what_costs_least(program):
    config, run = program
    chip = CHIPS["v6e"]
    step = step_of(config, run, run.abstract_batch(batch_of(config, "latents")))
    large = Report(step, Memory(0.8 * chip.memory, 0.0, 1.1 * chip.memory, 0.0), 1.1 * chip.memory, [], 0.0)
    assert not fits(large, chip)
    lines = advice(config, large, chip)
    assert "moments=bfloat16" in lines[0]
    assert any("--config.accumulate=5" in line for line in lines)
    small = Report(step, Memory(1.0, 0.0, 2.0, 0.0), 2.0, [], 0.0)
    assert fits(small, chip)
    assert advice(config, small, chip) == []


def test_full_recomputation_is_a_third_more(program):
    config, run = program
    work = step_of(config, run, run.abstract_batch(batch_of(config, "latents"))).work
    assert work.recomputed == pytest.approx(work.flops / 3)


def test_the_stand_in_has_the_arrays_of_the_kernel():
    arrays = [jnp.ones((2, 6, 3, 4), jnp.bfloat16)] * 3

    def gradients(kernel):
        loss = lambda *x: jnp.sum(kernel(*x, jnp.asarray([6, 4])).astype(jnp.float32))  # noqa: E731
        return jax.eval_shape(jax.grad(loss, argnums=(0, 1, 2)), *arrays)

    assert gradients(stand_in_attention) == gradients(attention)


@pytest.mark.parametrize("topology", ["v5p", "v9:2x2", "h100x12", "a100x8"])
def test_an_unknown_machine_is_refused_with_examples(topology):
    with pytest.raises(
        ValueError, match=r"such as v5p:4x4x8 or v6e:8x8, or a number of GPUs such as h100x64"
    ):
        machine_of(topology)


def test_a_missing_compiler_names_what_to_install(monkeypatch):
    from jax.experimental import topologies

    def absent(**_):
        raise NotImplementedError("Unknown backend tpu")

    monkeypatch.setattr(topologies, "get_topology_desc", absent)
    with pytest.raises(ValueError, match=r"cannot be described here .* pip install 'camctrl_jax\[tpu\]'"):
        machine_of("v5p:2x2x2")


def test_a_report_of_devices_that_are_there_is_complete(tmp_path, monkeypatch, capsys):
    """From the command line to the file, compiled for this machine in place of one that is not there."""
    here = Machine("v5e:1x1", CHIPS["v5e"], jax.devices()[:1])
    monkeypatch.setattr("camctrl_jax.pod_report.markdown.machine_of", lambda topology: here)
    out = tmp_path / "reports" / "nano.md"
    recipe = ["--config", "configs/stage1.py:nano", "--config.model.num_single=0"]
    assert main([*recipe, "--topology=v5e:1x1", "--out", str(out)]) == 0
    text = out.read_text()
    assert text.strip() == capsys.readouterr().out.strip()
    assert "# configs/stage1.py:nano on v5e:1x1" in text
    assert "It fits" in text
    assert "--config.model.num_single=0" in text.split("```")[1]
    assert "4 video tokens, 32 of text" in text  # two latents of 1x2 tokens
    assert re.search(r"Bound by (compute|memory)", text)


def test_overrides_are_those_of_training():
    with pytest.raises(ConfigError, match="did you mean 'mesh'"):
        config_of("configs/stage1.py:nano", ["--config.mash=3"])
    config = config_of("configs/stage2.py", ["--config.mesh.context=4", "--config.model.remat=dots"])
    assert (config.mesh.context, config.model.remat) == (4, "dots")


def test_an_objective_without_a_formula_is_refused():
    config = config_of("configs/vae.py:nano", [])
    run = program_of(config, Machine("here", CHIPS["v5e"], jax.devices()[:1]))
    with pytest.raises(ConfigError, match="there is no formula for what its steps take"):
        step_of(config, run, {})


@pytest.mark.parametrize("name", ["progressive", "flow_map"])
def test_a_report_of_a_student_holds_its_teacher_and_reads_none(name):
    config = config_of(f"configs/distill_{name}.py:nano", ["--config.distil.teacher=nowhere"])
    machine = Machine("here", CHIPS["v5e"], jax.devices()[:1])
    run = program_of(config, machine)
    shapes = run.objective.frozen_shapes()
    assert set(shapes) == {"autoencoder", "teacher", "null_text"}
    held = jax.tree.leaves(run.frozen_homes(shapes)["teacher"])
    assert len(held) == len(jax.tree.leaves(shapes["teacher"]))
    state = jax.eval_shape(run.objective.init, jax.random.key(0))
    trained = {leaf: shape for leaf, shape in state.items() if leaf != "target_time_embed"}
    assert jax.tree.map(lambda x: x.shape, shapes["teacher"]) == jax.tree.map(lambda x: x.shape, trained)
    assert compile_step(config, run, machine, "latents").step.work.flops > 0
