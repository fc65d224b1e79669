"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# done, total, what to show beside the bar, such as "loss 0.123  accuracy 97.1 %"
ShowProgress = Callable[[int, int, str], None]
LINE_INTERVAL_S = 10.0


@contextmanager
def progress(title: str) -> Iterator[ShowProgress]:
    """Show the progress of one piece of work.

    Args:
        title: What is being done.

    Yields:
        A function to call with (done, total, text) as the work goes on.
    """
    if not sys.stdout.isatty():
        yield _line_report(title)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(title, text="", total=None)

        def report(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total, text=text)

        yield report


def _line_report(title: str) -> ShowProgress:
    start = time.monotonic()
    last = -LINE_INTERVAL_S

    def report(done: int, total: int, text: str) -> None:
        nonlocal last
        elapsed = time.monotonic() - start
        if done < total and elapsed - last < LINE_INTERVAL_S:
            return
        last = elapsed
        left = elapsed / done * (total - done) if done else 0.0
        print(f"{title} {done}/{total}  {text}  {left:.0f} s left", flush=True)

    return report
