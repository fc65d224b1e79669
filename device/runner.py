#!/usr/bin/env python3
"""Classify handwritten digits with a LeNet-5 model on a small computer.

    python3 runner.py digit.png                       # digit.png  7  99.8 %  0.1 ms

As a library:

    classifier = Classifier("lenet5_int8.tflite")
    label, probability = classifier.classify(image)   # uint8 (28, 28), white ink on black
    labels, probabilities = classifier.predict(images)              # uint8 (N, 28, 28)

It needs Python 3.9, numpy and one of: the compiled C model (`native/`), ai-edge-litert,
tflite-runtime, onnxruntime. Copied alone, it reads images as .npy: `runner.py MODEL FILE.npy`. With
its neighbours in the bundle it reads any picture, and has the commands receipt, verify, info,
accuracy, bench.

Exit codes: 0 done, 1 a check failed, 2 bad usage or bad input.
"""

from __future__ import annotations

import os
import sys
import threading
import zlib
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable, NamedTuple, Sequence

if __name__ == "__main__":
    if sys.stderr is None:  # closed: `print` would write errors among the answers
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    # numpy's BLAS would start a thread a core: half of the start-up time, for nothing here.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
try:
    import numpy as np
except ImportError as error:
    if __name__ != "__main__":
        raise
    print(f"runner.py: numpy cannot be imported ({error}): pip install numpy", file=sys.stderr)
    sys.exit(2)

HERE = Path(__file__).resolve().parent
RUNTIMES = {  # file type -> runtimes that read it, the fastest first
    ".c": ("native",),
    ".tflite": ("ai-edge-litert", "tflite-runtime"),
    ".onnx": ("onnxruntime",),
}
UINT8 = np.dtype(np.uint8)
INT8_SOFTMAX = (1 / 256, -128)  # (scale, zero point) that the output of an int8 softmax always has
NO_SOFTMAX = "its outputs are not probabilities; end the model with a softmax"


class InputError(ValueError):
    """A file, argument or installation that cannot be used; the message says what to do."""


# --- 1. How a model is loaded -------------------------------------------------------------------


class Model(NamedTuple):
    """A model that is loaded in a runtime. Its images are uint8 and contiguous."""

    path: Path
    classify: Callable[[np.ndarray], tuple[int, float]]  # (28, 28) -> (label, probability)
    run: Callable[[np.ndarray], np.ndarray]  # (N, 28, 28) -> (N, classes), int8 or float32
    invoke: Callable[[], Any]  # the runtime's own call, on the input in place; one thread only


def load_native(path: Path, runtime: str, num_threads: int) -> Model:
    """Load the compiled library of the generated C (device/native/binding.c); it runs its code."""
    from importlib.machinery import ExtensionFileLoader, ModuleSpec

    file = native_library(path)
    check_library(file)
    loader = ExtensionFileLoader("lenet5_int8", str(file.resolve()))
    library: Any = loader.create_module(ModuleSpec(loader.name, loader, origin=loader.path))
    loader.exec_module(library)
    sys.modules[loader.name] = library  # where `info` finds which kernels it chose

    def run(images: np.ndarray) -> np.ndarray:
        rows = np.empty((len(images), library.CLASSES), np.int8)
        library.run(images, rows)
        return rows

    black, row = np.zeros((28, 28), np.uint8), np.empty(library.CLASSES, np.int8)
    return Model(path, library.classify, run, partial(library.run, black, row))


def load_tflite(path: Path, runtime: str, num_threads: int) -> Model:
    """Load a TFLite file, static batch 1, in ai-edge-litert or tflite-runtime."""
    module = runtime.replace("-", "_")
    if module == "tflite_runtime" and find_spec(module) and np.__version__ >= "2":
        # Its last release was built for numpy 1 without saying so, and fails in many lines.
        raise InputError(f"{runtime} needs numpy 1, not {np.__version__}: pip install 'numpy<2'")
    create = import_module(f"{module}.interpreter").Interpreter
    interpreter = create(model_content=read_model(path), num_threads=num_threads)
    interpreter.allocate_tensors()
    given, answer = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    if answer["dtype"] != np.float32 and answer["quantization"] != INT8_SOFTMAX:
        raise InputError(f"{path}: {NO_SOFTMAX}")
    into, out_of = given["index"], answer["index"]
    pad, image = padding(given["quantization"])

    def ask(pixels: np.ndarray) -> list[Any]:
        pad(pixels)
        interpreter.set_tensor(into, image)
        interpreter.invoke()
        return interpreter.get_tensor(out_of)[0].tolist()

    return one_at_a_time(path, answer["dtype"], ask, interpreter.invoke)


