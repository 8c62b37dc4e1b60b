"""Diffusers folders in and out: bit-exact round trips, sharded reading, and faults that are named."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from nano_weights import TEXT, random_params, save_nano, save_run

from camctrl_jax.checkpoints.architecture import Architecture
from camctrl_jax.checkpoints.mesh_reading import onto_mesh
from camctrl_jax.checkpoints.runs import load_params
from camctrl_jax.checkpoints.weights import (
    WeightsError,
    expected_mmdit,
    expected_vae,
    load_vae,
    open_weights,
)
from camctrl_jax.data.text import embedder_from_settings
from camctrl_jax.export.__main__ import main as export
from camctrl_jax.export.from_diffusers import import_diffusers
from camctrl_jax.export.to_diffusers import export_diffusers
from camctrl_jax.files.safetensors import SafetensorsFile, flatten, load_sharded, save_sharded
from camctrl_jax.interop.diffusers_import import find_diffusers_folder
from camctrl_jax.interop.keys import export_mmdit, export_vae
from camctrl_jax.interop.stock_configs import mmdit_to_stock, vae_to_stock
from camctrl_jax.models import MMDiTConfig, mmdit_preset, vae_preset
from camctrl_jax.parallel.mesh import MeshConfig, make_mesh

CONFIG = MMDiTConfig(
    width=32, heads=2, head_dim=16, num_dual=1, num_single=2, num_decoder=1, rope_axes=(4, 6, 6),
    rope_theta=256.0, text_dim=8, image_dim=6, text_cross_attention_single=True, camera=None,
)  # fmt: skip
VAE_CONFIG = vae_preset("nano", num_res_blocks=0, latents_mean=tuple(np.linspace(-1, 1, 16).tolist()))


def write_folder(folder, dtype, max_file_bytes=10**9):
    """What save_pretrained of the stock classes would write."""
    mmdit = export_mmdit(random_params(expected_mmdit(CONFIG), 0))[0]
    vae = export_vae(random_params(expected_vae(VAE_CONFIG), 1))
    parts = {
        "transformer": ("MotifVideoTransformer3DModel", mmdit_to_stock(CONFIG), mmdit),
        "vae": ("AutoencoderKLWan", vae_to_stock(VAE_CONFIG), vae),
    }
    for name, (class_name, stock, tensors) in parts.items():
        (folder / name).mkdir(parents=True)
        content = {"_class_name": class_name, "_diffusers_version": "0.42.1", **stock}
        (folder / name / "config.json").write_text(json.dumps(content))
        save_sharded(
            folder / name,
            tensors,
            stem="diffusion_pytorch_model",
            max_file_bytes=max_file_bytes,
            metadata={"format": "pt"},
            dtype=dtype,
        )
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"shift": 8.0}))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "base", np.float32)


def tensors_of(folder, part):
    return load_sharded(folder / part, "diffusion_pytorch_model")


@pytest.mark.parametrize(("dtype", "max_file_bytes"), [(ml_dtypes.bfloat16, 10**9), (np.float32, 150_000)])
def test_round_trip_through_a_checkpoint_keeps_every_bit(tmp_path, dtype, max_file_bytes, capsys):
    base = write_folder(tmp_path / "base", dtype, max_file_bytes)
    assert (max_file_bytes == 10**9) != (
        base / "vae" / "diffusion_pytorch_model.safetensors.index.json"
    ).exists()
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "out"
    assert export(["from-diffusers", "--source", str(base), "--out", str(checkpoint)]) == 0
    assert export(["to-diffusers", "--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    assert "checkpoint" in capsys.readouterr().out
    for part in ("transformer", "vae"):
        before, after = tensors_of(base, part), tensors_of(out, part)
        assert before.keys() == after.keys()
        for name, array in before.items():
            assert after[name].dtype == dtype
            assert after[name].tobytes() == array.tobytes(), name
        stock = json.loads((base / part / "config.json").read_text())
        del stock["_diffusers_version"]
        assert json.loads((out / part / "config.json").read_text()) == stock
    assert json.loads((out / "scheduler" / "scheduler_config.json").read_text())["shift"] == 8.0
    # A checkpoint, and the folder itself, are weights wherever weights are named.
    for spec in (checkpoint, base):
        assert open_weights(spec).mmdit_config == CONFIG
        assert load_vae(spec)[0] == VAE_CONFIG


def test_tensors_are_placed_shard_by_shard(folder):
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1))
    found = find_diffusers_folder(folder)
    placed = found.transformer_params(onto_mesh(mesh, ml_dtypes.bfloat16))
    assert all(
        isinstance(leaf, jax.Array) and leaf.dtype == ml_dtypes.bfloat16 for leaf in jax.tree.leaves(placed)
    )
    in_memory = flatten(found.transformer_params())
    for name, leaf in flatten(placed).items():
        np.testing.assert_array_equal(
            np.asarray(leaf), in_memory[name].astype(ml_dtypes.bfloat16), err_msg=name
        )
    from_checkpoint = flatten(open_weights(folder).mmdit_params(mesh=mesh))
    assert all(np.array_equal(np.asarray(leaf), in_memory[name]) for name, leaf in from_checkpoint.items())


# In a process of its own, since the number of devices is fixed when JAX starts.
ON_EIGHT_DEVICES = """
import sys
import jax, numpy as np
from pathlib import Path
from camctrl_jax.files.safetensors import flatten
from camctrl_jax.export.from_diffusers import import_diffusers
from camctrl_jax.checkpoints.weights import open_weights
from camctrl_jax.parallel.mesh import MeshConfig, make_mesh

