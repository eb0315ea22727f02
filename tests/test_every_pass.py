"""Every registered pass, on every small model; and clustering in its other forms on some."""

import pytest

from onnxcomp.pipeline import available_passes
from onnxcomp.testing import checks, small_models
from passes import Cluster

FORMS = (
    Cluster(bits=2, width=2, min_elements=1),
    Cluster(bits=5, granularity="group", entries="int8"),
    Cluster(clusters=6, share="model", entries="float16", depthwise=True),
)
FEWER = [
    model for model in small_models() if model.name in {"convnet", "if_bodies", "local_functions"}
]

EVERY_CHECK = [check for cls in available_passes().values() for check in checks(cls())]
FORM_CHECKS = [(place, check) for place, form in enumerate(FORMS) for check in checks(form, FEWER)]


@pytest.mark.parametrize("check", EVERY_CHECK, ids=str)
def test_every_pass(check, tmp_path):
    check(tmp_path)


@pytest.mark.parametrize(
    "check", [check for _, check in FORM_CHECKS], ids=[f"{n}-{check}" for n, check in FORM_CHECKS]
)
def test_forms_of_cluster(check, tmp_path):
    check(tmp_path)
