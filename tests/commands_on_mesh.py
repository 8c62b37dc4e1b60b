"""Run by test_mesh_option.py in a process with eight CPU devices: commands with ``--mesh`` and without.

Prints one JSON object: what the two made, compared.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "explore"))
from exploring import ANNA, done, served
from nano_weights import STUDENT, save_nano

from camctrl_jax.checkpoints.pipelines import load_pipeline, open_model
from camctrl_jax.explore.model import Model
from camctrl_jax.generate.__main__ import main
from camctrl_jax.sampling.exploration import Exploration
from camctrl_jax.video.decoding import read_frames

MESH = "data=2,context=2"
TOUR = """seed: 1
steps: 2
clips:
  - {camera: dolly in 1 m, prompt: a red ball}
  - camera: pan right 30 deg
"""


def generate(folder: Path, name: str, *arguments: str) -> Path:
    out = folder / name
    assert main(["--checkpoint", str(folder / "nano"), "--out", str(out), *arguments]) == 0
    return out


def strip(out: Path) -> np.ndarray:
    """The picture of some frames, which is stored without loss."""
    frame = next(read_frames(out / "frames.png"))
    return frame.rgb(None).astype(int)


def explored(folder: Path, name: str, mesh: str | None) -> tuple[list[np.ndarray], str]:
    """Frames of a clip and of one that goes on from it, made by a server; and what they were made on."""
    model = Model(str(folder / "nano"), mesh=mesh)
    with served(folder / name, model) as client:
        body = {"prompt": "a red ball", "path": "dolly in 1 m", "steps": 2, "seed": 3}
        begun = client.post("/v1/explorations", json=body, headers=ANNA).json()
        job = done(client, begun["job"])
        clips = f"/v1/explorations/{job['exploration']}/clips"
        further = client.post(clips, json={"path": "pan right 30 deg"}, headers=ANNA)
        done(client, further.json())
    return walked(folder, folder / name / "explorations" / job["exploration"] / "exploration")


def quick(folder: Path, name: str, mesh: str | None) -> tuple[list[np.ndarray], str]:
    """Frames of a clip of a student and of that clip refined, made by a server; and what it was made on."""
    teacher = Model(str(folder / "nano"), mesh=mesh)
    student = Model(str(folder / "student"), mesh=mesh, teacher=teacher)
    with served(folder / name, teacher, student=student) as client:
        body = {"prompt": "a red ball", "path": "dolly in 1 m", "seed": 3, "model": "student"}
        job = done(client, client.post("/v1/explorations", json=body, headers=ANNA).json()["job"])
        clips = f"/v1/explorations/{job['exploration']}/clips"
        job = client.post(clips, json={"path": "pan right 30 deg", "model": "student"}, headers=ANNA).json()
        clip = done(client, job)["clip"]
        done(client, client.post(f"/v1/clips/{clip}/refine", json={"steps": 2}, headers=ANNA).json())
    assert student.pipeline().autoencoder is teacher.pipeline().autoencoder
    exploration = folder / name / "explorations" / job["exploration"] / "exploration"
    with Exploration.load(teacher.pipeline(), exploration) as walk:
        assert [clip.student for clip in walk.clips] == [True, True, False]
        return [walk.frames(clip).astype(int) for clip in walk.clips[1:]], walk.clips[1].made_on


def walked(folder: Path, exploration: Path) -> tuple[list[np.ndarray], str]:
    with Exploration.load(load_pipeline(*open_model(folder / "nano")), exploration) as walk:
        assert len(walk.clips) == 2
        return [walk.frames(clip).astype(int) for clip in walk.clips], walk.clips[-1].made_on


def apart(some: list[np.ndarray], others: list[np.ndarray]) -> list[float]:
    """Mean distance of bytes, clip by clip."""
    return [float(np.abs(one - other).mean()) for one, other in zip(some, others, strict=True)]


def compare(folder: Path) -> None:
    save_nano(folder / "nano")
    save_nano(folder / "student", distilled=STUDENT)
    clip = ("--prompt", "a red ball", "--camera", "dolly in 1 m", "--steps", "2", "--camera-guidance", "3")
    alone, shared = generate(folder, "alone", *clip), generate(folder, "mesh", *clip, "--mesh", MESH)
    script = folder / "tour.yaml"
    script.write_text(TOUR)
    tours = [
        walked(folder, generate(folder, name, "--script", str(script), *mesh) / "exploration")
        for name, mesh in (("tour", ()), ("tour on a mesh", ("--mesh", MESH)))
    ]
    servers = [explored(folder, *named) for named in (("server", None), ("server on a mesh", MESH))]
    students = [quick(folder, *named) for named in (("quick", None), ("quick on a mesh", MESH))]
    found = {
        "generate": float(np.abs(strip(alone) - strip(shared)).mean()),
        "records": [
            json.loads((out / "generation.json").read_text())["sampling"]["mesh"] for out in (alone, shared)
        ],
        "tour": apart(*(frames for frames, _ in tours)),
        "explore": apart(*(frames for frames, _ in servers)),
        "quick": apart(*(frames for frames, _ in students)),
        "made_on": [made_on for _, made_on in (*tours, *servers, *students)],
    }
    print("RESULT", json.dumps(found))


if __name__ == "__main__":
    compare(Path(sys.argv[1]))
