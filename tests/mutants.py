"""`make mutants`: small faults in the code that decides; each must turn a test red.

mutmut makes the faults and runs the tests (`[tool.mutmut]` in pyproject.toml). What no test can
notice stands in survivors.toml with the reason; anything else that survives fails.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

MUTMUT = [str(Path(sys.executable).with_name("mutmut"))]
SURVIVORS = Path(__file__).with_name("survivors.toml")


def main() -> int:
    to_terminal = None if sys.stdout.isatty() else subprocess.DEVNULL  # it draws a spinner
    subprocess.run([*MUTMUT, "run"], check=True, stdout=to_terminal)
    known = tomllib.loads(SURVIVORS.read_text("utf-8"))
    explained = {(name, line) for name, lines in known["equivalent"].items() for line in lines}
    whole_runs = {f"{file}.{name}" for file, names in known["whole_runs"].items() for name in names}
    found, untested = set(), set()
    for name, status in results():
        function = name.split("__mutmut_")[0].replace("x_", "", 1)
        if status == "no tests":
            untested.add(function)
        elif status == "survived" and function not in whole_runs:
            found.add((function, change_of(name)))
    unexplained = sorted(found - explained)
    for function, change in unexplained:
        print(f"survived: {function}: {change}")
    for function in sorted(untested - whole_runs):
        print(f"no test: {function}")
        unexplained.append((function, ""))
    for function, change in sorted(explained - found):
        print(f"killed, so delete it from {SURVIVORS.name}: {function}: {change}")
    print(f"mutants: {len(found)} survived, {len(unexplained)} without an explanation")
    return 1 if unexplained else 0


def results() -> list[list[str]]:
    """The name and the status of every mutant that was not killed."""
    run = subprocess.run([*MUTMUT, "results"], check=True, capture_output=True, text=True)
    return [line.strip().split(": ", 1) for line in run.stdout.splitlines() if "__mutmut_" in line]


def change_of(name: str) -> str:
    """The line that a mutant puts in another's place."""
    run = subprocess.run([*MUTMUT, "show", name], check=True, capture_output=True, text=True)
    (line,) = (line for line in run.stdout.splitlines() if line.startswith("+ "))
    return line[1:].strip()


if __name__ == "__main__":
    sys.exit(main())
