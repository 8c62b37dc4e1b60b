"""Who may import whom: a room imports rooms further down only, so there is no circle of rooms."""

import ast
import graphlib
from pathlib import Path

import camctrl_jax

PACKAGE = Path(camctrl_jax.__file__).parent
# From the top down; rooms of one row do not import each other.
ROWS = (
    ("train", "generate", "explore", "encode_text", "evaluate", "build_dataset", "export", "pod_report"),
    ("training",),
    ("checkpoints",),
    ("sampling", "reconstruction"),
    ("data", "interop", "estimators"),
    ("metrics", "video", "viz", "worlds", "diffusion"),
    ("camera", "parallel"),
    ("models", "files"),
    ("extras", "clip_shape", "mesh_option", "pose_options"),
    ("errors",),
)
HEIGHT = {room: -row for row, rooms in enumerate(ROWS) for room in rooms}
# The command line of the camera room draws and shows what the room makes.
UPWARDS = {"camera/__main__.py"}
WITHOUT_NETWORKS = (
    *("camera", "worlds", "metrics", "estimators", "reconstruction", "files", "clip_shape", "errors"),
)
# Started on a user's interpreter, never imported.
RUNNERS = "estimators/runners/"


def modules():
    """(path below the package, room, syntax tree) of every module."""
    for path in sorted(PACKAGE.rglob("*.py")):
        below = path.relative_to(PACKAGE)
        if below.parts != ("__init__.py",):
            yield below.as_posix(), below.parts[0].removesuffix(".py"), ast.parse(path.read_text())


def imported(tree):
    """(module, line) of every absolute import, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module, node.lineno
            # ``from camctrl_jax import x`` and ``from camctrl_jax.training import objectives`` name modules,
            # too.
            yield from ((f"{node.module}.{name.name}", node.lineno) for name in node.names)


def rooms_of(tree):
    for module, line in imported(tree):
        parts = module.split(".")
        if parts[0] == "camctrl_jax" and len(parts) > 1 and parts[1] != "__version__":
            yield parts[1], line


def test_every_room_is_in_the_order_and_every_room_of_the_order_is_there():
    assert {room for _, room, _ in modules()} == set(HEIGHT)


def test_rooms_import_downwards_only():
    upward = [
        f"{path}:{line} imports {other}"
        for path, room, tree in modules()
        for other, line in rooms_of(tree)
        if other != room and HEIGHT[other] >= HEIGHT[room] and path not in UPWARDS
    ]
    assert upward == []


def test_no_circle_of_modules():
    # Without packages: their lists of names stand above the modules that they name.
    trees = {
        "camctrl_jax." + path.removesuffix(".py").replace("/", "."): tree
        for path, _, tree in modules()
        if not path.endswith("__init__.py")
    }
    below = {name: {other for other, _ in imported(tree)} & set(trees) for name, tree in trees.items()}
    graphlib.TopologicalSorter(below).prepare()  # raises CycleError, which names the circle


def test_rooms_without_networks_import_neither_flax_nor_torch():
    found = [
        f"{path}:{line}"
        for path, room, tree in modules()
        if room in WITHOUT_NETWORKS and not path.startswith(RUNNERS)
        for module, line in imported(tree)
        if module.split(".")[0] in ("flax", "torch")
    ]
    assert found == []


def test_flax_is_at_home_in_models_and_orbax_in_checkpoints():
    homes = {"flax": "models", "orbax": "checkpoints"}
    found = [
        f"{path}:{line} imports {module}"
        for path, room, tree in modules()
        for module, line in imported(tree)
        if homes.get(module.split(".")[0], room) != room
    ]
    assert found == []


def test_opencv_and_pycolmap_have_one_file_each_and_runners_import_nothing_of_the_package():
    homes = {"cv2": "estimators/opencv_flow.py", "pycolmap": "estimators/colmap_worker.py"}
    found = [
        f"{path}:{line} imports {module}"
        for path, _, tree in modules()
        for module, line in imported(tree)
        if homes.get(module.split(".")[0], path) != path
        or (path.startswith(RUNNERS) and module.split(".")[0] == "camctrl_jax")
    ]
    assert found == []


def test_files_stay_short_enough_to_be_read():
    long = {
        path: lines
        for path, *_ in modules()
        if (lines := len((PACKAGE / path).read_text().splitlines())) > 500
        and not path.startswith(("camera/formats/", "worlds/", "interop/"))
    }
    assert long == {}
