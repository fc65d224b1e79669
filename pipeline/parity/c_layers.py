"""The generated C, layer by layer: every byte of every layer must be tflite-runtime's.

Labels and even the last layer's bytes hide faults: a softmax near 1 shows little of what is behind
it. So a small program (c_layers.c) includes the very C file and hands out what each layer leaves in
the scratch; nothing in what ships knows of it. It runs with every processor's kernels that can run
here, on test images and on images made to excite.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.quantized_lenet5 import QuantizedLenet5, UnsupportedModelError, read_lenet5
from pipeline import native
from pipeline.artifacts import DEVICE_PYTHON, INT8_TFLITE, NATIVE_FOLDER, this_architecture
from pipeline.classify import run_apart
from pipeline.data import Images
from pipeline.files import UserError
from pipeline.parity.binaries import HERE, PROCESSORS

TEST_IMAGES = 1000
NAME_BYTES = 16  # of the kernels, before the layers
SEED = 26
GENERATIONS = 24
Layers = NDArray[np.int8]  # (N, values): all layers of an image side by side


@dataclass(frozen=True)
class LayersRow:
    """How the layers of the C compare with tflite-runtime's on one processor."""

    processor: str  # `HERE`, or "ARCHITECTURE PROCESSOR" that qemu plays
    kernels: str  # that it chose there; "" if it did not run
    images: int
    status: str  # "pass", "fail" or "not_run"
    reason: str  # why it is not "pass"


def judge_layers(folder: Path, images: Images) -> tuple[tuple[LayersRow, ...], Images]:
    """Compare all layers of the C with the int8 TFLite file's, on every processor.

    Args:
        folder: The artifacts.
        images: uint8 (N, 28, 28), the test images; the first `TEST_IMAGES` are taken.

    Returns:
        A row a processor, and the images made to excite, uint8 (M, 28, 28): none if the C cannot
        run here.
    """
    excite = np.empty((0, 28, 28), np.uint8)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        try:
            network = read_lenet5(folder / INT8_TFLITE)
            build(folder, work)
            if this_architecture() in PROCESSORS:
                excite = exciting(network, [str(work / this_architecture())])
        except (OSError, UnsupportedModelError, UserError) as error:
            return (LayersRow(HERE, "", 0, "fail", str(error)),), excite
        chosen = np.concatenate([images[:TEST_IMAGES], excite])
        wanted = reference(folder / INT8_TFLITE, chosen, work)
        todo = [LayersRow(HERE, "", len(chosen), "pass", "")]
        todo += [
            replace(todo[0], processor=f"{arch} {processor}")
            for arch, processors in PROCESSORS.items()
            for processor in processors
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            rows = tuple(pool.map(lambda row: _judge(row, work, network, chosen, wanted), todo))
    return rows, excite


def build(folder: Path, into: Path) -> None:
    """Compile the program for every architecture, as `into/ARCHITECTURE`, or UserError."""
    sources = (native.C_FOLDER / "static_linux.c", Path(__file__).with_suffix(".c"))
    flags = [*native.COMPILE, f"-I{(folder / NATIVE_FOLDER).resolve()}"]
    link = ("-static", "-no-pie", *native.LINK)

    def compile_for(arch: str) -> None:
        native.build_program(native.TARGETS[arch], sources, flags, link, into / arch)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_for, native.TARGETS))


def reference(model: Path, images: Images, work: Path) -> Layers | str:
    """tflite-runtime's layers, or one line that says why there are none."""
    given, output = work / "images.npy", work / "layers.npy"
    np.save(given, images)
    wrong = run_apart(DEVICE_PYTHON, "parity.tflite_layers", model.resolve(), given, output)
    return wrong or np.load(output, allow_pickle=False)


def run_layers(
    command: Sequence[str], network: QuantizedLenet5, images: Images
) -> tuple[str, Layers]:
    """The kernels' name and the layers that the program gives; UserError if it ends early."""
    done = subprocess.run(command, input=images.tobytes(), capture_output=True)
    kernels, given = done.stdout[:NAME_BYTES], done.stdout[NAME_BYTES:]
    values = sum(layer_sizes(network).values())
    if done.returncode or len(given) != len(images) * values:
        raise UserError(f"the layers' program ended early (exit code {done.returncode})")
    return kernels.rstrip(b"\0").decode(), np.frombuffer(given, np.int8).reshape(-1, values)


def layer_sizes(network: QuantizedLenet5) -> dict[str, int]:
    """How many values each layer's output has, in the order of the program."""
    classes = network.probabilities.channels
    sizes = {"conv1": 14 * 14 * 6, "conv2": 5 * 5 * 16, "dense1": 120, "dense2": 84}
    return {**sizes, "dense3": classes, "softmax": classes}


def difference(sizes: dict[str, int], got: Layers, wanted: Layers) -> str:
    """One line on the first layer that differs; "" if none does."""
    if got.shape != wanted.shape:
        return f"layers of shape {got.shape}, not {wanted.shape}"
    start = 0
    for name, size in sizes.items():
        ours, theirs = got[:, start : start + size], wanted[:, start : start + size]
        start += size
        wrong = np.argwhere(ours != theirs)
        if len(wrong):
            image, value = wrong[0]
            return (
                f"layer {name} differs in {len(wrong):,} of {ours.size:,} values; the first is "
                f"value {value} of image {image}: {ours[image, value]}, not {theirs[image, value]}"
            )
    return ""


