"""Word embeddings and precomputed text."""

from __future__ import annotations

import numpy as np
import pytest
from stored_text import write_text_file

from camctrl_jax.data.text import (
    MissingText,
    PrecomputedText,
    TextEmbedder,
    WordEmbedder,
    embedder_from_settings,
)
from camctrl_jax.errors import InvalidValue, MissingFile

PINNED_RED = [-0.748112, -1.085207, -0.938987, -0.864818, 0.864961, 1.55669, 2.085152, 0.512237]


def test_vectors_are_pinned_because_shipped_weights_depend_on_them():
    vectors, mask = WordEmbedder(dim=8, max_tokens=4).embed(["red ball"])
    assert mask.tolist() == [[True, True, False, False]]
    np.testing.assert_allclose(vectors[0, 0], PINNED_RED, atol=1e-5)
    assert not vectors[0, 2:].any()


def test_vectors_have_unit_variance():
    words = [f"word{i} and more words in a row" for i in range(300)]
    vectors, mask = WordEmbedder(dim=64, max_tokens=8).embed(words)
    np.testing.assert_allclose(np.mean(vectors[mask] ** 2), 1.0, atol=0.05)


def test_word_order_matters():
    embedder = WordEmbedder()
    vectors, _ = embedder.embed(["red box behind blue ball", "blue box behind red ball"])
    assert np.linalg.norm(vectors[0].sum(axis=0) - vectors[1].sum(axis=0)) < 1e-3  # the same words ...
    assert np.linalg.norm(vectors[0] - vectors[1]) > 5.0  # ... in another order


def test_case_and_punctuation_do_not_matter():
    vectors, _ = WordEmbedder().embed(["A red box, that's all.", "a RED box that\u2019s all"])
    np.testing.assert_array_equal(vectors[0], vectors[1])


def test_words_of_any_script_are_kept():
    assert WordEmbedder().words("Été à la плаж 海 2") == ["été", "à", "la", "плаж", "海", "2"]


def test_long_texts_are_cut_and_counted():
    embedder = WordEmbedder(max_tokens=3)
    texts = ["one two three", "one two three four", ""]
    vectors, mask = embedder.embed(texts)
    assert embedder.truncated(texts) == 1
    assert mask.sum(axis=1).tolist() == [3, 3, 1]
    np.testing.assert_array_equal(vectors[0], vectors[1])


def test_the_empty_prompt_has_one_token_of_its_own():
    vectors, mask = WordEmbedder().embed(["", " ... ", "ball"])
    assert mask[0].sum() == 1
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert np.abs(vectors[0, 0] - vectors[2, 0]).max() > 0.1


def test_embedding_does_not_depend_on_the_company():
    embedder = WordEmbedder()
    alone, _ = embedder.embed(["a small dog"])
    together, _ = embedder.embed(["zebra", "a small dog", "dog"])
    np.testing.assert_array_equal(alone[0], together[1])


def test_settings_rebuild_the_embedder():
    embedder = WordEmbedder(dim=32, max_tokens=7)
    assert embedder_from_settings(embedder.settings()) == embedder
    assert isinstance(embedder, TextEmbedder)
    with pytest.raises(ValueError, match="bert"):
        embedder_from_settings({"kind": "bert"})


def test_precomputed_text_survives_its_file(tmp_path):
    rng = np.random.default_rng(0)
    table = {
        text: rng.normal(size=(count, 5)).astype(np.float16)
        for text, count in (("", 1), ("dog", 2), ("cat", 4))
    }
    text = PrecomputedText(table, max_tokens=3)
    loaded = PrecomputedText.load(write_text_file(tmp_path / "text.safetensors", table, max_tokens=3))
    for ours, theirs in zip(text.embed(["dog", "", "cat"]), loaded.embed(["dog", "", "cat"])):
        np.testing.assert_array_equal(ours, theirs)
    vectors, mask = loaded.embed(["dog", "cat"])
    assert mask.tolist() == [[True, True, False], [True, True, True]]
    np.testing.assert_array_equal(vectors[0, :2], table["dog"].astype(np.float32))
    assert loaded.truncated(["dog", "cat"]) == 1
    assert isinstance(loaded, TextEmbedder)
    assert embedder_from_settings(loaded.settings()).dim == 5


def test_precomputed_text_names_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="empty prompt"):
        PrecomputedText({"dog": np.ones((1, 4))}, max_tokens=2)
    text = PrecomputedText({"": np.ones((1, 4))}, max_tokens=2, source="mine.safetensors")
    with pytest.raises(MissingText) as caught:
        text.embed(["a cat"])
    assert isinstance(caught.value, KeyError)
    assert str(caught.value).startswith(
        "mine.safetensors holds no embedding of 'a cat' (1 texts are there). "
    )
    for content in (b"", b"PK not a zip", b"not a safetensors file"):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(InvalidValue, match="bad"):
            PrecomputedText.load(tmp_path / "bad")
    with pytest.raises(MissingFile, match="none: no such file of precomputed text"):
        PrecomputedText.load(tmp_path / "none")
