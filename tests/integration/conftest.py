"""Fixtures of the integration tests."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import fleet as fleet_module  # noqa: E402
import suite as suite_module  # noqa: E402


@pytest.fixture(scope="session")
def suite(tmp_path_factory):
    """One suite for all tests that leave it as it was."""
    running = suite_module.Suite(tmp_path_factory.mktemp("suite"))
    yield running
    assert running.stop() == 0


@pytest.fixture
def start_suite(tmp_path):
    """Starts suites that a test may break; stops what is left of them."""
    started = []

    def start(*flags, **keywords):
        folder = tmp_path / f"suite{len(started)}"
        folder.mkdir()
        started.append(suite_module.Suite(folder, *flags, **keywords))
        return started[-1]

    yield start
    for running in started:
        running.stop()


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """About 50 million parameters, so that streams last."""
    directory = tmp_path_factory.mktemp("models") / "small"
    suite_module.run_cli("make-model", "--shape", "small", "--dtype", "bf16",
                         directory)
    return directory


@pytest.fixture
def start_fleet(tmp_path, request):
    """Starts fleets that a test may break; ends what is left of them."""
    started = request.node.fleets = []

    def start(**keywords):
        folder = tmp_path / f"fleet{len(started)}"
        folder.mkdir()
        started.append(fleet_module.Fleet(folder, **keywords))
        return started[-1]

    yield start
    for running in started:
        running.destroy()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows the ends of the services' logs with a failure."""
    report = (yield).get_result()
    if report.when == "call" and report.failed:
        for value in item.funcargs.values():
            if isinstance(value, suite_module.Suite):
                report.sections.append(("logs of the suite", value.logs()))
        for fleet in getattr(item, "fleets", ()):
            report.sections.append(("logs of the fleet", fleet.logs()))
