"""What all tests of statistics share."""

import pytest
from observed import reseed


@pytest.fixture(autouse=True)
def _numbers():
    reseed()
