"""The README and the guides: their links lead somewhere, their commands exist, their Python runs."""

import contextlib
import importlib.util
import io
import re
import shlex
from pathlib import Path

import pytest

from camctrl_jax.training.config import check_overrides, load_recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RECORDS = [*sorted((ROOT / "docs").glob("*/*.md")), ROOT / "CHANGELOG.md"]


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def commands(page):
    """Words of every command in the page's bash blocks."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip() and line[0] != "#"]


@pytest.mark.parametrize("page", [*PAGES, *RECORDS], ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_files_modules_and_options_that_exist(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in commands(page):
        if words[0] == "bash":
            assert Path(words[1]).is_file(), words
        elif words[0] == "python" and words[1].endswith("/camera_pipeline.py"):
            pytest.importorskip("diffusers", reason="absent; pip install 'camctrl_jax[torch]'")
            check_options("camctrl_jax.interop.camera_pipeline", words[2:])
        elif words[:2] == ["python", "-m"]:
            if words[2] == "camctrl_jax.train":
                recipe = next(word for word in words if word.startswith("--config=")).split("=", 1)[1]
                check_overrides(words[3:], load_recipe(recipe))
            else:
                check_options(words[2], words[3:])
        else:
            pytest.fail(f"{page.name}: no test knows this command: {shlex.join(words)}")


def test_a_run_takes_its_place_in_a_page_again_and_again():
    spec = importlib.util.spec_from_file_location("paste", ROOT / "docs/results/paste.py")
    paste = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(paste)
    for page in ("benchmark.md", "fooling.md"):
        text = (ROOT / "docs/results" / page).read_text("utf-8")
        once = paste.pasted(text, "words\n\n## Frechet\n\n| a |\n")
        assert paste.pasted(once, "words\n\n## Frechet\n\n| a |\n") == once
        assert "### Frechet" in once.split(paste.BEGIN)[1].split(paste.END)[0]
        assert once.split(paste.BEGIN)[0] == text.split(paste.BEGIN)[0]
        assert once.split(paste.END)[1] == text.split(paste.END)[1]
        with pytest.raises(SystemExit, match="not the page that a run wrote"):
            paste.pasted(text, text)
    with pytest.raises(SystemExit, match="needs one line"):
        paste.pasted("# No place", "words")


def check_options(module, arguments):
    """Every --option of a command is in the help of its (sub)command."""
    found = importlib.util.find_spec(module)
    main = importlib.import_module(f"{module}.__main__" if found.submodule_search_locations else module).main
    command = [arguments[0]] if not arguments[0].startswith("-") else []
    text = io.StringIO()
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    for word in arguments:
        if word.startswith("--"):
            assert re.search(rf"{re.escape(word.split('=')[0])}\b", text.getvalue()), f"{module} {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_camera_commands_run_in_order(page, tmp_path, monkeypatch):
    from camctrl_jax.camera.__main__ import main

    monkeypatch.chdir(tmp_path)
    for words in commands(page):
        if words[:3] == ["python", "-m", "camctrl_jax.camera"]:
            assert main(words[3:]) == 0, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source in blocks(page, "python"):
        exec(compile(source, page.name, "exec"), {})


@pytest.mark.slow
def test_what_samples_on_the_page_about_generating_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source in blocks(ROOT / "docs/generating.md", "py"):
        exec(compile(source, "generating.md", "exec"), {})
    assert {path.name for path in (tmp_path / "outputs").iterdir()} == {"walk", "walk.mp4", "copy"}