def load_onnx(path: Path, runtime: str, num_threads: int) -> Model:
    """Load an ONNX file, float32 and of any batch, in onnxruntime."""
    onnxruntime = import_module(runtime)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = num_threads, 3
    session = onnxruntime.InferenceSession(
        read_model(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    given, answer = session.get_inputs()[0].name, session.get_outputs()[0].name
    pad, image = padding((0.0, 0))
    row = session.run([answer], {given: image})[0]  # (1, classes)
    binding = session.io_binding()  # quicker for one image than passing arrays
    binding.bind_input(given, "cpu", 0, image.dtype, image.shape, image.ctypes.data)
    binding.bind_output(answer, "cpu", 0, row.dtype, row.shape, row.ctypes.data)
    invoke = partial(session.run_with_iobinding, binding)

    def ask(pixels: np.ndarray) -> list[Any]:
        pad(pixels)
        invoke()
        return row[0].tolist()

    def run(images: np.ndarray) -> np.ndarray:
        rows = []
        for i in range(0, len(images), 512):  # bounds the memory of a large call
            batch = np.pad(images[i : i + 512], ((0, 0), (2, 2), (2, 2)))[..., np.newaxis]
            batch = batch.astype(np.float32) / np.float32(255)  # (N, 32, 32, 1)
            rows += session.run([answer], {given: batch})
        return np.concatenate(rows)

    return one_at_a_time(path, row.dtype, ask, invoke)._replace(run=run)


def one_at_a_time(path: Path, dtype: Any, ask: Callable[..., Any], invoke: Any) -> Model:
    """A model that is asked for one image at a time, by one thread; the outputs are a list."""
    lock, zero_point = threading.Lock(), INT8_SOFTMAX[1] if dtype == np.int8 else 0

    def classify(pixels: np.ndarray) -> tuple[int, float]:  # the arithmetic of `answer`
        with lock:
            row = ask(pixels)
        total = sum(row) - zero_point * len(row)
        if zero_point == 0 and not abs(total - 1.0) < 0.01:
            raise InputError(f"{path}: {NO_SOFTMAX}")
        highest = max(row)
        return row.index(highest), (highest - zero_point) / max(total, 0.5)

    def run(images: np.ndarray) -> np.ndarray:
        with lock:
            return np.array([ask(pixels) for pixels in images], dtype)

    return Model(path, classify, run, invoke)


def read_model(path: Path) -> bytes:
    """The bytes of a model, if its checksum is right: a damaged file can crash a runtime.

    The CRC-32 stands in the file's metadata (export/seal.py), taken with zeros in its place.
    """
    data = path.read_bytes()
    before, key, rest = data.partition(b'"crc32": "')
    if not key:
        raise InputError(f"{path}: not a model of this project (no checksum): use `make export`")
    crc = zlib.crc32(before + key + b"0" * 8 + rest[8:])
    if rest[:8] != b"%08x" % crc:
        raise InputError(f"{path}: damaged (wrong checksum); copy it again")
    return data


def check_library(file: Path) -> None:
    """Refuse a compiled library that is missing or damaged: it would run as it is.

    Its last eight bytes are the CRC-32 and the length of all before.
    """
    if not file.is_file():
        raise InputError(f"{file}: not compiled for this machine: make -C native")
    data = file.read_bytes()
    code, seal = data[:-8], data[-8:]
    if seal != zlib.crc32(code).to_bytes(4, "little") + len(code).to_bytes(4, "little"):
        raise InputError(f"{file}: damaged; compile it or copy it again")


def first_line(error: BaseException) -> str:
    """The first line of an exception's message: an error is one line here."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def native_library(source: Path) -> Path:
    """Where the library lies that is compiled from a C file for this machine."""
    machine = os.uname().machine
    if machine == "aarch64" and sys.maxsize < 2**32:  # a 32-bit system on a 64-bit kernel
        machine = "armv7"
    machine = {"armv6l": "armv6", "armv7l": "armv7", "armv8l": "armv7"}.get(machine, machine)
    return source.parent / machine / f"{source.stem}.so"


def usable_runtimes(model: Path) -> list[str]:
    """The installed runtimes that read a model, the fastest first."""
    if model.suffix == ".c":
        return ["native"] if native_library(model).is_file() else []
    return [name for name in RUNTIMES.get(model.suffix, ()) if find_spec(name.replace("-", "_"))]


# --- 2. How an image becomes the model's input --------------------------------------------------


def prepare(images: np.ndarray) -> np.ndarray:
    """Check images and make them uint8 (N, 28, 28), contiguous.

    Args:
        images: (N, 28, 28), or padded to (N, 32, 32); white ink on black: uint8 0..255, or
            float 0..1.

    Raises:
        InputError: Another shape or type, no images, or values that are not within 0..1.
    """
    images = np.asarray(images)
    if images.ndim != 3 or images.shape[1:] not in ((28, 28), (32, 32)) or not len(images):
        raise InputError(f"images of shape {images.shape}, not (N, 28, 28)")
    if images.shape[1] == 32:  # padded already
        padded, images = images, images[:, 2:30, 2:30]
        if np.count_nonzero(padded) != np.count_nonzero(images):
            raise InputError("images of 32x32 with ink in the margin; scale them to 28x28")
    if images.dtype.kind == "f":
        if not (images.min() >= 0.0 and images.max() <= 1.0):  # NaN fails this as well
            raise InputError("float images must be finite and within 0..1")
        images = np.rint(images * 255).astype(np.uint8)
    if images.dtype != np.uint8:
        raise InputError(f"images of type {images.dtype}, not uint8 or float")
    return np.ascontiguousarray(images)


def padding(quantization: tuple[float, int]) -> tuple[Callable[[np.ndarray], Any], np.ndarray]:
    """A function that fills a model's input from uint8 (28, 28), and that input, (1, 32, 32, 1).

    For a scale of 0.0 it is float32 0..1, else int8, by a table of the 256 grey levels:
    clip(round(x / scale) + zero point, -128, 127). Without the rounding 0.2 % of MNIST's
    predictions change (B. Jacob et al., "Quantization and Training of Neural Networks for
    Efficient Integer-Arithmetic-Only Inference", CVPR 2018, section 2.1).
    """
    scale, zero_point = quantization
    levels = np.arange(256, dtype=np.float32) / np.float32(255)
    if scale != 0.0:
        steps = np.rint(levels / np.float32(scale)) + zero_point
        levels = np.clip(steps, -128, 127).astype(np.int8)
    grey = np.zeros((1, 32, 32, 1), np.intp)  # of a type that `take` looks up without a copy
    middle, image = grey[0, 2:30, 2:30, 0], levels.take(grey)

    def pad(pixels: np.ndarray) -> None:
        middle[:] = pixels
        levels.take(grey, out=image, mode="clip")

    return pad, image


# --- 3. The call, and 4. the answer -------------------------------------------------------------


class Predictions(NamedTuple):
    """The answers for N images."""

    labels: np.ndarray  # int64 (N,): the most probable class; of equal ones the lowest
    probabilities: np.ndarray  # float32 (N, classes), 0..1; each row has the sum 1


class Classifier:
    """A model in a runtime: images in, labels and probabilities out. Threads may share it.

    Args:
        model: A `.tflite` or `.onnx` file, or the generated `.c` (its compiled library is loaded).
        runtime: "native", "ai-edge-litert", "tflite-runtime", "onnxruntime", or "auto".
        num_threads: How many the runtime may use. One is fastest for a model this small.

    Attributes:
        runtime: The one in use.
        model: What it loaded.
        classes: How many the model tells apart.

    Raises:
        InputError: The model is missing, damaged or not of our shape, or there is no runtime.
    """

    def __init__(
        self, model: str | os.PathLike[str], runtime: str = "auto", num_threads: int = 1
    ) -> None:
        path = Path(model)
        readers = RUNTIMES.get(path.suffix, ())
        if not path.is_file():
            raise InputError(f"{path}: no such model; name another")
        if not readers:
            raise InputError(f"{path}: unknown type of model; known: {', '.join(RUNTIMES)}")
        if runtime == "auto":
            runtime = (usable_runtimes(path) or readers)[0]
        if runtime not in readers:
            raise InputError(
                f"{path}: {runtime} does not read {path.suffix} files; {readers[0]} does"
            )
        self.runtime = runtime
        try:
            load = {".c": load_native, ".tflite": load_tflite, ".onnx": load_onnx}[path.suffix]
            self.model = load(path, runtime, num_threads)
            black = np.zeros((2, 28, 28), np.uint8)  # on which a model of another form fails
            self.model.classify(black[0])
            _, self.classes = self.model.run(black).shape
        except (InputError, OSError):
            raise
        except ImportError as error:
            how = "make -C native" if runtime == "native" else f"pip install {runtime}"
            raise InputError(f"{runtime}: not usable ({first_line(error)}): {how}") from None
        except Exception as error:  # the errors of the runtimes have no common base class
            reason = first_line(error)
            raise InputError(f"{path}: {runtime} refuses it ({reason}); export it again") from None
        self._classify = self.model.classify

    def classify(self, image: np.ndarray) -> tuple[int, float]:
        """The most probable label of one image, (28, 28) as for `predict`, and its probability."""
        image = np.asarray(image)
        if image.dtype is not UINT8 or image.shape != (28, 28) or not image.flags.c_contiguous:
            image = prepare(image[np.newaxis])[0]
        return self._classify(image)

    def predict(self, images: np.ndarray) -> Predictions:
        """Classify images; `prepare` says which, and what it raises."""
        return answer(self.model, self.model.run(prepare(images)))


def answer(model: Model, raw: np.ndarray) -> Predictions:
    """Labels and probabilities of a model's outputs, (N, classes) int8 or float32.

    A row is divided by its sum: int8 ends at 255/256, so that without it the surest answer would
    be 99.6 %.
    """
    values = raw.astype(np.float32)
    if raw.dtype == np.int8:
        values -= np.float32(INT8_SOFTMAX[1])
    sums = values.sum(axis=1, keepdims=True)
    if raw.dtype != np.int8 and not (np.abs(sums - 1.0) < 0.01).all():  # NaN fails this as well
        raise InputError(f"{model.path}: {NO_SOFTMAX}")
    return Predictions(raw.argmax(axis=1), values / np.maximum(sums, np.float32(0.5)))


# --- 5. The command line ------------------------------------------------------------------------


def load_quietly(*arguments: Any) -> Classifier:
    """A classifier; the greeting of ai-edge-litert on stderr is kept back."""
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        return Classifier(*arguments)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


def classify_arrays(arguments: Sequence[str]) -> int:
    """`MODEL FILE.npy...`: a line for each image in the files."""
    try:
        if len(arguments) < 2:
            raise InputError("usage: runner.py MODEL FILE.npy... (in the bundle it does more)")
        classifier = load_quietly(arguments[0])
        for name in arguments[1:]:
            try:
                images = np.load(name, allow_pickle=False)
                images = prepare(images[np.newaxis] if images.ndim == 2 else images)
            except (OSError, ValueError, EOFError, AttributeError) as error:
                raise InputError(f"{name}: not images as .npy ({first_line(error)})") from None
            for label, probability in map(classifier.classify, images):
                print(f"{name}  {label}  {probability * 100:.1f} %")
    except (InputError, OSError) as error:
        print(f"runner.py: {error}", file=sys.stderr)
        return 2
    return 0


def main() -> int:
    """The command line of the bundle's `commands.py`; without it, the little one above."""
    try:
        from commands import main as run
    except ModuleNotFoundError:
        run = classify_arrays
    return run(sys.argv[1:])


if __name__ == "__main__":
    # As `runner`, not `__main__`: one identity for the files beside it, and bytecode is kept.
    import runner

    sys.exit(runner.main())
