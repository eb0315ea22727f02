"""Every registered pass, on every small model."""

import pytest

from onnxcomp.pipeline import available_passes
from onnxcomp.testing import checks

EVERY_CHECK = [check for cls in available_passes().values() for check in checks(cls())]


@pytest.mark.parametrize("check", EVERY_CHECK, ids=str)
def test_every_pass(check, tmp_path):
    check(tmp_path)
