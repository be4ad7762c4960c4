import pytest
import torch
from transformers.utils import logging


@pytest.fixture(scope="session", autouse=True)
def _quiet_and_alone():
    """One thread: tiny products gain nothing from two, and barriers suffer on a busy machine."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
