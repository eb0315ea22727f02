"""What every pass must do, as checks that the author of a pass can run.

::

    import pytest
    from onnxcomp.testing import checks
    from my_passes import MyPass

    @pytest.mark.parametrize("check", checks(MyPass()), ids=str)
    def test_my_pass(check, tmp_path):
        check(tmp_path)

`random_model` makes as many more models as you like.
"""

from onnxcomp.testing.models import small_models
from onnxcomp.testing.random_models import random_feeds, random_model
from onnxcomp.testing.small_model import SmallModel
from onnxcomp.testing.suite import Check, check_pass, checks

__all__ = [
    "Check",
    "SmallModel",
    "check_pass",
    "checks",
    "random_feeds",
    "random_model",
    "small_models",
]
