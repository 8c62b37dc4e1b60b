"""The text encoders' command: embeddings as transformers gives them, resumable, read by training."""

from __future__ import annotations

import json
import pickle

import ml_dtypes
import numpy as np
import pytest

from camctrl_jax.data.text import PrecomputedText, TextEmbedder, embedder_from_settings
from camctrl_jax.encode_text import encoding
from camctrl_jax.encode_text.__main__ import main
from camctrl_jax.encode_text.settings import NEGATIVE_PROMPT, Settings
from camctrl_jax.encode_text.texts import gather_texts
from camctrl_jax.errors import UserError

pytestmark = pytest.mark.torch

WORDS = [
    "<pad>",
    "</s>",
    "<unk>",
    "red",
    "blue",
    "ball",
    "box",
    "rolls",
    "a",
    "the",
    "past",
    "quality",
    "worst",
]
TEXTS = ["a red ball", "the blue box", "a red ball rolls past the blue box", "ball"]


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch", reason="torch is absent; install it with pip install 'camctrl_jax[torch]'")
    return pytest.importorskip("transformers", reason="absent; pip install 'camctrl_jax[torch]'")


def save_tokenizer(transformers, folder, ends: bool = True, **options) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if ends:
        tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **options).save_pretrained(
        folder
    )


def make_encoder(transformers, kind: str):
    import torch

    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": len(WORDS)}
    if kind == "t5":
        return transformers.T5EncoderModel(transformers.T5Config(**sizes))
    if kind == "whole_t5":
        return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes))
    if kind == "umt5":
        return transformers.UMT5EncoderModel(transformers.UMT5Config(**sizes))
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        "vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "head_dim": 8, "num_attention_heads": 2, "num_key_value_heads": 1, "sliding_window": 8,
        "dropout_rate": 0.0, "layer_types": ["sliding_attention", "full_attention"],
    }  # fmt: skip
    config = transformers.T5Gemma2EncoderConfig(
        text_config=text,
        vision_config={"model_type": "siglip_vision_model", "image_size": 16, "patch_size": 8} | vision,
        mm_tokens_per_image=4,
        boi_token_index=10,
        eoi_token_index=11,
        image_token_index=12,
    )
    return transformers.T5Gemma2Encoder(config, eoi_token_index=11)


@pytest.fixture(scope="module")
def t5(transformers, tmp_path_factory):
    """A folder as diffusers lays a model out."""
    folder = tmp_path_factory.mktemp("base")
    make_encoder(transformers, "t5").save_pretrained(folder / "text_encoder")
    save_tokenizer(transformers, folder / "tokenizer")
    return folder


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"one": TEXTS[:2], "two": TEXTS[2], "three": [" ball ", TEXTS[0]]}))
    return path


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(encoding, "TEXTS_PER_PART", 2)


def run(encoder, out, prompts, *options: str) -> int:
    return main(["--encoder", str(encoder), "--out", str(out), "--prompts", str(prompts), *options])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("t5", {}),
        ("whole_t5", {}),
        ("umt5", {}),
        ("t5gemma2", {"padding_side": "left"}),  # as the tokenizers of Gemma pad
        ("t5", {"ends": False}),  # "" has no token at all
    ],
)
def test_embeddings_are_those_of_transformers(transformers, tmp_path, prompts, kind, options):
    import torch

    model = make_encoder(transformers, kind).eval()
    model.save_pretrained(tmp_path / "encoder")
    save_tokenizer(transformers, tmp_path / "encoder", **options)
    settings = ["--dtype", "float32", "--max-tokens", "7", "--batch-size", "3"]
    assert run(tmp_path / "encoder", tmp_path / "text.safetensors", prompts, *settings) == 0
    text = PrecomputedText.load(tmp_path / "text.safetensors")
    assert list(text.embeddings) == ["", NEGATIVE_PROMPT, *TEXTS]
    assert (text.dim, text.max_tokens) == (16, 7)

    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "encoder")
    inputs = tokenizer(TEXTS, padding="max_length", max_length=7, truncation=True, return_tensors="pt")
    inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    encoder = model.get_encoder() if kind == "whole_t5" else model
    with torch.no_grad():
        expected = encoder(**inputs)[0].numpy()
    vectors, mask = text.embed(TEXTS)
    used = inputs["attention_mask"].numpy().astype(bool)
    np.testing.assert_array_equal(mask.sum(axis=1), used.sum(axis=1))
    for i in range(len(TEXTS)):
        np.testing.assert_allclose(vectors[i, mask[i]], expected[i, used[i]], rtol=1e-5, atol=1e-5)
        assert not vectors[i, ~mask[i]].any()
    assert text.embed([""])[1].sum() == 1


