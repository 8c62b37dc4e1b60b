"""Programs in environments of their own: what they are given, and every way in which they can fail."""

import ast
import pickle
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from camctrl_jax.errors import ClipError, InvalidValue, MissingFile, UserError
from camctrl_jax.estimators.process import Installation, Program, kill_group, log_tail, working_folder
from camctrl_jax.estimators.programs import (
    ProgramDepth,
    ProgramEmbeddings,
    ProgramFlow,
    ProgramMasks,
    ProgramPoints,
    ProgramSfm,
)
from camctrl_jax.estimators.protocols import EstimatorFailed, SfmStatus
from camctrl_jax.video.decoding import read_image, read_video
from camctrl_jax.video.greys import read_grey

DEPTH = """
    import sys, numpy as np
    from pathlib import Path
    images, out = map(Path, sys.argv[1:3])
    for path in sorted(images.glob("*.png")):
        np.save(out / (path.stem + ".npy"), np.full((40, 64), 2.0 + int(path.stem)))
"""


def test_depth_of_a_program_that_works_and_nothing_is_left_behind(program, clip, tmp_path):
    result = ProgramDepth(program(DEPTH, "{images}", "{out}")).depth(clip, np.array([0.6, 1.0, 0.5, 0.5]))
    assert result.depth.dtype == np.float32
    np.testing.assert_array_equal(result.depth[:, 0, 0], [2.0, 3.0, 4.0])
    assert result.valid.all()
    assert list((tmp_path / "work").iterdir()) == []


def test_pictures_and_intrinsics_arrive_as_they_were(program, clip, tmp_path):
    text = """
        import sys, shutil
        shutil.copytree(sys.argv[1], sys.argv[2])
        raise SystemExit(1)
    """
    taken = tmp_path / "taken"
    intrinsics = np.linspace(0.4, 0.7, 12).reshape(3, 4)
    with pytest.raises(EstimatorFailed):
        ProgramDepth(program(text, "{work}", str(taken))).depth(clip, intrinsics)
    np.testing.assert_array_equal(read_video(taken / "images"), clip)
    np.testing.assert_array_equal(np.load(taken / "intrinsics.npy"), intrinsics)


def test_a_program_that_hangs_is_stopped_and_its_last_words_are_told(program, clip, tmp_path):
    text = "import time; print('loading weights', flush=True); time.sleep(1000)"
    with pytest.raises(EstimatorFailed, match=r"stopped after 1 s[\s\S]*loading weights") as failure:
        ProgramDepth(program(text, time_limit=1.0)).depth(clip)
    assert failure.value.reason == "timeout"
    assert "loading weights" in failure.value.log_tail
    assert list((tmp_path / "work").iterdir()) == []


def test_a_traceback_is_told(program, clip):
    with pytest.raises(EstimatorFailed, match=r"status 1[\s\S]*ValueError: no such backbone") as failure:
        ProgramDepth(program("raise ValueError('no such backbone')")).depth(clip)
    assert failure.value.reason == "crashed"


def test_a_native_crash_is_told_by_its_signal(program, clip):
    text = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    with pytest.raises(EstimatorFailed, match="SIGSEGV") as failure:
        ProgramDepth(program(text)).depth(clip)
    assert failure.value.reason == "crashed"


def test_half_the_files_are_no_result_and_the_first_missing_one_is_named(program, clip):
    text = DEPTH.replace('("*.png")):', '("*.png"))[:1]:')
    with pytest.raises(EstimatorFailed, match=r"out/00001\.npy") as failure:
        ProgramDepth(program(text, "{images}", "{out}")).depth(clip)
    assert failure.value.reason == "no_result"


@pytest.mark.parametrize(
    ("what", "message"),
    [("np.zeros((20, 64))", r"expected \[40, 64\]"), ("np.array(['a'])", "expected"), (None, "NumPy")],
)
def test_wrong_files_are_bad_results(program, clip, what, message):
    save = (
        f"np.save(out / (path.stem + '.npy'), {what})"
        if what
        else "(out / (path.stem + '.npy')).write_text('x')"
    )
    text = DEPTH.replace('np.save(out / (path.stem + ".npy"), np.full((40, 64), 2.0 + int(path.stem)))', save)
    with pytest.raises(EstimatorFailed, match=message) as failure:
        ProgramDepth(program(text, "{images}", "{out}")).depth(clip)
    assert failure.value.reason == "bad_result"


