"""Weights and settings as other tools leave them: what is read, what is refused by name, what is remarked."""

from __future__ import annotations

import json
import math
import pickle
import re
import shutil

import ml_dtypes
import numpy as np
import pytest
from nano_weights import random_params, save_nano, save_run

from camctrl_jax.checkpoints.architecture import Architecture
from camctrl_jax.checkpoints.runs import load_run_config, save_networks
from camctrl_jax.checkpoints.weights import expected_mmdit, expected_vae, open_weights
from camctrl_jax.export.__main__ import main as export
from camctrl_jax.files.safetensors import flatten, load_sharded, save_sharded
from camctrl_jax.interop.finite import non_finite_counts
from camctrl_jax.interop.keys import export_mmdit, export_vae
from camctrl_jax.interop.stock_configs import mmdit_to_stock, vae_to_stock
from camctrl_jax.models import MMDiTConfig, vae_preset

STEM = "diffusion_pytorch_model"
KEY = "single_transformer_blocks.1.attn.to_k.weight"
CONFIG = MMDiTConfig(
    width=32, heads=2, head_dim=16, num_dual=1, num_single=2, num_decoder=1, rope_axes=(4, 6, 6),
    rope_theta=256.0, text_dim=8, image_dim=6, text_cross_attention_single=True, camera=None,
)  # fmt: skip
VAE_CONFIG = vae_preset("nano", num_res_blocks=0)
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4665a5ea\nsize 123456\n"
HTML = "<!DOCTYPE html>\n<html><title>Sign in</title></html>"


@pytest.fixture
def base(tmp_path):
    """What save_pretrained of the stock classes would write."""
    folder = tmp_path / "base"
    parts = {
        "transformer": (
            {"_class_name": "MotifVideoTransformer3DModel", **mmdit_to_stock(CONFIG)},
            export_mmdit(random_params(expected_mmdit(CONFIG), 0))[0],
        ),
        "vae": (
            {"_class_name": "AutoencoderKLWan", **vae_to_stock(VAE_CONFIG)},
            export_vae(random_params(expected_vae(VAE_CONFIG), 1)),
        ),
    }
    for name, (stock, tensors) in parts.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(stock))
        save_sharded(folder / name, tensors, stem=STEM, metadata={"format": "pt"})
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"shift": 8.0}))
    return folder


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    return save_nano(tmp_path_factory.mktemp("nano") / "weights")


def tensors_of(folder, part="transformer"):
    return {name: np.array(array) for name, array in load_sharded(folder / part, STEM).items()}


def rewrite(folder, change, part="transformer"):
    tensors = tensors_of(folder, part)
    change(tensors)
    save_sharded(folder / part, tensors, stem=STEM)