def test_training_reads_what_was_written(t5, tmp_path, prompts):
    from camctrl_jax.training.config import load_recipe
    from camctrl_jax.training.input_settings import embedder_of
    from camctrl_jax.training.values import ConfigError

    out = tmp_path / "text.safetensors"
    assert run(t5, out, prompts, "--dtype", "bfloat16", "--max-tokens", "8") == 0
    config = load_recipe("configs/stage1.py:nano")
    config.data.text.source = str(out)
    with pytest.raises(ConfigError, match=r"data\.text\.dim=16"):
        embedder_of(config)
    config.data.text.dim = 16
    embedder = embedder_of(config)
    assert isinstance(embedder, TextEmbedder)
    assert embedder.embeddings["ball"].dtype == ml_dtypes.bfloat16
    vectors, mask = embedder.embed(["", "ball"])
    assert vectors.dtype == np.float32
    assert mask.sum(axis=1).tolist() == [1, 2]
    assert embedder.truncated(TEXTS) == 0
    assert embedder_from_settings(embedder.settings()).dim == 16
    again = pickle.loads(pickle.dumps(embedder))  # to worker processes, without the data
    assert len(pickle.dumps(embedder)) < 1000
    np.testing.assert_array_equal(again.embed(["ball"])[0], vectors[1:])
    with pytest.raises(KeyError, match="'a cat'"):
        embedder.embed(["a cat"])


def test_captions_of_a_dataset_are_encoded(t5, tmp_path, capsys):
    from camctrl_jax.build_dataset.__main__ import main as build_dataset

    build = ["worlds", "--count", "2", "--frames", "5", "--height", "16", "--width", "32", "--samples", "1"]
    assert build_dataset([*build, "--workers", "0", "--out", str(tmp_path / "set")]) == 0
    out = tmp_path / "text.safetensors"
    assert main(["--encoder", str(t5), "--dataset", str(tmp_path / "set"), "--out", str(out)]) == 0
    assert "--config.data.text.dim=16" in capsys.readouterr().err
    texts = set(PrecomputedText.load(out).embeddings)
    assert texts == set(gather_texts([tmp_path / "set"], []))
    assert len(texts) > 3
    with_text = [*build, "--workers", "0", "--out", str(tmp_path / "with"), "--text-embeddings", str(out)]
    assert build_dataset(with_text) == 0


def test_interrupted_run_ends_with_the_same_file(t5, tmp_path, prompts, small_parts, monkeypatch, capsys):
    whole, out = tmp_path / "whole.safetensors", tmp_path / "text.safetensors"
    assert run(t5, whole, prompts) == 0
    calls = []

    class Interrupted(encoding.TextEncoder):
        def encode(self, texts, batch_size):
            calls.append(texts)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return super().encode(texts, batch_size)

    with monkeypatch.context() as patch:
        patch.setattr(encoding, "TextEncoder", Interrupted)
        assert run(t5, out, prompts) == 130
    parts = tmp_path / "text.safetensors.parts"
    assert not out.exists()
    assert sorted(path.name for path in parts.iterdir()) == ["00000.safetensors", "plan.json"]

    assert run(t5, out, prompts, "--max-tokens", "9") == 1
    assert "max_tokens differ" in capsys.readouterr().err
    assert run(t5, out, prompts) == 0
    assert "1 of 3 parts are there already" in capsys.readouterr().err
    assert out.read_bytes() == whole.read_bytes()
    assert not parts.exists()
    before = out.stat().st_mtime_ns
    assert run(t5, out, prompts) == 0
    assert out.stat().st_mtime_ns == before
    assert run(t5, out, prompts, "--dtype", "float32") == 1
    assert "add --overwrite" in capsys.readouterr().err
    assert run(t5, out, prompts, "--dtype", "float32", "--overwrite") == 0