def _judge(
    row: LayersRow, work: Path, network: QuantizedLenet5, images: Images, wanted: Layers | str
) -> LayersRow:
    arch, _, processor = row.processor.partition(" ")
    command = [str(work / (this_architecture() if row.processor == HERE else arch))]
    if row.processor != HERE:
        try:
            command = [*native.emulator(arch, processor), *command]
        except UserError as error:
            return replace(row, status="not_run", reason=str(error))
    elif this_architecture() not in PROCESSORS:
        return replace(row, status="not_run", reason=f"no binaries for {this_architecture()}")
    if isinstance(wanted, str):
        return replace(row, status="not_run", reason=f"tflite-runtime: {wanted}")
    try:
        kernels, got = run_layers(command, network, images)
    except UserError as error:
        return replace(row, status="fail", reason=str(error))
    reason = difference(layer_sizes(network), got, wanted)
    return replace(row, kernels=kernels, status="fail" if reason else "pass", reason=reason)


# --- Images made to excite ----------------------------------------------------------------------


def exciting(network: QuantizedLenet5, command: Sequence[str]) -> Images:
    """Noise, single pixels, and images found by search, uint8 (N, 28, 28), always the same.

    The search looks at each output of the dense layers, of which an image says only one byte: for
    an image that drives it as high as can be, and for two whose sums lie so close under and over
    the border between two bytes that a millionth more or less may cross it. What the layers'
    program gives is right up to its first wrong layer, and there the comparison ends.
    """
    rng = np.random.default_rng(SEED)
    pixels: NDArray[np.uint8] = np.zeros((784, 784), np.uint8)
    np.fill_diagonal(pixels, 255)
    pixels = pixels.reshape(28, 28, 28, 28)[::2, ::2].reshape(-1, 28, 28)  # a fourth of them
    found: dict[int, tuple[NDArray[np.float64], Images]] = {}
    children = np.concatenate([_blocks(rng, 50) for _ in range(80)])
    for _ in range(GENERATIONS):
        for kind, scores in enumerate(_scores(network, command, children)):  # each (N, channels)
            best = scores.argmax(axis=0)
            score = scores[best, np.arange(len(best))]
            old, images = found.get(kind, (np.full(len(best), -np.inf), children[best]))
            better = score > old
            images = np.where(better[:, None, None], children[best], images)
            found[kind] = (np.maximum(old, score), images)
        parents = np.concatenate([images for _, images in found.values()])
        children = np.concatenate([_altered(rng, np.repeat(parents, 4, axis=0)), _blocks(rng, 100)])
    noise = rng.integers(0, 256, (100, 28, 28), np.uint8)
    return np.concatenate([parents, noise, pixels])


def _scores(
    network: QuantizedLenet5, command: Sequence[str], images: Images
) -> list[NDArray[np.float64]]:
    """Of each image and dense output: the value, and how near the bytes around it are."""
    _, layers = run_layers(command, network, images)
    ends = np.cumsum(list(layer_sizes(network).values()))
    kinds: list[list[NDArray[np.float64]]] = [[], [], []]
    for end, layer in zip(ends[1:], network.layers[2:], strict=False):
        inputs = layers[:, end - layer.weights.shape[1] : end].astype(np.float32)
        sums = (inputs - layer.source.zero_point) @ layer.weights.T.astype(np.float32)
        steps = (sums + layer.bias) * layer.multipliers  # exact but for a millionth of a millionth
        lowest = 0 if layer.relu else -128 - layer.result.zero_point
        inside = (steps > lowest - 0.5) & (steps < 127.5 - layer.result.zero_point)
        above = steps + 0.5 - np.floor(steps + 0.5)  # 0..1, over the border below
        share = np.where(inside, np.abs(steps) + 1e-9, 1e-9)
        parts = (steps, -above / share, (above - 1) / share)
        for kind, part in zip(kinds, parts, strict=True):
            kind.append(part)
    return [np.concatenate(kind, axis=1) for kind in kinds]


def _blocks(rng: np.random.Generator, count: int) -> Images:
    """Images of black and white squares, of one size."""
    cells = int(rng.integers(2, 29))
    at = np.arange(28) * cells // 28
    white = rng.random((count, cells, cells)) < rng.random((count, 1, 1))
    return (white[:, at][:, :, at] * np.uint8(255)).astype(np.uint8)


def _altered(rng: np.random.Generator, images: Images) -> Images:
    """Each with a rectangle made black, made white, or taken from another one."""
    n = len(images)
    low, size = rng.integers(0, 28, (2, n, 1)), rng.integers(1, 15, (2, n, 1))
    rows, columns = (
        (np.arange(28) >= a) & (np.arange(28) < a + s) for a, s in zip(low, size, strict=True)
    )
    box = rows[:, :, None] & columns[:, None, :]
    kind = rng.integers(0, 3, (n, 1, 1))
    painted = np.where(kind < 2, kind * 255, images[rng.permutation(n)]).astype(np.uint8)
    return np.where(box, painted, images)
