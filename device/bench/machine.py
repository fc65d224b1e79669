"""What this machine is and what state it is in: what decides how far a timing can be trusted."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path
from typing import Any

import numpy as np

# `vcgencmd get_throttled`, https://www.raspberrypi.com/documentation/computers/os.html
THROTTLED_BITS = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
SINCE_BOOT = 16  # the same four again, this many bits higher: it has happened since boot


def describe_machine() -> dict[str, Any]:
    """The machine, its processor and the versions that do not change during a run."""
    cpu = read_cpuinfo()
    return {
        "board": board_name(),
        "cpu": cpu.get("model name") or cpu.get("Model") or platform.machine(),
        "cores": os.cpu_count(),
        "isa_flags": (cpu.get("flags") or cpu.get("Features") or "").split(),
        "governor": read_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def board_name() -> str:
    """The board's name as the device tree gives it, such as 'Raspberry Pi 4 Model B Rev 1.5'."""
    return read_line("/proc/device-tree/model") or platform.node()


def machine_state() -> dict[str, Any]:
    """What changes during a run; None where this machine does not tell it."""
    return {
        "load_1min": os.getloadavg()[0],
        "clock_mhz": clock_mhz(),
        "temperature_c": temperature_c(),
        "throttled": read_throttled(),
    }


def throttling_between(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Why timings between two states (`machine_state`) are not valid; empty: nothing is known.

    A flag counts that is set at either end, or that came up in between. One that had come up since
    boot before the first state hides a second time: only a new start of the system clears it.
    """
    first, last = before["throttled"], after["throttled"]
    if first is None or last is None:
        return ""
    return name_flags(first | last | (last & ~first) >> SINCE_BOOT)


def name_flags(bits: int) -> str:
    """What is set of `THROTTLED_BITS`, in words; empty: nothing."""
    return ", ".join(name for bit, name in THROTTLED_BITS.items() if bits >> bit & 1)


def read_throttled() -> int | None:
    """The bits of `vcgencmd get_throttled`; None where there is no such command or right to it."""
    import subprocess  # slow to import, and most who import this file never get here

    command = shutil.which("vcgencmd")
    if command is None:
        return None
    try:
        run = subprocess.run([command, "get_throttled"], capture_output=True, text=True, timeout=5)
        return int(run.stdout.partition("throttled=")[2], 16)  # of "throttled=0x50005"
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def clock_mhz() -> float | None:
    """The processor's clock just now."""
    kilohertz = read_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    if kilohertz:
        return int(kilohertz) / 1000
    megahertz = read_cpuinfo().get("cpu MHz")
    return float(megahertz) if megahertz else None


def temperature_c() -> float | None:
    """The hottest of the machine's thermal zones."""
    zones = Path("/sys/class/thermal").glob("thermal_zone*/temp")
    values = [int(text) / 1000 for text in map(read_line, map(str, zones)) if text]
    return max(values, default=None)


def read_cpuinfo() -> dict[str, str]:
    """The keys of /proc/cpuinfo, each with its first value."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    pairs = [line.partition(":") for line in reversed(lines) if ":" in line]
    return {key.strip(): value.strip() for key, _, value in pairs}


def read_line(path: str) -> str:
    """The first line of a file of the kernel's; empty where there is none."""
    try:
        text = Path(path).read_text("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""
    return text.splitlines()[0] if text else ""