def test_depth_without_one_valid_pixel_is_a_bad_result(program, clip):
    text = DEPTH.replace("2.0 + int(path.stem)", "np.inf")
    with pytest.raises(EstimatorFailed, match="no depth"):
        ProgramDepth(program(text, "{images}", "{out}")).depth(clip)


@pytest.mark.parametrize("ends", ["", "import time; time.sleep(1000)", "raise SystemExit(3)"])
def test_children_that_a_program_leaves_running_are_killed(program, clip, tmp_path, ends):
    noted = tmp_path / "pids"
    text = f"""
        import subprocess, sys
        middle = "import subprocess, sys, time; c = subprocess.Popen([sys.executable, '-c', 'import time; "
        middle += "time.sleep(1000)']); open(sys.argv[1], 'w').write(str(c.pid)); time.sleep(1000)"
        subprocess.Popen([sys.executable, "-c", middle, {str(noted)!r}])
        import os, time
        while not os.path.exists({str(noted)!r}) or not open({str(noted)!r}).read():
            time.sleep(0.01)
        {ends}
    """
    with pytest.raises(EstimatorFailed):
        ProgramDepth(program(text, time_limit=3.0)).depth(clip)
    grandchild = int(noted.read_text())
    for _ in range(200):
        if not _alive(grandchild):
            break
        time.sleep(0.02)
    assert not _alive(grandchild)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_group_is_killed_when_the_caller_is_interrupted(program, clip, tmp_path, monkeypatch):
    def interrupted(self, timeout=None):
        if timeout is not None:
            raise KeyboardInterrupt
        return original(self)

    original, killed = subprocess.Popen.wait, []
    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    monkeypatch.setattr(
        "camctrl_jax.estimators.process.kill_group",
        lambda process: (killed.append(process.pid), kill_group(process)),
    )
    with pytest.raises(KeyboardInterrupt):
        ProgramDepth(program("import time; time.sleep(1000)")).depth(clip)
    assert len(killed) == 1
    assert not _alive(killed[0])
    assert list((tmp_path / "work").iterdir()) == []


def test_the_working_folder_of_a_failure_is_kept_on_request(program, clip):
    with pytest.raises(EstimatorFailed, match="folder was kept") as failure:
        ProgramDepth(program("print('here'); raise SystemExit(1)", keep_failed=True)).depth(clip)
    kept = failure.value.folder
    assert sorted(path.name for path in kept.iterdir()) == ["clip.json", "images", "log.txt", "out"]
    assert "here" in (kept / "log.txt").read_text()


def test_environment_variables_reach_the_program(program, clip):
    text = DEPTH.replace("2.0 + int(path.stem)", "float(__import__('os').environ['SOME_DEPTH'])")
    fake = program(text, "{images}", "{out}", environment={"SOME_DEPTH": "7.5"})
    assert ProgramDepth(fake).depth(clip).depth[0, 0, 0] == 7.5


def test_another_interpreter_does_not_see_our_packages_and_relative_places_hold(tmp_path, monkeypatch):
    """A wrapper stands for the python of another environment; it and the repository are named relatively."""
    for folder in ("envs", "code", "work"):
        (tmp_path / folder).mkdir()
    wrapper = tmp_path / "envs" / "python"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    script = "import os; told = os.environ.get('PYTHONPATH'), os.getcwd(), '{repository}'; "
    script += "open('{work}/told', 'w').write(repr(told))"
    monkeypatch.setenv("PYTHONPATH", "/somewhere/of/ours")
    monkeypatch.chdir(tmp_path)
    for interpreter, path in (("envs/python", None), (sys.executable, "/somewhere/of/ours")):
        place = Installation(interpreter, repository="code", time_limit=60.0)
        fake = Program("fake", (("{python}", "-c", script),), place)
        fake.check()
        with working_folder(fake) as work:
            fake.run(work, {})
            told = ast.literal_eval((work / "told").read_text())
        assert told == (path, str(tmp_path / "code"), str(tmp_path / "code"))


def test_a_missing_interpreter_is_named_before_any_work(tmp_path, clip):
    place = Installation(tmp_path / "envs" / "python", work_in=tmp_path / "work")
    with pytest.raises(MissingFile, match=r"fake: there is no interpreter .*envs/python"):
        ProgramDepth(Program("fake", (("{python}", "x.py"),), place)).depth(clip)
    assert not (tmp_path / "work").exists()