folder, out = map(Path, sys.argv[1:])
mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
import_diffusers(folder, out)
for spec in (folder, out):
    weights = open_weights(spec)
    placed, whole = (flatten(weights.mmdit_params(mesh=m, dtype=None)) for m in (mesh, None))
    split = 0
    for name, array in placed.items():
        for shard in array.addressable_shards:
            np.testing.assert_array_equal(np.asarray(shard.data), whole[name][shard.index], err_msg=name)
        split += array.addressable_shards[0].data.size < array.size
    assert split > 20, split
"""


def test_every_device_gets_its_own_part(folder, tmp_path):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-c", ON_EIGHT_DEVICES, folder, tmp_path / "checkpoint"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_component_alone_is_found(folder, tmp_path):
    assert open_weights(folder / "vae").vae_config == VAE_CONFIG
    assert export(["from-diffusers", "--source", str(folder / "vae"), "--out", str(tmp_path / "c")]) == 0
    assert load_vae(tmp_path / "c")[0] == VAE_CONFIG
    with pytest.raises(WeightsError, match="no transformer"):
        open_weights(tmp_path / "c").mmdit_params()


def weights_file(folder, part="transformer"):
    return folder / part / "diffusion_pytorch_model.safetensors"


def rewrite(folder, change, part="transformer"):
    """Replace the weights of a component by what ``change`` makes of them."""
    tensors = {name: np.array(array) for name, array in tensors_of(folder, part).items()}
    change(tensors)
    save_sharded(folder / part, tensors, stem="diffusion_pytorch_model")


KEY = "single_transformer_blocks.1.attn.to_k.weight"


def truncated(folder):
    file = weights_file(folder)
    file.write_bytes(file.read_bytes()[:-100])


def misshaped(folder):
    rewrite(folder, lambda tensors: tensors.update({KEY: np.zeros((32, 40), np.float32)}))


def without_key(folder):
    rewrite(folder, lambda tensors: tensors.pop(KEY))


def with_unknown_key(folder):
    rewrite(folder, lambda tensors: tensors.update(extra=np.zeros(1, np.float32)))


def in_half_precision(folder):
    rewrite(folder, lambda tensors: tensors.update({KEY: tensors[KEY].astype(np.float16)}))


def older_cross_attention(folder):
    def change(tensors):
        for name in [name for name in tensors if ".cross_attn." in name]:
            del tensors[name]
        tensors["single_transformer_blocks.0.cross_attn_query_proj.weight"] = np.zeros((32, 32), np.float32)

    rewrite(folder, change)


def pickled(folder):
    weights_file(folder).unlink()
    (folder / "transformer" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))


def pickle_under_another_name(folder):
    weights_file(folder).write_bytes(b"PK\x03\x04" + pickle.dumps({"a": 1}))


def half_precision_variant(folder):
    rewrite(folder, lambda t: t.update({name: array.astype(np.float16) for name, array in t.items()}))
    weights_file(folder).rename(folder / "transformer" / "diffusion_pytorch_model.fp16.safetensors")


def without_config(folder):
    (folder / "transformer" / "config.json").unlink()


def of_another_class(folder):
    path = folder / "transformer" / "config.json"
    path.write_text(path.read_text().replace("MotifVideoTransformer3DModel", "WanTransformer3DModel"))


def unknown_field(folder):
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"guidance_embeds": True}))


def missing_shard(folder):
    weights_file(folder).unlink()
    index = {"weight_map": {KEY: "diffusion_pytorch_model-00001-of-00001.safetensors"}}
    (folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, "is truncated"),
        (misshaped, rf"{KEY} has shape \(32, 40\), this model needs \(32, 32\)"),
        (without_key, f"missing: {KEY}"),
        (with_unknown_key, "unknown: extra"),
        (in_half_precision, f"{KEY} is float16 .*expected bfloat16 or float32"),
        (older_cross_attention, "cross-attention of the first release"),
        (pickled, r"diffusion_pytorch_model\.bin: a pickle.*safe_serialization"),
        (pickle_under_another_name, "a zip archive, as torch.save writes: a pickle"),
        (half_precision_variant, r"variants fp16 \(float16\) only; expected bfloat16 or float32.*range"),
        (without_config, "config.json is absent"),
        (of_another_class, "is of a WanTransformer3DModel"),
        (unknown_field, "field 'guidance_embeds'"),
        (missing_shard, "which is not there"),
    ],
)
def test_faults_are_named_and_leave_nothing_behind(folder, tmp_path, capsys, damage, message):
    damage(folder)
    out = tmp_path / "checkpoint"
    assert export(["from-diffusers", "--source", str(folder), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert not out.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"base"}


def test_full_disk_leaves_nothing_behind(folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "checkpoint"

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("camctrl_jax.checkpoints.runs.Checkpoints.save", full)
    assert export(["from-diffusers", "--source", str(folder), "--out", str(out)]) == 1
    assert "disk is full" in capsys.readouterr().err
    assert not out.exists()
    out.mkdir()  # an empty folder is accepted, and stays empty: the same command can be given again
    assert export(["from-diffusers", "--source", str(folder), "--out", str(out)]) == 1
    assert not list(out.iterdir())


@pytest.mark.parametrize("limit", [100, 20_000])
@pytest.mark.parametrize("command", ["from-diffusers", "to-diffusers", "weights"])
def test_a_full_disk_is_said_in_the_words_of_the_command(nano, folder, tmp_path, command, limit):
    """The name that was asked for, not a hidden one, no bare number, and no run to be continued."""
    out = tmp_path / "out"
    source = ["--source", str(folder)] if command == "from-diffusers" else ["--checkpoint", str(nano)]
    code = (
        "import resource, sys\n"
        "from camctrl_jax.export.__main__ import main\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"  # as a disk without room
        "sys.exit(main(sys.argv[1:]))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code, command, *source, "--out", str(out)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith(f"error: cannot write {out}: the disk is full"), done.stderr
    assert re.search("free some space.*(another place)", error)
    assert "continue" not in error
    assert "Errno" not in error
    assert "Traceback" not in done.stderr, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"base"}


def test_what_cannot_be_exported_is_said_in_one_line(folder, tmp_path, capsys):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    for arguments, message in (
        (["from-diffusers", "--source", str(tmp_path / "nowhere"), "--out", "x"], "no diffusers folder"),
        (["from-diffusers", "--source", str(folder), "--out", str(tmp_path / "used")], "already exists"),
        (["to-diffusers", "--checkpoint", str(folder), "--out", str(tmp_path / "used")], "already exists"),
        (
            ["to-diffusers", "--checkpoint", str(folder / "vae"), "--out", str(tmp_path / "n")],
            "no transformer",
        ),
    ):
        assert export(arguments) == 1
        assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("nano") / "weights")


def test_a_trained_model_exports_with_its_camera_and_comes_back(nano, tmp_path, capsys):
    out = tmp_path / "torch"
    assert export(["to-diffusers", "--checkpoint", str(nano), "--out", str(out), "--dtype", "float32"]) == 0
    assert "note:" not in capsys.readouterr().err
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert names == {
        "README.md",
        "camera/camera_embedder.safetensors",
        "camera/config.json",
        "camera_pipeline.py",
        "model_index.json",
        "sampling.json",
        "scheduler/scheduler_config.json",
        "text/null.safetensors",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    }  # fmt: skip
    assert json.loads((out / "camera" / "config.json").read_text())["order"] == "moment_first"
    assert json.loads((out / "sampling.json").read_text())["frames"] == 9
    assert SafetensorsFile(out / "camera" / "camera_embedder.safetensors").shape("weight") == (48, 6, 1, 2, 2)
    null = load_sharded(out / "text", "null")
    np.testing.assert_array_equal(null["embeds"], embedder_from_settings(TEXT).embed([""])[0])

    back = open_weights(out)
    assert back.sampling == open_weights(nano).sampling
    # The stock class has no shared modulation: every block has its copy.
    config, params = open_weights(nano).mmdit_config, open_weights(nano).mmdit_params()
    assert back.mmdit_config == dataclasses.replace(config, shared_modulation=False)
    found = back.mmdit_params()
    np.testing.assert_array_equal(found["camera_embedder"]["kernel"], params["camera_embedder"]["kernel"])
    kernel = params["shared_modulation"]["norm_kernel"]
    np.testing.assert_array_equal(found["single_transformer_blocks_0"]["norm"]["linear"]["kernel"], kernel)

    # With its camera and its clips it imports and exports again unchanged.
    again = tmp_path / "again"
    assert export(["from-diffusers", "--source", str(out), "--out", str(tmp_path / "c")]) == 0
    assert open_weights(tmp_path / "c").sampling == back.sampling
    assert export(["to-diffusers", "--checkpoint", str(tmp_path / "c"), "--out", str(again)]) == 0
    assert "text/ is left out" in capsys.readouterr().err
    folder, notes = export_diffusers(tmp_path / "folder", checkpoint=str(out))  # with its text, too
    assert not notes
    for name in sorted(names - {"README.md"}):
        assert (folder / name).read_bytes() == (out / name).read_bytes(), name
        if not name.startswith("text/"):
            assert (again / name).read_bytes() == (out / name).read_bytes(), name


def test_a_base_model_keeps_its_clips_and_guidance(tmp_path):
    base = save_nano(tmp_path / "base", camera=False)
    out, notes = export_diffusers(tmp_path / "torch", checkpoint=str(base))
    assert not notes
    assert not (out / "camera").exists()
    assert open_weights(out).sampling == open_weights(base).sampling


def test_folders_that_happen_to_be_called_so_are_no_components(tmp_path):
    for name in ("transformer", "vae"):
        (tmp_path / "run" / name).mkdir(parents=True)
    assert find_diffusers_folder(tmp_path / "run") is None


def test_an_autoencoder_run_exports_its_average(tmp_path, nano):
    """The transformer was trained on it: --raw is about the transformer."""
    params = random_params(expected_vae(VAE_CONFIG), 3)
    vae = save_run(tmp_path / "vae", params, Architecture(vae=VAE_CONFIG).to_json())
    mmdit = random_params(expected_mmdit(mmdit_preset("nano", num_single=1)), 4)
    clip = {"frames": 9, "height": 32, "width": 48, "fps": 12.0, "shift": 1.5}
    config = Architecture(None, mmdit_preset("nano", num_single=1), TEXT, clip, str(vae))
    run = save_run(tmp_path / "stage1", mmdit, config.to_json())
    out, _ = export_diffusers(tmp_path / "raw", checkpoint=str(run), ema=False)
    exported = tensors_of(out, "vae")["quant_conv.weight"]
    np.testing.assert_array_equal(exported[..., 0, 0, 0], params["quant_conv"]["kernel"][0, 0, 0].T)
    assert not np.any(tensors_of(out, "transformer")["proj_out.weight"])  # raw ones are zero in such a run


def test_another_convention_of_the_camera_is_refused(nano, tmp_path):
    out, _ = export_diffusers(tmp_path / "torch", checkpoint=str(nano))
    settings = json.loads((out / "camera" / "config.json").read_text())
    (out / "camera" / "config.json").write_text(json.dumps(settings | {"order": "direction_first"}))
    with pytest.raises(WeightsError, match="order is 'direction_first'"):
        open_weights(out)


def test_exports_without_autoencoder_and_in_bfloat16(nano, tmp_path):
    out, notes = export_diffusers(tmp_path / "torch", checkpoint=str(nano), with_vae=False, dtype="bfloat16")
    assert not (out / "vae").exists()
    assert all(array.dtype == ml_dtypes.bfloat16 for array in tensors_of(out, "transformer").values())
    camera = SafetensorsFile(out / "camera" / "camera_embedder.safetensors")
    assert camera.dtype("weight") == np.float32
    assert not notes
    assert "--vae BASE_MODEL_FOLDER" in (out / "README.md").read_text()


def test_a_folder_exports_with_its_shift_and_one_set_of_parameters(folder, tmp_path):
    out, _ = export_diffusers(tmp_path / "out", checkpoint=str(folder))
    assert json.loads((out / "scheduler" / "scheduler_config.json").read_text())["shift"] == 8.0
    with pytest.raises(WeightsError, match="leave --raw out"):
        export_diffusers(tmp_path / "raw", checkpoint=str(folder), ema=False)


def test_an_autoencoder_of_other_latents_is_refused(folder, tmp_path):
    path = folder / "vae" / "config.json"
    content = json.loads(path.read_text()) | {"z_dim": 4, "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}
    path.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=r"takes 16 latent channels but .* has 4"):
        export_diffusers(tmp_path / "out", checkpoint=str(folder))


def test_a_diverged_model_is_not_exported(nano, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(nano, broken)
    tensors = {name: np.array(array) for name, array in load_sharded(broken, "mmdit").items()}
    tensors["proj_out.bias"][0] = np.nan
    save_sharded(broken, tensors, stem="mmdit")
    with pytest.raises(WeightsError, match=r"proj_out\.bias holds NaN"):
        export_diffusers(tmp_path / "torch", checkpoint=str(broken))
    assert not (tmp_path / "torch").exists()


def test_imported_weights_are_no_training_run(folder, tmp_path):
    import_diffusers(folder, tmp_path / "c")
    from camctrl_jax.checkpoints.runs import CheckpointError, Checkpoints

    checkpoints = Checkpoints(tmp_path / "c")
    with pytest.raises(CheckpointError, match=r"imported weights.*init_from"):
        checkpoints.restore({}, {})
    checkpoints.close()
    assert load_params(tmp_path / "c", part="vae")["decoder"]