def test_shards_together_end_with_the_same_file(t5, tmp_path, prompts, small_parts, capsys):
    whole, out = tmp_path / "whole.safetensors", tmp_path / "text.safetensors"
    assert run(t5, whole, prompts) == 0
    parts = tmp_path / "text.safetensors.parts"
    for shard, made in (("1/2", [1, 2]), ("0/2", [0, 1, 2])):
        assert run(t5, out, prompts, "--shard", shard) == 0
        assert sorted(int(path.stem) for path in parts.glob("*.safetensors")) == made
        assert not out.exists()
    capsys.readouterr()
    assert run(t5, out, prompts) == 0
    assert "3 of 3 parts are there already" in capsys.readouterr().err
    assert out.read_bytes() == whole.read_bytes()
    assert run(t5, out, prompts, "--shard", "2/2") == 1
    assert "expected K/N" in capsys.readouterr().err


def test_parts_of_another_width_are_refused(t5, tmp_path, prompts, small_parts, monkeypatch):
    class Wider(encoding.TextEncoder):
        def encode(self, texts, batch_size):
            tokens, counts = super().encode(texts, batch_size)
            return (tokens if len(texts) == 2 and "" in texts else np.tile(tokens, 2)), counts

    monkeypatch.setattr(encoding, "TextEncoder", Wider)
    with pytest.raises(UserError, match="16 channels, part 1 of 32"):
        encoding.encode(Settings(t5, tmp_path / "text.safetensors", prompts=(prompts,)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('["", " "]', "all 2 texts are empty"),
        ('{"a": 3}', "3 is no text"),
        ("[", "not JSON"),
    ],
)
def test_prompt_files_without_texts_are_named(t5, tmp_path, content, message, capsys):
    (tmp_path / "prompts.json").write_text(content)
    assert run(t5, tmp_path / "text.safetensors", tmp_path / "prompts.json") == 1
    assert message in capsys.readouterr().err


def test_wrong_encoders_are_named(transformers, t5, tmp_path, prompts, capsys):
    def error(encoder, *options) -> str:
        assert run(encoder, tmp_path / "text.safetensors", prompts, *options) == 1
        return capsys.readouterr().err

    assert "expected a folder with config.json" in error(tmp_path / "none")
    assert "Nothing to encode" in _message(lambda: gather_texts([], []))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/config.json").write_text('{"model_type": "t5"}')
    (tmp_path / "bin/pytorch_model.bin").write_bytes(b"")
    assert "no .safetensors: other formats can run code" in error(tmp_path / "bin")
    make_encoder(transformers, "t5").save_pretrained(tmp_path / "bare")
    assert "No tokenizer" in error(tmp_path / "bare")
    assert (
        run(tmp_path / "bare", tmp_path / "text.safetensors", prompts, "--tokenizer", str(t5 / "tokenizer"))
        == 0
    )
    assert "expected 1 or more" in error(t5, "--max-tokens", "0")
    assert "absent.txt" in error(t5, "--prompts", str(tmp_path / "absent.txt"))

    from safetensors.torch import load_file, save_file

    file = tmp_path / "bare/model.safetensors"
    tensors = load_file(file)
    tensors.pop("encoder.final_layer_norm.weight")
    save_file(tensors, file, {"format": "pt"})
    options = ("--tokenizer", str(t5 / "tokenizer"), "--overwrite")
    assert "lacks weights of a T5EncoderModel: encoder.final_layer_norm.weight" in error(
        tmp_path / "bare", *options
    )


def _message(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


def test_other_files_are_no_precomputed_text(tmp_path):
    from camctrl_jax.files.safetensors import write_safetensors

    write_safetensors(tmp_path / "other.safetensors", {"a": np.zeros(3)})
    with pytest.raises(ValueError, match=r"other\.safetensors: not a file of precomputed text .*encode_text"):
        PrecomputedText.load(tmp_path / "other.safetensors")
    (tmp_path / "text.txt").write_text("no tensors here")
    with pytest.raises(ValueError, match=r"text\.txt"):
        PrecomputedText.load(tmp_path / "text.txt")


def test_exported_file_finds_its_prompt(t5, tmp_path, prompts):
    pytest.importorskip("diffusers", reason="absent; pip install 'camctrl_jax[torch]'")
    from camctrl_jax.interop.camera_pipeline import read_text

    out = tmp_path / "text.safetensors"
    assert run(t5, out, prompts) == 0
    embeds, mask = read_text(out, TEXTS[2])
    vectors, used = PrecomputedText.load(out).embed([TEXTS[2]])
    np.testing.assert_array_equal(embeds.float().numpy(), vectors[used][None])
    assert mask.all()
    with pytest.raises(ValueError, match="holds no embedding of 'a cat'"):
        read_text(out, "a cat")
