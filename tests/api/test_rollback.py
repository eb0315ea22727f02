"""A step whose result is not what it promised is undone, and says so."""

import numpy as np
import onnx
import pytest

from onnxcomp import Settings, compress, load_model
from onnxcomp.errors import DataError, FloorError, OnnxcompError, OptionError, PassError
from onnxcomp.graph import model_bytes
from onnxcomp.passes import Cluster


@pytest.fixture
def mlp(models):
    return models["mlp"]


@pytest.fixture
def attempt(mlp, untimed, tmp_path):
    def run(*passes, model=mlp, settings=untimed):
        source = model.source(tmp_path)
        return compress(source, passes, data=list(model.feeds), settings=settings)

    return run


def test_a_result_that_is_invalid(attempt, fake):
    step = attempt(fake(kind="invalid")).report.steps[0]
    assert step.status == "rolled_back"
    assert step.reason.startswith("the result is not valid: No Op registered for NoSuchOperator")
    assert "\n" not in step.reason


def test_a_result_that_is_not_finite(attempt, fake):
    step = attempt(fake(kind="nan")).report.steps[0]
    assert step.status == "rolled_back"
    assert step.reason == "outputs are not finite where the original's are ('y')"


def test_a_result_that_is_not_smaller(attempt, bloat, fake):
    step = attempt(bloat).report.steps[0]
    assert (step.status, step.reason) == ("rolled_back", "the result is not smaller")
    assert step.changed == ()
    assert "undone: the result is not smaller" in {each.reason for each in step.tensors}
    assert attempt(fake(kind="exact")).report.steps[0].status == "applied"


def test_a_result_that_is_miscompiled(fake, untimed):
    proto = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        lone (float[N, 64] x) => (float[N, 64] y) { y = MatMul(x, w) }
        """)
    values = np.random.default_rng(0).standard_normal((64, 64), np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
    step = compress(proto, [fake(kind="miscompiled")], settings=untimed).report.steps[0]
    if step.status == "applied":
        pytest.skip("this onnxruntime has no such fusion")
    assert step.status == "rolled_back"
    assert step.reason.startswith("optimised and unoptimised outputs differ by ")


def test_a_step_that_is_undone_leaves_nothing_behind(attempt, bloat, fake, mlp, tmp_path):
    undone = attempt(bloat, fake(kind="nan"), fake(kind="invalid"))
    assert undone.to_bytes() == mlp.source(tmp_path)
    mixed = attempt(fake(kind="nan"), Cluster(), bloat)
    assert [step.status for step in mixed.report.steps] == [
        "rolled_back",
        "applied",
        "rolled_back",
    ]
    assert mixed.to_bytes() == attempt(Cluster()).to_bytes()
    assert mixed.report.validation == attempt(Cluster()).report.validation


def test_a_pass_that_hides_what_it_did(attempt, idle, mlp, tmp_path):
    compressed = attempt(idle)
    assert compressed.report.steps[0].status == "nothing"
    assert compressed.to_bytes() == mlp.source(tmp_path)


def test_a_pass_that_raises(attempt, fake):
    with pytest.raises(PassError) as caught:
        attempt(fake(kind="raise"))
    assert str(caught.value) == "pass 'fake' failed: ZeroDivisionError: two lines"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_without_validation_bytes_are_still_promised(attempt, bloat, fake, untimed):
    blind = untimed.model_copy(update={"validation": False})
    kept = attempt(bloat, fake(kind="nan"), fake(kind="invalid"), settings=blind)
    assert [step.status for step in kept.report.steps] == ["rolled_back", "applied", "rolled_back"]
    assert kept.report.validation == ()


def test_accuracy_undoes_nothing(attempt):
    compressed = attempt(Cluster(bits=1, granularity="tensor"))
    assert compressed.report.steps[0].status == "applied"
    assert compressed.report.validation[0].worst_snr_db < 20


def test_a_missed_floor_carries_the_report(attempt, untimed):
    floor = untimed.model_copy(update={"min_snr": 90.0})
    with pytest.raises(FloorError, match=r"^the SNR of the outputs is \d") as caught:
        attempt(Cluster(), settings=floor)
    report = caught.value.compressed.report
    assert report.steps[0].status == "applied"
    assert report.validation[0].worst_snr_db < 90
    assert caught.value.exit_code == 3


def mean_magnitude(predict):
    return -float(np.abs(predict({"x": np.ones((4, 32))})["y"]).mean())


@pytest.mark.parametrize("most", [100.0, "100%"])
def test_a_metric_of_ones_own(attempt, untimed, most):
    settings = untimed.model_copy(update={"evaluate": mean_magnitude, "max_drop": most})
    metric = attempt(Cluster(), settings=settings).report.metric
    assert metric.original == pytest.approx(metric.result, abs=0.3)
    assert metric.drop == metric.original - metric.result


@pytest.mark.parametrize("most", [0.5, "50%"])
def test_a_metric_that_drops(attempt, untimed, most):
    values = iter([1.0, 0.25])
    settings = untimed.model_copy(
        update={"evaluate": lambda _predict: next(values), "max_drop": most}
    )
    with pytest.raises(FloorError, match=r"^the metric dropped by 0.75 \(from 1 to 0.25\), all"):
        attempt(Cluster(), settings=settings)


@pytest.mark.parametrize("most", [-1, "nan", "inf", "-1%"])
def test_a_floor_that_is_none(most):
    with pytest.raises(OptionError, match="give a number from 0"):
        Settings(max_drop=most, evaluate="metric.py:score")


def test_a_metric_is_looked_up_before_the_work(attempt, untimed, fake):
    settings = untimed.model_copy(update={"evaluate": "absent.py:score"})
    with pytest.raises(OnnxcompError, match=r"^evaluator 'absent\.py:score': no such file"):
        attempt(fake(kind="raise"), settings=settings)


@pytest.mark.parametrize("validation", [True, False])
def test_data_is_read_before_the_work(mlp, fake, untimed, validation):
    untimed = untimed.model_copy(update={"validation": validation})
    with pytest.raises(DataError, match=r"'z' is not an input of the model \(inputs: x\)$"):
        compress(mlp.proto, [fake(kind="raise")], data=[{"z": np.ones(3)}], settings=untimed)


@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_what_nothing_changed_leaves_as_it_came(kind, mlp, fake, untimed, tmp_path):
    # Valid, but no writer puts an unknown field first.
    data = b"\xfa\x7f\x03odd" + mlp.proto.SerializeToString()
    assert model_bytes(load_model(data)) != data
    path = tmp_path / "source.onnx"
    path.write_bytes(data)
    source = {"bytes": data, "file": path}[kind]
    undone = compress(source, [fake(kind="nan")], data=list(mlp.feeds), settings=untimed)
    assert undone.report.steps[0].status == "rolled_back"
    saved = undone.save(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == undone.to_bytes() == data
    assert saved.output.bytes == len(data)
    assert undone.model.metadata_props == mlp.proto.metadata_props


def test_data_files_are_copied_with_what_nothing_changed(models, fake, untimed, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    model = models["external_data"]
    path = model.source(tmp_path / "in")
    undone = compress(path, [fake(kind="nan")], data=list(model.feeds), settings=untimed)
    undone.save(tmp_path / "out" / path.name)
    found = {each.name: each.read_bytes() for each in (tmp_path / "in").iterdir()}
    assert len(found) == 2
    assert {each.name: each.read_bytes() for each in (tmp_path / "out").iterdir()} == found
