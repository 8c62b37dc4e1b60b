"""The notebooks: stripped, complete in what they name, and run to their end with small parameters."""

import ast
import configparser
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import test_docs

nbformat = pytest.importorskip("nbformat", reason="absent; pip install 'camctrl_jax[test]'")

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
COLAB = "https://colab.research.google.com/"
# Small enough for two cores, and large enough that everything is reached: two latents beside those that an
# extension goes on from, and enough parallax for points.
SMALL = {
    "inference": {"FRAMES": 9, "HEIGHT": 48, "WIDTH": 80, "STEPS": 2},
    "explore": {"FRAMES": 17, "STEPS": 2, "PLANES": 32},
    "cameras": {"FRAMES": 13},
}
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def source_of(notebook):
    """Python of all code cells; magics are left out."""
    lines = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code").splitlines()
    return "\n".join(line for line in lines if not line.startswith("%"))


def prose_of(notebook):
    """All Markdown, one cell after the other."""
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown") + "\n"


def parameters_of(notebook):
    """Names that the cell of parameters assigns."""
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    tree = ast.parse(cell.source)
    assert all(isinstance(node, ast.Assign) for node in tree.body), "it holds parameters and nothing else"
    return {name.id for name in ast.walk(tree) if isinstance(name, ast.Name)}


def test_there_are_three():
    assert {path.stem for path in NOTEBOOKS} == set(SMALL)


@each
def test_it_is_stripped_and_written_as_jupyter_writes_it(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}  # and no version, which differs
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags", "jupyter"}, cell.id
        if cell.cell_type == "code":
            assert cell.outputs == [], cell.id
            assert cell.execution_count is None, cell.id
    text = json.dumps(json.loads(path.read_text("utf-8")), indent=1, sort_keys=True, ensure_ascii=False)
    assert path.read_text("utf-8") == text + "\n"


@each
def test_cells_have_names_that_stay(path):
    names = [cell.id for cell in read(path).cells]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9-]*", name) for name in names), "not Jupyter's random ones"
    assert names[:4] == ["title", "parameters", "colab", "imports"]


@each
def test_the_badge_leads_to_colab(path):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    address = setup["metadata"].get("url", "").rstrip("/")
    github = address.removeprefix("https://github.com/")
    target = f"{COLAB}github/{github}/blob/main/notebooks/{path.name}" if address else COLAB
    assert f"[![Open in Colab]({COLAB}assets/colab-badge.svg)]({target})" in read(path).cells[0].source
    assert f'REPOSITORY = "{address}"' in read(path).cells[1].source


@each
def test_links_lead_to_files(path):
    for target in re.findall(r"\]\(([^)#:]+)\)", prose_of(read(path))):
        assert (path.parent / target).exists(), target


@each
def test_prose_says_where_open_weights_go(path):
    prose = prose_of(read(path))
    assert "Motif-Video-2B" in prose
    assert "Wan" in prose


@each
def test_what_is_imported_from_the_package_exists(path):
    nodes = ast.walk(ast.parse(source_of(read(path))))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if node.module.startswith("camctrl_jax")]
    assert ours
    for node in ours:
        module = importlib.import_module(node.module)
        for name in node.names:
            assert not name.name.startswith("_"), f"{node.module}.{name.name} is not public"
            assert hasattr(module, name.name), f"{node.module}.{name.name}"


@each
def test_commands_name_files_modules_and_options_that_exist(path, tmp_path, monkeypatch):
    page = tmp_path / f"{path.stem}.md"
    page.write_text(prose_of(read(path)))
    test_docs.test_commands_name_files_modules_and_options_that_exist(page, monkeypatch)


@each
def test_small_parameters_are_parameters(path):
    assert set(SMALL[path.stem]) <= parameters_of(read(path))


@each
@pytest.mark.parametrize("on_colab", [False, True])
def test_the_install_cell_acts_on_colab_alone_and_keeps_its_jax(path, on_colab, tmp_path):
    (cell,) = [cell for cell in read(path).cells if cell.id == "colab"]
    if on_colab:
        (tmp_path / "google/colab").mkdir(parents=True)
        (tmp_path / "google/colab/__init__.py").touch()
    # A pip that only says what it was asked for.
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip/__init__.py").touch()
    said = "import pathlib, sys\npathlib.Path('asked.txt').write_text('\\n'.join(sys.argv[1:]))\n"
    (tmp_path / "pip/__main__.py").write_text(said)
    (tmp_path / "cell.py").write_text("REPOSITORY = 'https://example.org/it'\n" + cell.source)
    run = [sys.executable, "cell.py"]
    subprocess.run(run, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, check=True)
    if not on_colab:
        assert not (tmp_path / "asked.txt").exists()
        return
    asked = (tmp_path / "asked.txt").read_text().splitlines()
    assert asked[0] == "install"
    assert asked[-1].startswith("camctrl_jax[")
    assert asked[-1].endswith(" @ git+https://example.org/it")
    kept = (tmp_path / asked[asked.index("-c") + 1]).read_text().splitlines()
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")}
    assert {f"{name}=={version}" for name, version in versions.items()} <= set(kept)


@pytest.mark.slow
@each
def test_it_runs_to_its_end(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="absent; pip install 'camctrl_jax[test]'")
    pytest.importorskip("ipykernel", reason="absent; pip install 'camctrl_jax[test]'")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    # Those of the tests are for small models, whose time is compilation; this one is the embedded model.
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    notebook = read(path)
    small = "\n".join(f"{name} = {value!r}" for name, value in SMALL[path.stem].items())
    notebook.cells.insert(2, nbformat.v4.new_code_cell(small))
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [kind for output in outputs for kind in output.get("data", ())]
    assert not [output.text for output in outputs if output.get("name") == "stderr"]
    assert shown.count("image/png") >= 5
    html = "".join(output.data.get("text/html", "") for output in outputs if "data" in output)
    assert "data:video/mp4;base64," in html
    assert ("<iframe srcdoc" in html) == (path.stem == "explore")  # the points
    assert any((tmp_path / "outputs" / path.stem).iterdir())
