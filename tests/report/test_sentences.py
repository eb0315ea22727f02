"""What a report says first."""

import pytest
from made_up import benchmark, step, verdict

from onnxcomp.report import pipeline_in_words
from onnxcomp.report.layers import layers
from onnxcomp.report.sentences import noise_in_words, tiles, title, what_was_done


def test_title(full):
    assert title(full) == "<b>.onnx → small.onnx"
    nameless = full.output.model_copy(update={"path": None})
    assert title(full.model_copy(update={"output": nameless})) == "<b>.onnx → the result"


def test_nothing_was_kept(full):
    steps = (step("cluster", verdict("w", is_changed=False), status="rolled_back"),)
    same = full.model_copy(update={"steps": steps, "output": full.source})
    assert "was left as it was" in what_was_done(same)


def test_two_files(full):
    compared = full.model_copy(update={"steps": (), "source": full.output, "output": full.source})
    assert what_was_done(compared).startswith(
        "<b>.onnx (1.00 kB) is 4.00 times larger than small.onnx (250 bytes)."
    )


@pytest.mark.parametrize(
    ("ratio", "control", "spread", "said"),
    [
        (0.8, 1.0, 0.01, "It runs in 0.80 of the original's time"),
        (1.3, 1.0, 0.01, "It takes 1.30 times as long as the original"),
        (0.97, 1.0, 0.05, "No difference in latency can be told"),
        # The control is as far from 1 as the result: that is the machine.
        (0.9, 0.9, 0.01, "No difference in latency can be told"),
    ],
)
def test_latency(full, ratio, control, spread, said):
    timed = full.model_copy(update={"benchmark": (benchmark(ratio, control, spread),)})
    assert f"{said} on cpu (ratio {ratio:.2f}, 95 % interval " in what_was_done(timed)
    is_doubtful = "; no difference can be told" in tiles(timed)[-1][1]
    assert is_doubtful == said.startswith("No")


def test_noise():
    assert noise_in_words(benchmark(0.8, 1.0)) == ""
    assert "measured 0.90 to 1.10" in noise_in_words(benchmark(0.8, 1.0, 0.1))


def test_outputs(full):
    plain = full.model_copy(update={"metric": None})
    assert "The lowest SNR of its outputs is 20.0 dB on 8 made-up samples." in what_was_done(plain)
    broken = full.validation[0].model_copy(update={"failure": "no such file", "outputs": ()})
    said = what_was_done(plain.model_copy(update={"validation": (broken,)}))
    assert "It is not valid: no such file." in said


def test_layers_over_several_steps(full):
    [first, second] = layers(full.steps)
    assert [name for name, _ in first.changes] == ["prune", "cluster"]
    assert (first.bytes_before, first.bytes_after, first.error) == (100, 25, 0.1)
    assert (second.name, second.changes, second.error) == ("bias", (), 0.0)


def test_a_pipeline():
    passes = [
        {"pass": "prune", "sparsity": 0.75, "sequential": False, "bits": 9},
        {"pass": "cluster", "bits": 4, "exclude": ["a", "b", "c"], "include": []},
        {"pass": "of somebody else", "bits": 4},
    ]
    assert pipeline_in_words({"passes": passes}) == (
        "prune(sparsity=0.75, sequential=False), cluster(exclude=3 entries), of somebody else"
    )
    assert pipeline_in_words({"passes": []}) == "nothing"