def test_missing_weights_repository_and_files_are_named(tmp_path, clip):
    def refused(match, **settings):
        needs = settings.pop("needs", ())
        names = settings.pop("weight_names", ())
        fake = Program("fake", (("{python}", "{repository}/x.py"),), Installation(**settings), needs=needs)
        fake = Program(
            "fake", fake.commands, fake.installation, needs=needs, weight_names=names, licence="Somebody's."
        )
        with pytest.raises(MissingFile, match=match):
            ProgramDepth(fake).depth(clip)

    refused("give the folder of its code")
    refused("there is no folder .*absent", repository=tmp_path / "absent")
    refused(r"holds no core/raft\.py", repository=tmp_path, needs=("core/raft.py",))
    refused(r"give its weights: big\.pth\. Somebody's", repository=tmp_path, weight_names=("big.pth",))
    refused(
        "there are no weights .*gone", repository=tmp_path, weight_names=("b",), weights=tmp_path / "gone"
    )


def test_all_commands_run_in_order_and_share_the_time(program, clip, tmp_path):
    fake = program("import sys; open(sys.argv[1], 'a').write(sys.argv[2])")
    script = fake.commands[0][1]
    order = tmp_path / "order"
    fake = fake.with_commands(*(("{python}", script, str(order), word) for word in "abc"))
    with working_folder(fake) as work:
        fake.run(work, {})
    assert order.read_text() == "abc"
    slow = fake.with_commands(*(("{python}", "-c", "import time; time.sleep(0.6)") for _ in range(20)))
    limited = Program("fake", slow.commands, Installation(sys.executable, time_limit=2.0))
    with working_folder(limited) as work, pytest.raises(EstimatorFailed, match="stopped after 2 s"):
        limited.run(work, {})


def test_a_failure_is_of_one_clip_and_survives_pickling():
    failure = EstimatorFailed("timeout", "it hung", "tail")
    again = pickle.loads(pickle.dumps(failure))
    assert isinstance(again, ClipError)
    assert (again.reason, str(again), again.log_tail) == ("timeout", "it hung", "tail")


def test_the_tail_of_a_log_is_its_end_without_the_history_of_progress_bars(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"x" * 9000 + b"\nstep 1\rstep 2\rstep 3\n\xff\xfe\n" + b"last\n")
    tail = log_tail(path).splitlines()
    assert tail[1:] == ["step 3", "\ufffd\ufffd", "last"]
    assert len(tail[0]) < 9000
    assert log_tail(tmp_path / "absent") == "(nothing)"


def test_masks_come_back_with_their_polarity(program, clip):
    text = """
        import sys, shutil
        from pathlib import Path
        from PIL import Image
        import numpy as np
        for path in sorted(Path(sys.argv[1]).glob("*.png")):
            mask = np.zeros((40, 64), np.uint8); mask[: 10 + int(path.stem)] = 1
            Image.fromarray(mask).save(Path(sys.argv[2]) / path.name)
    """
    moving = ProgramMasks(program(text, "{images}", "{out}")).segment(clip, 12.0).moving
    assert moving.dtype == bool
    assert moving.sum(axis=(1, 2)).tolist() == [640, 704, 768]
    assert moving[0, :10].all()


def test_sfm_masks_are_written_in_the_polarity_of_the_program(program, clip, tmp_path):
    taken = tmp_path / "taken"
    text = "import sys, shutil; shutil.copytree(sys.argv[1], sys.argv[2])"
    masks = np.zeros(clip.shape[:3], bool)
    masks[1, :5] = True
    for settings, name, ignored, kept in (
        ({"ignored": 255}, "00001.png", 255, 0),
        ({"ignored": 0, "mask_suffix": ".png"}, "00001.png.png", 0, 255),
    ):
        result = ProgramSfm(program(text, "{masks}", str(taken)), **settings).reconstruct(clip, masks)
        assert (result.status, result.reason) == (SfmStatus.FAILED, "no_model")
        written = read_grey(taken / name)
        assert (written[:5] == ignored).all()
        assert (written[5:] == kept).all()
        shutil.rmtree(taken)


def test_a_program_without_masks_refuses_them_or_paints(program, clip, tmp_path):
    taken = tmp_path / "taken"
    text = "import sys, shutil; shutil.copytree(sys.argv[1], sys.argv[2])"
    masks = np.zeros(clip.shape[:3], bool)
    masks[2, 3, 4] = True
    fake = program(text, "{images}", str(taken))
    with pytest.raises(InvalidValue, match="takes no masks"):
        ProgramSfm(fake, takes_masks=False).reconstruct(clip, masks)
    ProgramSfm(fake, takes_masks=False, paint=0).reconstruct(clip, masks)
    painted = read_image(taken / "00002.png")
    assert painted[3, 4].tolist() == [0, 0, 0]
    painted[3, 4] = clip[2, 3, 4]
    np.testing.assert_array_equal(painted, clip[2])


