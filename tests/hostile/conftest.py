"""Makes the modules of this folder importable (test folders are no packages), and sees that no text is run."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hostile_texts import CANARY  # the path must be known first


@pytest.fixture(autouse=True)
def canary() -> Iterator[None]:
    """Nothing of what others wrote is run."""
    os.environ.pop(CANARY, None)
    yield
    assert CANARY not in os.environ
