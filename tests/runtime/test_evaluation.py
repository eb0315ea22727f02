"""The user's metric: found by name, called with a predictor, checked."""

import sys

import numpy as np
import onnx
import pytest

from onnxcomp.errors import OnnxcompError, OptionError
from onnxcomp.runtime.evaluation import Score
from onnxcomp.validation import Metric, evaluate, load_evaluator

MODEL = onnx.parser.parse_model("""
<ir_version: 10, opset_import: ["" : 21]>
agraph (float[N, 3] x) => (float[N, 3] y) { y = Add(x, x) }
""").SerializeToString()


def mean_output(predict):
    return predict({"x": np.ones((2, 3))})["y"].mean()


@pytest.fixture
def script(tmp_path):
    (tmp_path / "beside.py").write_text("FACTOR = 3\n")
    path = tmp_path / "score.py"
    path.write_text(
        "import numpy as np\n"
        "from beside import FACTOR\n"
        "def accuracy(predict):\n"
        "    import beside\n"
        "    return FACTOR * float(predict({'x': np.ones((1, 3))})['y'][0, 0])\n"
        "def other(predict): ...\n"
        "_private = 1\n"
    )
    return path


def test_a_function_in_a_file(script):
    evaluator = load_evaluator(f"{script}:accuracy")
    assert evaluate(MODEL, evaluator).value == 6


def test_a_function_in_a_package(monkeypatch, tmp_path):
    package = tmp_path / "scorers"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "task.py").write_text("def one(predict): return 1\n")
    monkeypatch.chdir(tmp_path)
    assert evaluate(MODEL, load_evaluator("scorers.task:one")).value == 1


def test_any_function_will_do():
    assert evaluate(MODEL, mean_output, threads=1).value == 2


def test_what_cannot_be_loaded(script, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_that_name\n")
    form = "give file.py:function or package.module:function"
    expected = {
        "score.py": f"evaluator 'score.py' names no function; {form}",
        "absent.py:f": f"evaluator 'absent.py:f': no such file absent.py; {form}",
        f"{script}:nope": (
            f"evaluator '{script}:nope': no function 'nope' (found: accuracy, other)"
        ),
        f"{script}:_private": (
            f"evaluator '{script}:_private': no function '_private' (found: accuracy, other)"
        ),
        f"{broken}:f": (
            f"evaluator '{broken}:f' cannot be imported"
            " (ModuleNotFoundError: No module named 'nothing_of_that_name')"
        ),
    }
    for reference, text in expected.items():
        with pytest.raises(OptionError) as caught:
            load_evaluator(reference)
        assert str(caught.value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "must return a number, or a 1-D array of one for each item, got NoneType"),
        ("0.9", "must return a number, or a 1-D array of one for each item, got str"),
        (
            np.ones((2, 1)),
            "must return a number, or a 1-D array of one for each item, got ndarray",
        ),
        (np.array([1.0, np.nan]), "must return a finite number, got nan"),
        (float("nan"), "must return a finite number, got nan"),
        (np.float32("inf"), "must return a finite number, got inf"),
    ],
)
def test_what_is_no_number(value, text):
    def score(_):
        return value

    with pytest.raises(OnnxcompError) as caught:
        evaluate(MODEL, score)
    assert str(caught.value).startswith("evaluator '")
    assert str(caught.value).endswith(f"score' {text}")


def test_numpy_numbers_are_numbers():
    assert evaluate(MODEL, lambda _: np.float32(0.5)).value == 0.5
    assert evaluate(MODEL, lambda _: np.array(2)).value == 2


def test_a_number_for_each_item_gives_an_interval():
    before, after = np.arange(200) % 10 > 0, np.arange(200) % 8 > 0
    original, result = (evaluate(MODEL, lambda _, each=each: each) for each in (before, after))
    metric = Metric.of(original, result)
    assert (metric.original, metric.result, metric.items) == (0.9, 0.875, 200)
    assert metric.low < 0 < metric.drop < metric.high < 0.1
    same = Metric.of(original, original)
    # Of 200 items none changed, and of others 1.5 % might.
    assert same.drop == 0.0
    assert same.high == -same.low == pytest.approx(0.0149, abs=1e-4)
    assert Metric.of(original, evaluate(MODEL, lambda _: 0.5)).items is None


def test_an_error_in_the_function_is_one_line(script):
    script.write_text("def accuracy(predict):\n    predict({'w': [1]})\n")
    with pytest.raises(OnnxcompError) as caught:
        evaluate(MODEL, load_evaluator(f"{script}:accuracy"))
    assert str(caught.value) == (
        f"evaluator '{script}:accuracy' raised DataError:"
        " feed: 'w' is not an input of the model (inputs: x)"
    )
    script.write_text("def accuracy(predict):\n    raise TypeError('two\\nlines')  # again\n")
    with pytest.raises(OnnxcompError, match=r"accuracy' raised TypeError: two lines$"):
        evaluate(MODEL, load_evaluator(f"{script}:accuracy"))


@pytest.mark.parametrize(("call", "text"), [("exit(3)", ": 3"), ("exit()", "")])
def test_an_evaluator_that_exits(script, call, text):
    script.write_text(f"import sys\ndef accuracy(predict):\n    sys.{call}\n")
    with pytest.raises(OnnxcompError) as caught:
        evaluate(MODEL, load_evaluator(f"{script}:accuracy"))
    assert str(caught.value) == f"evaluator '{script}:accuracy' raised SystemExit{text}"
    script.write_text(f"import sys\nsys.{call}\n")
    with pytest.raises(OptionError) as caught:
        load_evaluator(f"{script}:accuracy")
    assert str(caught.value) == (
        f"evaluator '{script}:accuracy' cannot be imported (SystemExit{text})"
    )


def test_the_drop_of_a_metric():
    metric = Metric(original=0.8, result=0.6)
    assert metric.drop == pytest.approx(0.2)
    assert metric.relative_drop == pytest.approx(0.25)
    assert Metric(original=0, result=0.6).relative_drop is None
    assert set(metric.model_dump(mode="json")) == {
        *("original", "result", "drop", "relative_drop"),
        *("items", "low", "high"),
    }


def test_what_an_evaluator_prints_is_no_result(capsys):
    def loud(predict):
        sys.stdout.write("working\n")
        return mean_output(predict)

    assert evaluate(MODEL, loud).value == 2
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "working\n")


def test_items_that_are_none_or_not_the_same():
    with pytest.raises(OnnxcompError, match=r"returned no items; it must judge one at least"):
        evaluate(MODEL, lambda _: np.zeros(0))
    with pytest.raises(
        OnnxcompError, match="gave 2 numbers for the original and 3 for the result"
    ):
        Metric.of(Score(0.0, np.zeros(2)), Score(0.0, np.zeros(3)))