def test_sfm_programs_fail_with_a_result_and_only_a_missing_one_raises(program, clip, tmp_path):
    crashed = ProgramSfm(program("raise ValueError('no CUDA')")).reconstruct(clip)
    assert (crashed.status, crashed.reason) == (SfmStatus.FAILED, "crashed")
    assert "no CUDA" in crashed.message
    assert not crashed.registered.any()
    hung = ProgramSfm(program("import time; time.sleep(100)", time_limit=0.5)).reconstruct(clip)
    assert hung.reason == "timeout"
    broken = "import sys, os; os.mkdir(sys.argv[1]); open(sys.argv[1] + '/images.bin', 'wb').write(b'123')"
    assert ProgramSfm(program(broken, "{work}/sparse")).reconstruct(clip).reason == "bad_result"
    with pytest.raises(UserError, match="no interpreter"):
        ProgramSfm(Program("fake", (("{python}",),), Installation("absent-python"))).reconstruct(clip)


def test_flow_is_of_the_pairs_that_were_given(program, clip):
    text = """
        import sys, numpy as np
        from pathlib import Path
        from PIL import Image
        first, second, out = map(Path, sys.argv[1:])
        for path in sorted(first.glob("*.png")):
            a, b = (np.asarray(Image.open(f / path.name), float) for f in (first, second))
            np.save(out / (path.stem + ".npy"), (b - a)[..., :2])
    """
    flow = ProgramFlow(program(text, "{first}", "{second}", "{out}")).flow(clip[:-1], clip[1:])
    np.testing.assert_array_equal(flow, (clip[1:].astype(float) - clip[:-1])[..., :2])
    with pytest.raises(InvalidValue, match="one shape"):
        ProgramFlow(program(text)).flow(clip[:-1], clip)


def test_embeddings_are_made_of_length_one(program, clip):
    text = "import sys, numpy as np; np.save(sys.argv[1] + '/embeddings.npy', np.array({}, float))"
    good = program(text.format([[3, 4], [0, 2], [-1, 0]]), "{out}")
    np.testing.assert_allclose(ProgramEmbeddings(good).embed(clip), [[0.6, 0.8], [0, 1], [-1, 0]], atol=1e-7)
    with pytest.raises(EstimatorFailed, match="zero or not finite"):
        ProgramEmbeddings(program(text.format([[3, 4], [0, 0], [-1, 0]]), "{out}")).embed(clip)


def test_points_come_with_colours_and_cameras(program, clip):
    text = """
        import sys, numpy as np
        out = sys.argv[1]
        np.save(out + "/points.npy", np.arange(6.0).reshape(2, 3))
        np.save(out + "/colours.npy", np.full((2, 3), 200, np.uint8))
        np.save(out + "/world_from_camera.npy", np.tile(np.eye(4), (3, 1, 1)))
        np.save(out + "/intrinsics.npy", np.tile([0.6, 1.0, 0.5, 0.5], (3, 1)))
    """
    cloud = ProgramPoints(program(text, "{out}")).points(clip)
    assert cloud.points.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert cloud.confidence.tolist() == [1, 1]
    assert not cloud.metric
    assert len(cloud.cameras) == 3


def test_fingerprints_change_with_weights_and_commands_and_not_with_places(tmp_path):
    weights = tmp_path / "w.pth"
    weights.write_bytes(b"one")

    def digest(python="python", command="{python}"):
        place = Installation(python, weights=weights)
        return ProgramDepth(Program("p", ((command,),), place)).fingerprint().digest

    first = digest()
    assert digest(python="/elsewhere/python") == first
    assert digest(command="other") != first
    weights.write_bytes(b"two")
    assert digest() != first
    for folder, text in (("a", "1"), ("b", "1"), ("c", "2")):  # a script: what it does, not where it lies
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "run.py").write_text(text)
    found = [digest(command=str(tmp_path / folder / "run.py")) for folder in "abc"]
    assert found[0] == found[1] != found[2]


def test_a_time_limit_must_be_positive():
    with pytest.raises(InvalidValue, match="time_limit"):
        Installation(time_limit=0)
