"""A small server with the answers of explore's API, without a model: what the page is tried against.

Paths are read by the package's own camera room, clips are drawn from their cameras, jobs take a few steps of
a few milliseconds, or wait while ``Stub.hold`` is set.
"""

from __future__ import annotations

import email
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np

from camctrl_jax.camera.interpolation import resample
from camctrl_jax.camera.presets import PRESETS, resolve_path
from camctrl_jax.video.encoding import encode_mp4
from camctrl_jax.video.pictures import encode_png

PAGE = Path(__file__).parents[2] / "camctrl_jax" / "explore" / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {"html": "text/html; charset=utf-8", "js": "text/javascript", "css": "text/css"}
TYPES |= {"svg": "image/svg+xml", "txt": "text/plain"}
FRAMES, HEIGHT, WIDTH, FPS, STEPS = 9, 96, 160, 8.0, 6
LENS = [0.9, 1.5, 0.5, 0.5]


class Wrong(Exception):
    """An answer that refuses."""

    def __init__(self, status: int, message: str, param: str | None = None):
        super().__init__(message)
        self.status, self.param = status, param


class Stub:
    """What the server knows; ``url`` is where it listens, ``requests`` what it was asked."""

    def __init__(self):
        self.explorations: dict[str, dict] = {}
        self.jobs: dict[str, dict] = {}
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[dict] = []
        self.pictures: list[bytes] = []
        self.hold = threading.Event()
        self.model: dict = {}  # what of the model is another one
        self.mine = True  # whether who asks made what there is
        self.failing = False  # whether jobs fail
        self.told: dict[int, str] = {}  # what jobs remark upon, by the step they do it at; -1 for the end
        self.hold_paths = threading.Event()
        self.refused_events = 0  # how often the events of a job are still refused
        handler = type("Bound", (_Handler,), {"stub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.hold.clear()
        self.hold_paths.clear()
        self.server.shutdown()
        self.server.server_close()

    def clip(self, clip_id: str) -> dict:
        exploration = self.explorations.get(clip_id.split(".")[0], {"clips": []})
        for clip in exploration["clips"]:
            if clip["id"] == clip_id:
                return clip
        raise Wrong(404, f"there is no clip {clip_id}")

    def path(self, request: dict) -> dict:
        """PathAnswer of a PathRequest."""
        start, frames = np.eye(4), FRAMES
        exploration = self.explorations.get(request.get("exploration"))
        if exploration and exploration["current"]:
            clip = self.clip(request.get("parent") or exploration["current"])
            start, frames = np.array(clip["cameras"]["world_from_camera"][-1]), FRAMES
        said = request.get("path", "")
        if "cameras" in request:
            poses = np.array(request["cameras"]["world_from_camera"])
            poses = start @ np.linalg.inv(poses[0]) @ poses
        elif "key_frames" in request:
            poses = np.array([key["world_from_camera"] for key in request["key_frames"]])
            poses, said = _through(poses, frames), f"{len(poses)} key frames"
        elif "pose_file" in request:
            said = request["pose_file"]["name"]
            poses = start @ _poses("dolly in 2 m", frames)
        else:
            said = said or "the world's own path"
            poses = start @ _poses(said if "own" not in said else "truck left 1 m", frames)
        poses[:, :3, 3] = start[:3, 3] + (poses[:, :3, 3] - start[:3, 3]) * request.get("scale", 1.0)
        length = float(np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=-1).sum())
        turns = poses[:-1, :3, :3].transpose(0, 2, 1) @ poses[1:, :3, :3]
        cosine = np.clip((np.trace(turns, axis1=1, axis2=2) - 1) / 2, -1, 1)
        warnings = []
        if length > 4:
            message = f"{length:.1f} m in one clip; the weights were trained on up to 4 m"
            warnings.append({"type": "outside_training", "message": message})
        return {
            "cameras": _cameras(poses),
            "said": said,
            "length_m": length,
            "rotation_deg": float(np.degrees(np.arccos(cosine)).sum()),
            "seconds": (frames - 1) / FPS,
            "remarks": ["lengths are metres"] if "pose_file" in request else [],
            "warnings": warnings,
        }

    def begin(self, request: dict) -> dict:
        name = f"e{len(self.explorations):07d}"
        answer = self.path(
            {k: v for k, v in request.items() if k in ("path", "cameras", "key_frames", "scale")}
        )
        exploration = {
            "id": name, "title": request.get("title", ""), "created": time.time(),
            "worlds_seed": request.get("worlds_seed"), "state": "starting", "problem": None, "fps": FPS,
            "height": HEIGHT, "width": WIDTH, "current": None, "clips": [],
        }  # fmt: skip
        self.explorations[name] = exploration
        job = self.queue("start", exploration, None, request, answer)
        return {"exploration": self.read(name), "job": job}

    def read(self, name: str) -> dict:
        if name not in self.explorations:
            raise Wrong(404, f"there is no exploration {name}")
        jobs = [j for j in self.jobs.values() if j["exploration"] == name]
        return {
            **self.explorations[name],
            "mine": self.mine,
            "jobs": [{**j, "mine": self.mine} for j in jobs if j["state"] in ("queued", "running", "failed")],
        }

    def queue(self, kind: str, exploration: dict, parent: str | None, request: dict, answer: dict) -> dict:
        job = {
            "id": f"j{len(self.jobs):04d}", "kind": kind, "state": "queued", "version": 0, "mine": True,
            "exploration": exploration["id"], "parent": parent, "clip": None,
            "model": None if kind == "scene" else request.get("model", "checkpoint"),
            "refines": request.get("refines"), "said": answer["said"],
            "prompt": request.get("prompt", ""), "position": 0, "stage": "waiting", "done": 0, "steps": STEPS,
            "seconds_left": None, "elapsed": 0.0, "created": time.time(), "error": None,
            "remarks": ["the prompt is the stub's"],
        }  # fmt: skip
        self.jobs[job["id"]] = job
        threading.Thread(target=self._run, args=(job, exploration, request, answer), daemon=True).start()
        return dict(job)

    def refine(self, clip: dict) -> dict:
        """The job that makes a clip anew, as a sibling or in another exploration."""
        asked = {key: clip[key] for key in ("prompt", "seed")} | {"refines": clip["id"]}
        old = self.explorations[clip["id"].split(".")[0]]
        answer, exploration = {"said": clip["said"], "cameras": clip["cameras"]}, old
        if clip["parent"] is None:
            name = f"e{len(self.explorations):07d}"
            title = f"{old['title']}, refined"
            exploration = {
                **old,
                "id": name,
                "title": title,
                "state": "starting",
                "current": None,
                "clips": [],
            }
            self.explorations[name] = exploration
        kind = "extend" if clip["parent"] else "start"
        return self.queue(kind, exploration, clip["parent"], asked, answer)

    def _run(self, job: dict, exploration: dict, request: dict, answer: dict):
        for step in range(STEPS + 1):
            time.sleep(0.03)
            while self.hold.is_set() and job["state"] != "cancelled" and step == 2:
                time.sleep(0.02)
            if job["state"] == "cancelled":
                return
            if step in self.told:
                job["remarks"] = [*job["remarks"], self.told[step]]
            self._change(
                job, state="running", stage="sampling", done=step, seconds_left=0.03 * (STEPS - step)
            )
        if -1 in self.told:
            job["remarks"] = [*job["remarks"], self.told[-1]]
        if self.failing:
            exploration.update(state="ready" if exploration["clips"] else "failed")
            error = {"type": "internal", "message": "the disk is full", "param": None}
            return self._change(job, state="failed", position=None, error=error)
        if job["kind"] == "scene":
            clip = self.clip(job["parent"])
            clip["scene"] = f"/v1/clips/{clip['id']}/scene"
            return self._change(job, state="done", position=None, clip=clip["id"])
        name = f"{len(exploration['clips']) + 1:04d}"
        clip_id = f"{exploration['id']}.{name}"
        cameras = answer["cameras"]
        first = 0
        if job["parent"]:
            if job["refines"] is None:  # the first pose is the last one before
                cameras = {k: v[1:] if isinstance(v, list) else v for k, v in cameras.items()}
            before = self.clip(job["parent"])
            first = before["first"] + before["frames"]
        url = f"/v1/clips/{clip_id}"
        exploration["clips"].append({
            "id": clip_id, "name": name, "parent": job["parent"], "first": first,
            "frames": len(cameras["world_from_camera"]), "prompt": request.get("prompt", ""),
            "seed": request.get("seed", 7), "said": answer["said"], "steps": STEPS, "cameras": cameras,
            "model": request.get("model", "checkpoint"),
            "retrieved": [], "video": f"{url}/content", "thumbnail": f"{url}/thumbnail",
            "truth": f"{url}/truth" if exploration["worlds_seed"] is not None else None, "scene": None,
        })  # fmt: skip
        exploration.update(state="ready", current=clip_id)
        self._change(job, state="done", position=None, clip=clip_id)

    def _change(self, job: dict, **changes):
        job.update(changes)
        job["version"] += 1

    def video(self, clip: dict, line: bool) -> bytes:
        count = clip["frames"] + (clip["first"] if line else 0)
        return encode_mp4(np.stack([_picture(k) for k in range(count)]), FPS)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: Stub

    def log_message(self, *_):
        pass

    def _answer(self, status: int, kind: str, body: bytes, **headers: str):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _json(self, value: dict, status: int = 200):
        self._answer(status, "application/json", json.dumps(value).encode())

    def _handle(self):
        stub, parts = self.stub, urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        stub.requests.append((self.command, self.path))
        try:
            self._route(stub, f"{self.command} {parts.path}", query, body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Wrong as problem:
            error = {"type": "invalid_value", "message": str(problem), "param": problem.param}
            self._json({"error": error}, problem.status)
        except ValueError as problem:
            error = {"type": "invalid_value", "message": str(problem), "param": "path"}
            self._json({"error": error}, 400)

    do_GET = do_POST = do_PUT = do_DELETE = _handle

    def _route(self, stub: Stub, what: str, query: dict, body: bytes):
        request = {}
        if "json" in (self.headers.get("Content-Type") or ""):
            request = json.loads(body)
        elif body:
            request = self._multipart(body)
        if body:
            stub.bodies.append(request)

        def match(pattern: str) -> list[str] | None:
            found = re.fullmatch(pattern, what)
            return list(found.groups()) if found else None

        if found := match(r"GET /([a-zA-Z.]*)"):
            name = found[0] or "index.html"
            if not (PAGE / name).is_file():
                raise Wrong(404, f"there is no {name}")
            self._answer(200, TYPES[name.rsplit(".", 1)[1]], (PAGE / name).read_bytes())
        elif what == "GET /v1/model":
            self._json({**_MODEL, **stub.model})
        elif what == "GET /v1/presets":
            presets = [{"name": name, "summary": p.summary} for name, p in PRESETS.items()]
            self._json({"presets": presets, "help": "dolly in 1.5 m, then pan left 40 deg"})
        elif what == "POST /v1/paths":
            answer = stub.path(request)
            while stub.hold_paths.is_set():
                time.sleep(0.01)
            self._json(answer)
        elif what == "GET /v1/explorations":
            summaries = [
                {**{k: e[k] for k in ("id", "title", "created", "worlds_seed", "state")}, "mine": stub.mine,
                 "clips": len(e["clips"]), "thumbnail": None}
                for e in stub.explorations.values()
            ]  # fmt: skip
            self._json({"explorations": summaries[::-1]})
        elif what == "POST /v1/explorations":
            self._json(stub.begin(request), 201)
        elif found := match(r"GET /v1/explorations/(\w+)"):
            self._json(stub.read(found[0]))
        elif found := match(r"DELETE /v1/explorations/(\w+)"):
            del stub.explorations[found[0]]
            self.send_response(204)
            self.end_headers()
        elif found := match(r"POST /v1/explorations/(\w+)/clips"):
            exploration = stub.explorations[found[0]]
            parent = request.get("parent") or exploration["current"]
            if request.get("steps", 1) > 200:
                raise Wrong(400, "steps: Expected `int` <= 200.", "steps")
            answer = stub.path({**request, "exploration": found[0], "parent": parent})
            self._json(stub.queue("extend", exploration, parent, request, answer), 202)
        elif found := match(r"PUT /v1/explorations/(\w+)/current"):
            stub.explorations[found[0]]["current"] = stub.clip(request["clip"])["id"]
            self._json(stub.read(found[0]))
        elif found := match(r"GET /v1/explorations/(\w+)/project"):
            self._answer(200, "application/zip", b"PK\5\6" + bytes(18), Content_Disposition="attachment")
        elif found := match(r"DELETE /v1/clips/([\w.]+)"):
            clip = stub.clip(found[0])
            exploration = stub.explorations[clip["id"].split(".")[0]]
            exploration["clips"].remove(clip)
            if exploration["current"] == clip["id"]:
                exploration["current"] = clip["parent"]
            self._json(stub.read(exploration["id"]))
        elif found := match(r"GET /v1/clips/([\w.]+)/(content|truth)"):
            video = stub.video(stub.clip(found[0]), query.get("line") == "true")
            download = (
                {"Content_Disposition": 'attachment; filename="clip.mp4"'} if "download" in query else {}
            )
            self._ranged(video, download)
        elif found := match(r"GET /v1/clips/([\w.]+)/thumbnail"):
            stub.clip(found[0])
            self._answer(200, "image/png", encode_png(_picture(int(query.get("frame", 0)))))
        elif found := match(r"GET /v1/clips/([\w.]+)/cameras"):
            cameras = json.dumps(stub.clip(found[0])["cameras"]).encode()
            self._answer(
                200, "application/json", cameras, Content_Disposition='attachment; filename="cameras.json"'
            )
        elif found := match(r"POST /v1/clips/([\w.]+)/scene"):
            clip = stub.clip(found[0])
            exploration = stub.explorations[clip["id"].split(".")[0]]
            self._json(stub.queue("scene", exploration, clip["id"], {}, {"said": clip["said"]}), 202)
        elif found := match(r"POST /v1/clips/([\w.]+)/refine"):
            self._json(stub.refine(stub.clip(found[0])), 202)
        elif found := match(r"GET /v1/clips/([\w.]+)/scene"):
            self._answer(200, "application/octet-stream", _ply())
        elif what == "GET /v1/jobs":
            self._json({"jobs": list(stub.jobs.values())[::-1]})
        elif found := match(r"GET /v1/jobs/(\w+)/events"):
            if stub.refused_events:
                stub.refused_events -= 1
                raise Wrong(503, "the server is starting")
            self._events(stub.jobs[found[0]])
        elif found := match(r"POST /v1/jobs/(\w+)/cancel"):
            job = stub.jobs[found[0]]
            if job["state"] in ("queued", "running"):
                stub._change(job, state="cancelled", position=None)
            self._json(job)
        else:
            raise Wrong(404, f"there is no {what}")

    def _multipart(self, body: bytes) -> dict:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        fields = {
            part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
            for part in email.message_from_bytes(head + body).get_payload()
        }
        self.stub.pictures.append(fields["image"])
        return json.loads(fields["request"])

    def _ranged(self, body: bytes, headers: dict):
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not asked:
            return self._answer(200, "video/mp4", body, Accept_Ranges="bytes", **headers)
        first, last = int(asked[1]), int(asked[2] or len(body) - 1)
        span = f"bytes {first}-{min(last, len(body) - 1)}/{len(body)}"
        self._answer(206, "video/mp4", body[first : last + 1], Content_Range=span, Accept_Ranges="bytes")

    def _events(self, job: dict):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        sent = -1
        while True:
            now = {**job, "mine": self.stub.mine}
            if now["version"] != sent:
                sent = now["version"]
                self.wfile.write(f"id: {sent}\nevent: job\ndata: {json.dumps(now)}\n\n".encode())
                self.wfile.flush()
            if now["state"] in ("done", "failed", "cancelled"):
                return
            time.sleep(0.01)


_MODEL = {
    "name": "stub", "ready": True, "camera": True, "image": True, "frames": FRAMES, "added": FRAMES - 1,
    "height": HEIGHT, "width": WIDTH, "fps": FPS, "steps": STEPS, "retrieved": 0, "device": "cpu",
    "guidance": {"text": 1.0, "camera": 2.0, "history": 1.0}, "student": None, "quick": None,
    "trained_on": {"length_m": [0, 4], "rotation_deg": [0, 90], "said": "up to 4 m and 90 degrees"},
    "limits": {"image_bytes": 8_000_000},
}  # fmt: skip


def _cameras(poses: np.ndarray) -> dict:
    return {"world_from_camera": poses.tolist(), "intrinsics": [LENS] * len(poses), "metric": True}


def _poses(text: str, frames: int) -> np.ndarray:
    return np.asarray(resolve_path(text, frames).relative_to(0).world_from_camera, np.float64)


def _through(poses: np.ndarray, frames: int) -> np.ndarray:
    from camctrl_jax.camera import Cameras

    cameras = Cameras(poses, np.tile(LENS, (len(poses), 1)))
    return np.array(resample(cameras, frames).world_from_camera, np.float64)


def _picture(k: int) -> np.ndarray:
    """A room of two colours, u8 [H, W, 3], that moves with the frame."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    sky, floor = np.array([150, 180, 205]), np.array([120, 104, 84])
    picture = np.where((v < HEIGHT * 0.6)[..., None], sky, floor)
    tile = ((u + 4 * k) // 20 + v // 12) % 2
    picture = picture - 22 * tile[..., None] * (v >= HEIGHT * 0.6)[..., None]
    ball = (u - 40 - 6 * k) ** 2 + (v - 58) ** 2 < 18**2
    return np.where(ball[..., None], np.array([176, 62, 48]), picture).astype(np.uint8)


def _ply() -> bytes:
    rng = np.random.default_rng(0)
    points = np.zeros(3000, [("p", "<f4", 3), ("c", "u1", 3)])
    points["p"] = rng.uniform([-2, 1.1, 0], [2, 1.2, 5], (3000, 3))
    points["c"] = rng.integers(80, 200, (3000, 3))
    names = "".join(f"property float {n}\n" for n in "xyz")
    names += "".join(f"property uchar {n}\n" for n in ("red", "green", "blue"))
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{names}end_header\n"
    return head.encode() + points.tobytes()
