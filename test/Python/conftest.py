# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# What the tests of the Python package share. They run against the installed wheel (`tools/dev test`), those of PyTorch
# and Transformers where these are installed (`tools/dev setup --python`).
import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
# Small models gain nothing by threads, and lose much where others use the machine.
os.environ["OMP_NUM_THREADS"] = "1"
TESTS = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory):
    """The user's cached kernels are neither read nor filled."""
    os.environ["KVCC_CACHE_DIR"] = str(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="session")
def model_path():
    return str(TESTS / "models/smollm2-135m-instruct.json")


@pytest.fixture(scope="session")
def models():
    return TESTS / "models"
