"""
Grade a solution: run the tests on the slm.py of a folder, and print the points.

    python lesson/assignment/grade.py                            # of student/
    python lesson/assignment/grade.py lesson/solution --json     # {"P1": 20, ...}

FOLDER holds slm.py and, for P4 and P5, results.json, predictions.json and runs/ (handout.md).
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
WORTH = {"P1": 20, "P2": 15, "P3": 20, "P4": 20, "P5": 25}
BY_HAND = 20    # further points, for the written parts (rubric.md)


def points_of(folder):
    """({problem: its points}, what the tests printed)."""
    with tempfile.TemporaryDirectory() as temporary:
        file = pathlib.Path(temporary) / "points.json"
        done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode",
                               "importlib", "--continue-on-collection-errors", str(HERE / "tests")],
                              env=os.environ | {"SLM_FOLDER": str(folder), "POINTS_FILE": str(file)},
                              cwd=HERE, capture_output=True, text=True)
        tests = json.loads(file.read_text()) if file.exists() else {}
    points = dict.fromkeys(WORTH, 0)
    for problem, worth, passed in tests.values():
        points[problem] += worth if passed else 0
    return points, done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=str(HERE / "student"))
    parser.add_argument("--json", action="store_true", help="print the points as JSON alone")
    args = parser.parse_args()
    folder = pathlib.Path(args.folder).resolve()
    if not (folder / "slm.py").exists():
        sys.exit(f"grade.py: there is no {folder / 'slm.py'}")
    points, printed = points_of(folder)
    if args.json:
        return print(json.dumps(points))
    print(printed)
    print("| problem | points | of |\n|---|---|---|")
    for problem, worth in WORTH.items():
        print(f"| {problem} | {points[problem]} | {worth} |")
    print(f"| all | {sum(points.values())} | {sum(WORTH.values())} |\n| by hand | | {BY_HAND} |")


if __name__ == "__main__":
    main()
