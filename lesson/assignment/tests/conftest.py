"""
@pytest.mark.points("P1", 8) says what a test is worth: these points, if all of its cases pass. grade.py names in
POINTS_FILE where to write {test: [problem, points, whether it passed]}.
"""
import json
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
STUDENT = pathlib.Path(os.environ.get("SLM_FOLDER", HERE.parent / "student"))
own = [STUDENT] if (STUDENT / "adapters.py").exists() else []
sys.path[:0] = map(str, [*own, HERE, HERE.parents[2]])    # the last has the repository's model.py

points = {}    # of each test: [problem, points, whether all of its cases have passed]
n_cases = {}   # of each test: how many cases are still to pass


def pytest_configure(config):
    config.addinivalue_line("markers", "points(problem, n): what the test is worth, over all of its cases")


def pytest_collection_modifyitems(items):
    for item in items:
        test = item.nodeid.split("[")[0]
        points[test] = [*item.get_closest_marker("points").args, False]
        n_cases[test] = n_cases.get(test, 0) + 1


def pytest_runtest_logreport(report):
    if report.when == "call" and report.passed:  # what was skipped, or never ran, has not passed
        test = report.nodeid.split("[")[0]
        n_cases[test] -= 1
        points[test][2] = n_cases[test] == 0


def pytest_sessionfinish():
    if "POINTS_FILE" in os.environ:
        pathlib.Path(os.environ["POINTS_FILE"]).write_text(json.dumps(points))