def refused(base, capsys):
    """The message of an import that must fail and leave nothing."""
    out = base.parent / "checkpoint"
    assert export(["from-diffusers", "--source", str(base), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: "), error
    assert error.count("\n") == 1, error
    assert not [path for path in base.parent.iterdir() if path != base]
    return error


def imported(base, capsys, *options):
    """What an import that must succeed says."""
    out = base.parent / "checkpoint"
    assert export(["from-diffusers", "--source", str(base), "--out", str(out), *options]) == 0
    return capsys.readouterr().err


# NaN and infinity.


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("transformer", [np.nan], "1 NaN of 1,024 values"),
        ("transformer", [np.nan, np.inf, -np.inf], "1 NaN and 2 infinite of 1,024 values"),
        ("transformer", [-np.inf], "1 infinite of 1,024 values"),
        ("vae", [np.nan, np.nan], "2 NaN of "),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_weights_that_are_no_numbers_are_refused_at_import(base, capsys, part, values, message, dtype):
    key = KEY if part == "transformer" else "decoder.conv_in.weight"

    def change(tensors):
        tensors[key] = tensors[key].astype(dtype)
        tensors[key].reshape(-1)[-len(values) :] = values

    rewrite(base, change, part)
    error = refused(base, capsys)
    assert f"{base / part / STEM}.safetensors: {key} holds NaN or infinity ({message}" in error
    assert "the run diverged." not in error
    assert "Download it again" in error
    assert export(["to-diffusers", "--checkpoint", str(base), "--out", str(base.parent / "out")]) == 1
    assert f"{key} holds NaN" in capsys.readouterr().err  # a folder is a spec without an import, too
    assert not (base.parent / "out").exists()


def test_the_shard_that_holds_them_is_named(base, capsys):
    tensors = tensors_of(base)
    tensors[KEY][0, 0] = np.nan
    (base / "transformer" / f"{STEM}.safetensors").unlink()
    save_sharded(base / "transformer", tensors, stem=STEM, max_file_bytes=60_000)
    error = refused(base, capsys)
    index = json.loads((base / "transformer" / f"{STEM}.safetensors.index.json").read_text())
    assert f"{base / 'transformer' / index['weight_map'][KEY]}: {KEY} holds" in error


def test_an_exported_camera_and_text_with_them_are_refused(nano, tmp_path, capsys):
    out = tmp_path / "torch"
    assert export(["to-diffusers", "--checkpoint", str(nano), "--out", str(out)]) == 0
    capsys.readouterr()
    for folder, stem, name in (("camera", "camera_embedder", "bias"), ("text", "null", "embeds")):
        copy = shutil.copytree(out, tmp_path / folder / "copy")
        tensors = {key: np.array(array) for key, array in load_sharded(copy / folder, stem).items()}
        tensors[name].reshape(-1)[0] = np.nan
        save_sharded(copy / folder, tensors, stem=stem)
        command = ["to-diffusers", "--checkpoint", str(copy), "--out", str(tmp_path / folder / "again")]
        assert export(command) == 1
        assert (
            f"{folder}/{stem}.safetensors: {name} holds NaN or infinity (1 NaN of" in capsys.readouterr().err
        )


@pytest.mark.parametrize("command", ["weights", "to-diffusers"])
def test_a_weights_folder_with_them_is_refused_when_it_is_read(nano, tmp_path, capsys, command):
    broken = shutil.copytree(nano, tmp_path / "broken")
    tensors = {name: np.array(array) for name, array in load_sharded(broken, "mmdit").items()}
    tensors["proj_out.bias"][0] = np.nan
    save_sharded(broken, tensors, stem="mmdit")
    assert export([command, "--checkpoint", str(broken), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert f"{broken / 'mmdit.safetensors'}: proj_out.bias holds NaN or infinity (1 NaN of" in error
    assert "Download it again" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["weights", "to-diffusers"])
def test_an_export_says_what_fits_the_weights_origin(tmp_path, capsys, command):
    vae = random_params(expected_vae(VAE_CONFIG), 0)
    vae["decoder"]["conv_in"]["bias"][:] = np.inf
    params = random_params(expected_mmdit(CONFIG), 1)
    params["proj_out"]["bias"][0] = np.nan
    clip = {"frames": 9, "height": 32, "width": 48, "fps": 12.0, "shift": 1.5}
    text = {"kind": "words", "dim": 8, "max_tokens": 4}
    trained = save_run(tmp_path / "run", params, Architecture(None, CONFIG, text, clip, "random").to_json())
    alone = save_nano(tmp_path / "vae", mmdit=False)
    arguments = ["--vae", str(alone), "--out", str(tmp_path / "out")]
    assert export([command, "--checkpoint", str(trained), *arguments]) == 1
    error = capsys.readouterr().err
    assert re.search(r"proj_out\.bias'? holds NaN or infinity \(1 NaN of .*: the run diverged", error), error
    config = load_run_config(trained) | {"imported": {"folder": "base", "shift": None}}
    save_networks(tmp_path / "imported", {"mmdit": params}, config)
    assert export([command, "--checkpoint", str(tmp_path / "imported"), *arguments]) == 1
    error = capsys.readouterr().err
    assert "it was imported so" in error
    assert "the run diverged" not in error
    assert not (tmp_path / "out").exists()


def test_counts_are_exact_in_every_dtype_and_piece(monkeypatch):
    monkeypatch.setattr("camctrl_jax.interop.finite._CHUNK", 7)
    for dtype in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16):
        array = np.ones((5, 6), dtype)
        assert non_finite_counts(array) == (0, 0)
        array[0, 0], array[2, 3], array[4, 5] = np.nan, np.inf, -np.inf
        assert non_finite_counts(array) == (1, 2)
        assert non_finite_counts(array.T) == (1, 2)
    assert non_finite_counts(np.full(3, 2.0**127, ml_dtypes.bfloat16)) == (0, 0)
    assert non_finite_counts(np.array([1], np.int64)) == (0, 0)


# Index files, pointers and other files in the place of weights.

INDEX = f"{STEM}.safetensors.index.json"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight_map": [1, 2]}, "its weight_map is a list of 2 entries; expected JSON with a"),
        ({"weight_map": {"a": 1}}, "weight_map gives 1 for tensor 'a'; expected the name of a file"),
        ({"weight_map": {"a": None}}, "weight_map gives None for tensor 'a'"),
        ({"weight_map": {"a": ["x"]}}, r"weight_map gives \['x'\] for tensor 'a'"),
        ({"weight_map": None}, "its weight_map is None; expected"),
        ({"weight_map": {}}, "its weight_map is an object of 0 entries"),
        ({"weight_map": "a"}, "its weight_map is 'a'; expected"),
        ({"metadata": {}}, "holds an object with metadata; expected JSON with a"),
        ({}, "holds an object with nothing; expected"),
        ([1], "holds a list of 1 entries; expected"),
        (None, "holds None; expected"),
        ({"weight_map": {"a": "../x.safetensors"}}, "'../x.safetensors' for tensor 'a', which is no plain"),
        ({"weight_map": {"a": "/etc/x.safetensors"}}, "which is no plain file name"),
        ({"weight_map": {"a": "sub/x.safetensors"}}, "which is no plain file name"),
        ({"weight_map": {"a": "sub\\x.safetensors"}}, "which is no plain file name"),
        ({"weight_map": {"a": ".."}}, "which is no plain file name"),
        ({"weight_map": {"a": ""}}, "which is no plain file name"),
        ({"weight_map": {"a": "x.bin"}}, "'x.bin' for tensor 'a'; only safetensors files are read"),
        ({"weight_map": {"a": "x.safetensors"}}, "names x.safetensors, which is not there: copy the whole"),
        (
            {"weight_map": {"a": "x.safetensors", "b": "y.safetensors", "c": f"{STEM}.safetensors"}},
            "names x.safetensors, y.safetensors, 2 of its 3 files are not there",
        ),
        ({"weight_map": {"nowhere": f"{STEM}.safetensors"}}, "disagree; missing nowhere; unexpected"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "names a more than once"),
        ('{"weight_map":', "is not JSON"),
        ("", r"is empty \(0 bytes\)"),
        (LFS, "is a Git LFS pointer to 123456 bytes.*git lfs pull"),
        (HTML, "is a web page"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_an_index_of_another_shape_is_named(base, capsys, content, message):
    text = content if isinstance(content, str) else json.dumps(content)
    (base / "transformer" / INDEX).write_text(text)
    error = refused(base, capsys)
    assert str(base / "transformer") in error
    assert re.search(message, error), error


def test_a_name_that_is_too_long_for_a_file_is_named(base, capsys):
    name = f"{'x' * 400}.safetensors"
    index = base / "transformer" / f"{STEM}.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {KEY: name}}))
    assert f"{index}: weight_map gives a name of 412 characters" in refused(base, capsys)


def test_a_tensor_that_is_listed_but_absent_in_its_shard_is_named(base, capsys):
    tensors = tensors_of(base)
    (base / "transformer" / f"{STEM}.safetensors").unlink()
    *shards, index = save_sharded(base / "transformer", tensors, stem=STEM, max_file_bytes=60_000)
    content = json.loads(index.read_text())
    content["weight_map"]["phantom.weight"] = shards[1].name
    index.write_text(json.dumps(content))
    error = refused(base, capsys)
    assert f"{shards[1]}: the file and {INDEX} disagree; missing phantom.weight" in error
    index.unlink()
    assert "but no index of them" in refused(base, capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LFS.encode(), "is a Git LFS pointer to 123456 bytes, not the file itself.*`git lfs pull`"),
        (HTML.encode(), "is a web page .it begins '<!DOCTYPE html>'"),
        (b"\n\n  <?xml version='1.0'?><Error>AccessDenied</Error>", "is a web page"),
        (b"", "is empty"),
        (b"Entry not found", "is text .it begins 'Entry not found'"),
        (b'{"error": "Repository not found"}', "is text .it begins"),
        (b"PK\x03\x04\x00\x00\x08\x08" + bytes(90), "is a zip archive, as torch.save writes: a pickle"),
        (pickle.dumps({"a": 1}), "is a pickle, which can run code.*safe_serialization=True"),
        (pickle.dumps({"a": 1}, 2), "is a pickle"),
        (b"GGUF\x03\x00\x00\x00" + bytes(50), "is a GGUF file: quantised"),
        (b"\x1f\x8b\x08\x00" + b"\x11" * 50, "is a gzip archive: unpack"),
        (b"/annex/objects/SHA256E-s12--ab", "is a git-annex pointer"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "header length"),
        ((10**17).to_bytes(8, "little") + b"{}", "header length reads 100000000000000000 bytes"),
        ((90_000_000).to_bytes(8, "little") + b"{}", "the header needs 90000008 bytes, the file has 10"),
        (b"\x02", "1 bytes, fewer than the 8"),
        ((8).to_bytes(8, "little") + b'{"a": 1}', r"tensor 'a' is 1; expected dtype, shape"),
        ((200_000).to_bytes(8, "little") + b"[" * 200_000, "the header is not JSON"),
    ],
)
def test_other_files_in_the_place_of_weights_are_named(base, capsys, content, message):
    file = base / "transformer" / f"{STEM}.safetensors"
    file.write_bytes(content)
    error = refused(base, capsys)
    assert str(file) in error
    assert re.search(message, error), error


@pytest.mark.parametrize("length", [0x3C, 0x0280, 0x8B1F, 0x7B, 0x0A, 0x48])
def test_no_length_of_a_header_is_taken_for_another_kind_of_file(tmp_path, length):
    """60 bytes are '<', 640 begin like a pickle: what a length looks like says nothing."""
    length += -length % 8 if length > 200 else 0
    header = json.dumps({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    file = tmp_path / "model.safetensors"
    padded = header.ljust(length)
    file.write_bytes(len(padded).to_bytes(8, "little") + padded + np.float32(3).tobytes())
    assert load_sharded(tmp_path)["x"] == [3]


@pytest.mark.parametrize("name", ["pytorch_model.bin", f"{STEM}.bin", "model.ckpt", f"{STEM}.bin.index.json"])
def test_pickles_are_named_where_there_is_nothing_else(base, capsys, name):
    (base / "transformer" / f"{STEM}.safetensors").rename(base / "transformer" / name)
    error = refused(base, capsys)
    assert f"holds {name}: a pickle, which can run code" in error
    assert "safe_serialization=True" in error


def test_a_pickle_beside_safetensors_is_no_matter(base, capsys):
    (base / "transformer" / f"{STEM}.bin").write_bytes(b"PK")
    assert imported(base, capsys) == ""


def test_weights_of_another_librarys_name_are_named(base, capsys):
    (base / "vae" / f"{STEM}.safetensors").rename(base / "vae" / "Wan2.1_VAE.safetensors")
    assert "holds Wan2.1_VAE.safetensors, not diffusion_pytorch_model.safetensors" in refused(base, capsys)


def test_a_link_that_leads_nowhere_is_named(base, capsys):
    file = base / "vae" / f"{STEM}.safetensors"
    file.unlink()
    file.symlink_to("../../blobs/4665a5ea")
    assert "a link to ../../blobs/4665a5ea): no such file" in refused(base, capsys)


@pytest.mark.parametrize("part", ["transformer", "vae"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LFS, "is a Git LFS pointer.*git lfs pull"),
        (HTML, "is a web page"),
        ("", "is empty"),
        ("{", "is not JSON"),
        ("[1]", "holds a list, expected a JSON object"),
        ("null", "expected a JSON object"),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_other_files_in_the_place_of_settings_are_named(base, capsys, part, text, message, alone):
    file = base / part / "config.json"
    file.write_text(text)
    source = base
    if alone and text not in ("{", "[1]", "null"):  # else it is nobody's folder
        source = base / part
    out = base.parent / "checkpoint"
    assert export(["from-diffusers", "--source", str(source), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert str(file) in error
    assert re.search(message, error), error


# Fields of configurations.

_INTEGERS = ("2", 2.0, True, -1, [2])
_NUMBERS = ("2", True, -1.0, None, [2.0], math.nan)
_FIELDS = {
    "transformer": {
        **dict.fromkeys(
            (
                "in_channels", "num_attention_heads", "attention_head_dim", "num_layers", "num_single_layers",
                "num_decoder_layers", "patch_size", "patch_size_t", "text_embed_dim",
            ),
            (*_INTEGERS, None),
        ),
        "out_channels": _INTEGERS,
        "image_embed_dim": _INTEGERS,
        "mlp_ratio": (*_NUMBERS, 4.01),
        "rope_theta": _NUMBERS,
        "rope_axes_dim": ([4, 6], [4, 6, 6, 0], "466", None, 16, [4, 6.0, 6], [4, True, 11], [4, -6, 18]),
        "qk_norm": (1, None, "layer_norm", []),
        "norm_type": (1, None, "rms_norm"),
        "enable_text_cross_attention_dual": (1, "true", None),
        "enable_text_cross_attention_single": (1, "true", None, [True]),
    },
    "vae": {
        **dict.fromkeys(("base_dim", "z_dim", "num_res_blocks", "in_channels"), (*_INTEGERS, None)),
        **dict.fromkeys(
            ("out_channels", "scale_factor_temporal", "scale_factor_spatial"), (*_INTEGERS, None)
        ),
        "decoder_base_dim": _INTEGERS,
        "patch_size": _INTEGERS,
        "dim_mult": ("1244", None, [1, "2"], [1, 2.0], [1, True], [1, -2], 4, []),
        "attn_scales": ("x", None, ["1"], 1),
        "temperal_downsample": ([0, 1, 1], "abc", None, True, [False]),
        "latents_mean": ("x", None, [0.0] * 3, ["0"] * 16, [None] * 16, [math.nan] * 16, 0.0),
        "latents_std": ("x", None, [1.0] * 3, [0.0] * 16, [-1.0] * 16, [math.inf] * 16, [True] * 16),
        "is_residual": (0, "false", None),
        "dropout": ("0", None),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        (part, field, value)
        for part, fields in _FIELDS.items()
        for field, values in fields.items()
        for value in values
    ],
)
def test_a_field_of_another_kind_is_named_with_its_file(base, capsys, part, field, value):
    file = base / part / "config.json"
    content = json.loads(file.read_text())
    assert field in content
    file.write_text(json.dumps(content | {field: value}))
    error = refused(base, capsys)
    assert str(file) in error
    # The stock class and this package spell one field differently.
    assert field in error or field.replace("temperal", "temporal") in error, error


SCHEDULER = "scheduler/scheduler_config.json"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"shift": "abc"}, "shift is 'abc'; expected a finite number above 0"),
        ({"shift": 0}, "shift is 0; expected a finite number above 0"),
        ({"shift": -3.0}, "shift is -3.0"),
        ({"shift": None}, "shift is null"),
        ({"shift": True}, "shift is true"),
        ({"shift": [3.0]}, r"shift is \[3.0\]"),
        ({"shift": math.nan}, "shift is nan"),
        ({"shift": 3.0, "use_dynamic_shifting": "yes"}, "use_dynamic_shifting is 'yes'; expected true or"),
        ({"shift": 3.0, "prediction_type": "epsilon"}, "prediction_type is 'epsilon'; this package samples"),
        ({"_class_name": "DDIMScheduler"}, "it is of a DDIMScheduler; this package samples a flow"),
        ({"_class_name": "EulerDiscreteScheduler", "shift": 3.0}, "it is of a EulerDiscreteScheduler"),
        ({"_class_name": "UniPCMultistepScheduler", "flow_shift": 3.0}, "it is of a UniPCMultistepScheduler"),
        (
            {"_class_name": "UniPCMultistepScheduler", "prediction_type": "v_prediction", "flow_shift": 3.0},
            "prediction_type is 'v_prediction'",
        ),
        ({"flow_shift": "5"}, "flow_shift is '5'; expected"),
        ({"base_shift": "x"}, "base_shift is 'x'; expected"),
        ({"max_shift": True}, "max_shift is true; expected"),
        ({"time_shift_type": 1}, "time_shift_type is 1; expected text"),
        ({"shift": None}, "shift is null; expected"),
        ({"num_train_timesteps": 500}, "num_train_timesteps is 500; expected 1000"),
        ({"_class_name": ["x"]}, "it is of a"),
        ([8.0], "expected a JSON object"),
        (LFS, "is a Git LFS pointer"),
    ],
)
def test_a_scheduler_that_means_something_else_is_refused(base, capsys, content, message):
    (base / SCHEDULER).write_text(content if isinstance(content, str) else json.dumps(content))
    error = refused(base, capsys)
    assert str(base / SCHEDULER) in error
    assert re.search(message, error), error
    assert export(["to-diffusers", "--checkpoint", str(base), "--out", str(base.parent / "out")]) == 1
    assert re.search(message, capsys.readouterr().err)


FLOW_UNIPC = {
    "_class_name": "UniPCMultistepScheduler",
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 5.0,
}


@pytest.mark.parametrize(
    ("content", "remark", "shift"),
    [
        ({"shift": 3.0, "use_dynamic_shifting": True}, "use_dynamic_shifting is true: .*--shift", None),
        ({"shift": 3.0, "use_dynamic_shifting": False}, None, 3.0),
        ({"shift": 3, "flow_shift": 5.0}, "flow_shift is 5.0, which a FlowMatchEuler.* is ignored", 3.0),
        (FLOW_UNIPC | {"shift": None}, "it is of a UniPC", 5.0),
        ({"shift": None, "use_dynamic_shifting": True}, "use_dynamic_shifting is true", None),
        (FLOW_UNIPC, "it is of a UniPCMultistepScheduler: sampling takes Euler steps", 5.0),
        ({"shift": 3.0, "use_karras_sigmas": True}, "use_karras_sigmas is true: another time grid", 3.0),
        ({"shift": 3.0, "shift_terminal": 0.1}, "shift_terminal is 0.1: another time grid", 3.0),
        ({"shift": 3.0, "shift_terminal": None, "use_beta_sigmas": False}, None, 3.0),
        ({"_class_name": "FlowMatchHeunDiscreteScheduler", "shift": 3.0}, "Euler steps", 3.0),
        ({}, None, None),
    ],
)
def test_what_is_not_done_of_a_scheduler_is_remarked(base, capsys, content, remark, shift):
    (base / SCHEDULER).write_text(json.dumps(content))
    said = imported(base, capsys)
    if remark is None:
        assert said == ""
    else:
        assert re.search(rf"^note: {re.escape(str(base / SCHEDULER))}: .*{remark}", said), said
    assert load_run_config(base.parent / "checkpoint")["imported"]["shift"] == shift
    out = base.parent / "out"
    assert export(["to-diffusers", "--checkpoint", str(base), "--out", str(out)]) == 0
    assert remark is None or re.search(remark, capsys.readouterr().err)
    assert json.loads((out / SCHEDULER).read_text())["shift"] == (1.0 if shift is None else shift)


# Variants.

SPELLINGS = {  # (index, shard) of variant V: diffusers today, as files on the hub are found, diffusers before
    "diffusers": (f"{STEM}.safetensors.index.V.json", f"{STEM}.V-0000N-of-00002.safetensors"),
    "hub": (f"{STEM}.V.safetensors.index.json", f"{STEM}.V-0000N-of-00002.safetensors"),
    "legacy": (f"{STEM}.safetensors.V.index.json", f"{STEM}-0000N-of-00002.V.safetensors"),
}


def to_variant(folder, variant, dtype, spelling=None, part="transformer", scale=1.0):
    """Write the weights of a component, times ``scale``, once more as a variant, whole or in two shards."""
    home = folder / part
    tensors = {name: (array * scale).astype(dtype) for name, array in tensors_of(folder, part).items()}
    if spelling is None:
        save_sharded(home, tensors, stem=f"{STEM}.{variant}")
        return tensors
    index, shard = (name.replace("V", variant) for name in SPELLINGS[spelling])
    names, weight_map = sorted(tensors), {}
    for number, half in ((1, names[::2]), (2, names[1::2])):
        name = shard.replace("N", str(number))
        save_sharded(home, {key: tensors[key] for key in half}, stem=name.removesuffix(".safetensors"))
        weight_map |= dict.fromkeys(half, name)
    (home / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return tensors


def exported_again(base, capsys):
    """The transformer of the checkpoint that an import made."""
    out = base.parent / "again"
    assert export(["to-diffusers", "--checkpoint", str(base.parent / "checkpoint"), "--out", str(out)]) == 0
    capsys.readouterr()
    return load_sharded(out / "transformer", STEM)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("spelling", [None, *SPELLINGS])
@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float32])
def test_a_variant_is_read_bit_for_bit_whole_or_in_shards(base, capsys, spelling, dtype):
    expected = to_variant(base, "bf16", dtype, spelling)
    (base / "transformer" / f"{STEM}.safetensors").unlink()
    said = imported(base, capsys)
    assert re.search(r"^note: .*transformer: variant bf16 is read \(.*bf16.*\)\.$", said, re.MULTILINE), said
    assert_same(exported_again(base, capsys), expected)
    folder = open_weights(base).mmdit_params()  # the folder itself is a spec
    kernel = folder["proj_out"]["kernel"]
    np.testing.assert_array_equal(kernel, expected["proj_out.weight"].astype(np.float32).T)


def test_the_full_weights_are_preferred_and_the_others_named(base, capsys):
    full = tensors_of(base)
    half = to_variant(base, "bf16", ml_dtypes.bfloat16, "diffusers")
    to_variant(base, "fp16", np.float16)
    said = imported(base, capsys)
    assert f"{STEM}.safetensors is read; also there: bf16, fp16 (--variant)" in said
    assert_same(exported_again(base, capsys), full)
    shutil.rmtree(base.parent / "checkpoint")
    shutil.rmtree(base.parent / "again")
    said = imported(base, capsys, "--variant", "bf16")
    assert "variant bf16 is read" in said
    assert f"vae has no variant bf16: {STEM}.safetensors is read" in said
    assert_same(exported_again(base, capsys), half)


def test_of_variants_alone_the_most_exact_is_read(base, capsys):
    exact = to_variant(base, "fp32", np.float32)
    to_variant(base, "bf16", ml_dtypes.bfloat16, "hub")
    to_variant(base, "fp16", np.float16)
    (base / "transformer" / f"{STEM}.safetensors").unlink()
    said = imported(base, capsys)
    assert "variant fp32 is read" in said
    assert "also there: bf16, fp16" in said
    assert_same(exported_again(base, capsys), exact)


@pytest.mark.parametrize(
    "damage", ["version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "cut"]
)
def test_a_sound_variant_is_read_beside_one_that_nobody_asked_for_and_cannot_be(base, capsys, damage):
    expected = to_variant(base, "bf16", ml_dtypes.bfloat16)
    to_variant(base, "fp16", np.float16)
    other = base / "transformer" / f"{STEM}.fp16.safetensors"
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    other.write_bytes(other.read_bytes()[:100] if damage == "cut" else pointer)
    (base / "transformer" / f"{STEM}.safetensors").unlink()
    said = imported(base, capsys)
    assert "variant bf16 is read" in said
    assert "fp16 cannot be read" in said
    assert_same(exported_again(base, capsys), expected)
    (base / "transformer" / f"{STEM}.bf16.safetensors").unlink()
    for made in ("checkpoint", "again"):
        shutil.rmtree(base.parent / made)
    assert f"{STEM}.fp16.safetensors" in refused(base, capsys)


def test_which_of_two_averages_is_meant_must_be_said(base, capsys):
    to_variant(base, "ema", np.float32)
    expected = to_variant(base, "non_ema", np.float32, scale=2.0)
    (base / "transformer" / f"{STEM}.safetensors").unlink()
    assert "holds the variants ema, non_ema and no full weights: say which" in refused(base, capsys)
    imported(base, capsys, "--variant", "non_ema")
    assert_same(exported_again(base, capsys), expected)


def test_a_variant_that_cannot_be_read_or_is_not_there_is_named(base, capsys):
    out = ["--out", str(base.parent / "checkpoint")]
    assert export(["from-diffusers", "--source", str(base), *out, "--variant", "bf16"]) == 1
    assert "has no variant 'bf16' of its weights; there are no variants" in capsys.readouterr().err
    to_variant(base, "fp16", np.float16)
    assert export(["from-diffusers", "--source", str(base), *out, "--variant", "bf16"]) == 1
    assert "there is fp16" in capsys.readouterr().err
    assert export(["from-diffusers", "--source", str(base), *out, "--variant", "fp16"]) == 1
    assert "is float16 (its range is too small" in capsys.readouterr().err
    (base / "transformer" / f"{STEM}.safetensors").unlink()
    assert "in the variants fp16 (float16) only; expected bfloat16 or float32" in refused(base, capsys)


@pytest.mark.torch
@pytest.mark.parametrize("shards", [True, False])
def test_variants_as_diffusers_itself_writes_them(base, capsys, shards):
    torch = pytest.importorskip("torch", reason="torch is absent; pip install 'camctrl_jax[torch]'")
    diffusers = pytest.importorskip("diffusers", reason="diffusers is absent")
    model = diffusers.MotifVideoTransformer3DModel.from_pretrained(base / "transformer").to(torch.bfloat16)
    shutil.rmtree(base / "transformer")
    size = {"max_shard_size": "60KB"} if shards else {}
    model.save_pretrained(base / "transformer", variant="bf16", **size)
    names = {path.name for path in (base / "transformer").iterdir()}
    assert (f"{STEM}.safetensors.index.bf16.json" in names) == shards
    assert "variant bf16 is read" in imported(base, capsys)
    found = exported_again(base, capsys)
    for name, tensor in model.state_dict().items():
        assert found[name].tobytes() == tensor.contiguous().view(torch.int16).numpy().tobytes(), name


def test_every_leaf_of_a_sound_import_is_finite(base):
    assert all(np.isfinite(leaf).all() for leaf in flatten(open_weights(base).mmdit_params()).values())
