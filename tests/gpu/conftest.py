"""All of this needs a GPU: `pytest tests/gpu` on a machine that has one. Elsewhere it is skipped."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _gpu():
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} sees no GPU")
