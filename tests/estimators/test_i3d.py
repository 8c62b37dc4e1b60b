"""Video features by a TorchScript file that is called like StyleGAN-V's I3D."""

import warnings

import numpy as np
import pytest
from scipy.linalg import sqrtm

from camctrl_jax import extras
from camctrl_jax.errors import InvalidValue, MissingFile
from camctrl_jax.estimators.choosing import choose
from camctrl_jax.estimators.i3d import I3d
from camctrl_jax.estimators.protocols import EstimatorFailed, VideoEmbedder
from camctrl_jax.metrics.frechet import FeatureStatistics, frechet_distance

torch = pytest.importorskip("torch", reason="the extra torch is not installed")


class Echo(torch.nn.Module):
    """400 numbers that tell what came in: sizes, keywords, range, and the pixel (1, 2) of every frame."""

    def forward(
        self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        flags = [float(x.size(0)), float(x.size(1)), float(x.size(2)), float(x.size(3)), float(x.size(4))]
        flags += [float(rescale), float(resize), float(return_features), float(x.min()), float(x.max())]
        told = torch.cat([torch.tensor(flags), x[0, :, :, 1, 2].reshape(-1)])
        return torch.cat([told, torch.zeros(400 - told.size(0))])[None]


class Small(torch.nn.Module):
    """A small 3-D network behind the same call; NaN of a clip that is white all over."""

    def __init__(self, channels: int = 400) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(8, 3, 3, 9, 9, generator=generator) / 30.0)
        self.head = torch.nn.Parameter(torch.randn(channels, 8, generator=generator))

    def forward(
        self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> torch.Tensor:
        if resize:
            size = [x.size(2), 56, 56]
            x = torch.nn.functional.interpolate(x, size=size, mode="trilinear", align_corners=False)
        if rescale:
            x = 2.0 * x / 255.0 - 1.0
        if float(x.min()) > 0.99:
            x = x / 0.0 - x / 0.0
        hidden = torch.nn.functional.conv3d(x, self.weight, stride=[2, 8, 8]).relu().mean(dim=(2, 3, 4))
        return hidden @ self.head.t()


class Other(torch.nn.Module):
    """A network that is called otherwise."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture
def saved(tmp_path):
    """A function from a network to the path of its TorchScript."""

    def save(network):
        path = tmp_path / f"{type(network).__name__}.pt"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.script(network).save(str(path))
        return path

    return save


def clip(frames=16, size=(20, 32), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, *size, 3), np.uint8)


def test_frames_reach_the_file_as_documented(saved):
    frames, path = clip(23), saved(Echo())
    found = I3d(path).embed_video(frames, 12.0)
    assert (found.dtype, found.shape) == (np.float64, (400,))
    assert found[:8].tolist() == [1, 3, 16, 20, 32, 1, 1, 1]  # [B, 3, T, H, W], all three keywords set
    assert (found[8], found[9]) == (frames[:16].min(), frames[:16].max())  # 0 .. 255
    np.testing.assert_array_equal(found[10 : 10 + 48].reshape(3, 16), frames[:16, 1, 2].T)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"frames": 9}, range(9)),
        ({"frames": 9, "stride": 2}, range(0, 18, 2)),
        ({"frames": 9, "place": "middle"}, range(7, 16)),
        ({"frames": 9, "stride": 2, "place": "middle"}, range(3, 20, 2)),
    ],
)
def test_which_frames_of_a_longer_clip_are_seen(saved, settings, expected):
    frames = clip(23)
    found = I3d(saved(Echo()), **settings).embed_video(frames, 12.0)
    np.testing.assert_array_equal(found[10 : 10 + 27].reshape(3, 9), frames[list(expected), 1, 2].T)


def test_a_crop_keeps_the_aspect_ratio_and_is_brought_to_one(saved):
    frames = np.zeros((9, 20, 40, 3), np.uint8)
    frames[:, :, 20:] = 255  # dark to the left of the middle, light to the right
    found = I3d(saved(Echo()), frames=9, fit="crop").embed_video(frames, 12.0)
    assert found[:8].tolist() == [1, 3, 9, 224, 224, 0, 0, 1]
    assert found[8:10] == pytest.approx([-1.0, 1.0], abs=1e-5)
    path = saved(Small())
    tall, wide = frames.transpose(0, 2, 1, 3), frames
    assert I3d(path, 9, fit="crop").embed_video(tall, 12.0).shape == (400,)
    assert not np.allclose(
        I3d(path, 9).embed_video(wide, 12.0), I3d(path, 9, fit="crop").embed_video(wide, 12.0)
    )


def test_a_clip_that_is_too_short_is_refused_and_not_padded(saved):
    embedder = I3d(saved(Echo()), frames=10, stride=3)
    assert embedder.least_frames == 28
    embedder.embed_video(clip(28), 12.0)
    with pytest.raises(EstimatorFailed, match="27 frames; 10 frames at stride 3 need 28") as failure:
        embedder.embed_video(clip(27), 12.0)
    assert failure.value.reason == "too_short"


def test_a_vector_repeats_and_does_not_depend_on_what_came_before(saved):
    path = saved(Small())
    embedder = choose("video_features", {"name": "i3d", "weights": str(path)})
    assert isinstance(embedder, VideoEmbedder)
    embedder.check()
    first = [embedder.embed_video(clip(seed=seed), 12.0) for seed in range(3)]
    again = [I3d(path).embed_video(clip(seed=seed), 24.0) for seed in (2, 1, 0)]
    np.testing.assert_array_equal(first, again[::-1])
    network, batch = Small(), np.stack([clip(seed=seed) for seed in range(3)]).transpose(0, 4, 1, 2, 3)
    with torch.no_grad():
        together = network(torch.tensor(batch).float(), True, True, True).numpy()
    np.testing.assert_allclose(first, together, rtol=1e-4, atol=1e-5)


def test_the_distance_of_its_vectors_is_that_of_the_textbook(saved):
    """Of a small network, where there are more clips than channels that vary."""
    embedder = I3d(saved(Small()), frames=9)
    sets = []
    for seed, light in ((0, 256), (1000, 200)):
        generator = np.random.default_rng(seed)
        shades = generator.integers(0, light, (16, 1, 4, 4, 3), np.uint8).repeat(9, axis=1)
        sets.append(np.stack([embedder.embed_video(shade, 12.0) for shade in shades])[:, :6])
    a, b = sets
    root = sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)).real
    spread = np.trace(np.cov(a, rowvar=False) + np.cov(b, rowvar=False) - 2 * root)
    expected = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + spread
    found = frechet_distance(FeatureStatistics.of(a), FeatureStatistics.of(b))
    assert found == pytest.approx(expected, rel=1e-6)
    assert found > 0.0


def test_the_fingerprint_holds_the_file_and_what_is_done_to_a_clip(saved, tmp_path):
    path = saved(Echo())
    made = [I3d(path), I3d(path, frames=17), I3d(path, stride=2), I3d(path, fit="crop"), I3d(saved(Small()))]
    made += [I3d(path, place="middle")]
    assert len({one.fingerprint().digest for one in made}) == len(made)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / path.name).write_bytes(path.read_bytes())
    assert I3d(moved / path.name).fingerprint() == I3d(path).fingerprint()
    own = I3d(path).fingerprint().weights[0][1]
    I3d(path, sha256=own.upper()).check()
    with pytest.raises(InvalidValue, match=r"SHA-256 is .*; it was not loaded"):
        I3d(path, sha256="0" * 64).check()


def test_what_is_no_such_file_is_said_before_any_clip(saved, tmp_path):
    with pytest.raises(MissingFile, match=r"no file .*i3d_torchscript\.pt.*as weights"):
        I3d(tmp_path / "i3d_torchscript.pt").check()
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "plain.pt")
    (tmp_path / "text.pt").write_text("nothing of the kind")
    for name in ("plain.pt", "text.pt"):
        with pytest.raises(InvalidValue, match=f"{name}: is not a TorchScript file.*plain weights"):
            I3d(tmp_path / name).check()
    with pytest.raises(InvalidValue, match=r"cannot be called as StyleGAN-V's I3D is.*rescale"):
        I3d(saved(Other())).check()
    with pytest.raises(InvalidValue, match=r"gives \[1, 1024\] for one clip, expected \[1, 400\]"):
        I3d(saved(Small(1024))).check()


def test_a_logit_that_is_not_finite_costs_that_clip(saved):
    embedder = I3d(saved(Small()))
    with pytest.raises(EstimatorFailed, match="NaN or infinity") as failure:
        embedder.embed_video(np.full((16, 20, 32, 3), 255, np.uint8), 12.0)
    assert failure.value.reason == "bad_result"
    assert np.isfinite(embedder.embed_video(clip(), 12.0)).all()


def test_without_torch_the_extra_is_named(saved, monkeypatch):
    path = saved(Echo())

    def missing(module):
        raise ImportError(name=module)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(extras.MissingExtra, match=r"pip install 'camctrl_jax\[torch\]'"):
        I3d(path).check()
