"""Shared by the comparisons with other implementations."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import oracle  # noqa: E402


@pytest.fixture(scope="session")
def data():
    folder = oracle.reference_data()
    if folder is None:
        pytest.skip("CARAVAN_REFERENCE_DATA is absent")
    return folder
