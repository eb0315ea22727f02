"""What is installed is one package: a user's own files have names of their own."""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

import onnxcomp
from onnxcomp import passes
from onnxcomp.pipeline import available_passes

USING = """
import onnxcomp
from onnxcomp import Cluster, compress
from onnxcomp.passes import Cluster as Same, Prune
assert Cluster is Same
print(*onnxcomp.available_passes())
"""


def run(*arguments, folder, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("own", ["passes.py", "passes/__init__.py"])
@pytest.mark.parametrize("on_path", [False, True], ids=["beside", "on the path"])
def test_a_module_passes_of_the_users(tmp_path, own, on_path):
    folder = tmp_path / "theirs"
    (folder / own).parent.mkdir(parents=True)
    (folder / own).write_text("raise SystemExit('not this one')\n")
    script = (tmp_path if on_path else folder) / "script.py"
    script.write_text(USING)
    ended = run(str(script), folder=folder, **({"PYTHONPATH": str(folder)} if on_path else {}))
    assert (ended.stderr, ended.stdout.split()) == ("", list(available_passes()))


def test_passes_are_found_at_the_top():
    for name in set(passes.__all__) - {"ALL"}:
        assert getattr(onnxcomp, name) is getattr(passes, name)
        assert name in onnxcomp.__all__
    with pytest.raises(AttributeError, match="module 'onnxcomp' has no attribute 'Clusters'"):
        _ = onnxcomp.Clusters


def test_the_command_line_as_a_module(tmp_path):
    ended = run("-m", "onnxcomp", "--version", folder=tmp_path)
    assert ended.stdout == f"onnxcomp {version('onnxcomp')}\n"
    assert onnxcomp.__version__ == version("onnxcomp")


def test_where_an_error_comes_from(tmp_path):
    plain = run("-m", "onnxcomp", "inspect", "none.onnx", folder=tmp_path)
    assert plain.stderr == "error: cannot read 'none.onnx': no such file or directory\n"
    asked = [
        run("-m", "onnxcomp", "--traceback", "inspect", "none.onnx", folder=tmp_path),
        run("-m", "onnxcomp", "inspect", "none.onnx", folder=tmp_path, ONNXCOMP_DEBUG="1"),
    ]
    for each in asked:
        assert each.returncode == plain.returncode
        assert "Traceback (most recent call last)" in each.stderr
        assert each.stderr.endswith(plain.stderr)


def test_what_is_done_is_logged(models, caplog):
    settings = onnxcomp.Settings(bench=False)
    with caplog.at_level("DEBUG", logger="onnxcomp"):
        small = models["mlp"]
        onnxcomp.compress(
            small.proto, [onnxcomp.Cluster(bits=2)], data=list(small.feeds), settings=settings
        )
    said = [record.getMessage() for record in caplog.records if "onnxcomp" in record.name]
    assert said[0] == "cluster begins"
    assert said[-1] == "cluster: applied "
    assert any(text.startswith("level 0 of layers") for text in said)
