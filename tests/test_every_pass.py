"""Every registered pass, on every small model; and passes in other forms on some."""

import pytest

from onnxcomp.passes import Cluster, Factorize, Prune, PruneChannels, Quantize
from onnxcomp.pipeline import available_passes
from onnxcomp.testing import checks, small_models
from onnxcomp.testing.process_checks import check_threads_of

# What some take by default is decided by timing, so that two runs need not give the same bytes;
# how far auto prunes one weight, by all others, so that to exclude one may change another.
CONFIGURED = {
    "factorize": Factorize(rank_ratio=0.5, allow="size", rank_multiple=2),
    "prune": Prune(scope="tensor"),
    "quantize": Quantize(mode="static"),
}

FORMS = (
    Factorize(rank_ratio=0.6, allow="size", kinds=("spatial",), rank_multiple=1, min_elements=1),
    Factorize(
        rank_ratio=0.6,
        allow="size",
        kinds=("tucker", "cp", "separable"),
        rank_multiple=1,
        sequential=False,
    ),
    Quantize(mode="dynamic"),
    Quantize(mode="weights", weight_type="int4"),
    Quantize(mode="weights", weight_type="float16"),
    Cluster(bits=2, width=2, min_elements=1),
    Cluster(bits=5, granularity="group", entries="int8"),
    Cluster(clusters=6, share="model", entries="float16", depthwise=True),
    PruneChannels(ratio=0.5, criterion="activation", round_to=1),
    Prune(pattern="2:4", depthwise=True),
    Prune(sparsity=0.9, block=4, steps=2, scope="row"),
)
FEWER = [
    model
    for model in small_models()
    if model.name in {"convnet", "if_bodies", "local_functions", "overridable"}
]

# Quantize refuses the model that is quantized already; tests/passes/test_quantized.py has that.
UNQUANTIZED = [model for model in small_models() if model.name != "quantized"]
EVERY_CHECK = [
    check
    for name, cls in available_passes().items()
    for check in checks(CONFIGURED.get(name) or cls(), UNQUANTIZED if name == "quantize" else ())
]
TOGETHER = [
    (Prune.name, check) for check in checks(Prune(), FEWER) if "selection" not in str(check)
]
FORM_CHECKS = [(place, check) for place, form in enumerate(FORMS) for check in checks(form, FEWER)]
FORM_CHECKS += TOGETHER
# Of all forms at once, which takes less time.
FORM_CHECKS = [each for each in FORM_CHECKS if "threads" not in str(each[1])]


@pytest.mark.parametrize("check", EVERY_CHECK, ids=str)
def test_every_pass(check, tmp_path):
    check(tmp_path)


@pytest.mark.parametrize(
    "check", [check for _, check in FORM_CHECKS], ids=[f"{n}-{check}" for n, check in FORM_CHECKS]
)
def test_forms_of_passes(check, tmp_path):
    check(tmp_path)


def test_forms_with_threads(tmp_path):
    check_threads_of((*FORMS, Prune()), tmp_path)
