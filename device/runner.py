#!/usr/bin/env python3
"""Classify handwritten digits with a LeNet-5 model on a small computer.

    python3 runner.py digit.png                 # digit.png  7  99.8 %  3.1 ms
    python3 runner.py predict --json photos/    # one JSON object a line
    rpicam-still -e png -o - | python3 runner.py -
    python3 runner.py info                      # model, runtime, versions, machine
    python3 runner.py verify                    # is this device's answer the trained model's?
    python3 runner.py accuracy t10k-images-idx3-ubyte.gz t10k-labels-idx1-ubyte.gz
    python3 runner.py bench                     # how fast is each model on each runtime here?

Needs Python 3.9, numpy and one of tflite-runtime, ai-edge-litert, onnxruntime or the compiled C
of `native/`; nothing else.
This file works when copied alone beside a model: it then reads 28x28 and 32x32 pictures (PGM,
NPY) and IDX files. With `picture.py` and `photo.py` beside it any picture of a digit will do;
`verify` and `bench` need the whole bundle.

As a library:

    classifier = Classifier("lenet5_int8.tflite")
    predictions = classifier.predict(images)    # uint8 (N, 28, 28)
    predictions.labels, predictions.probabilities

Exit codes: 0 done, 1 a check failed, 2 bad usage or bad input.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, Sequence

if __name__ == "__main__":
    # numpy's BLAS starts a thread for each core when it is imported: half of the processor time of
    # a start, for matrices that nobody multiplies.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

try:
    import numpy as np
except (ImportError, KeyboardInterrupt) as error:
    if __name__ != "__main__":
        raise
    if isinstance(error, KeyboardInterrupt):
        sys.exit(130)
    print(f"runner.py: numpy cannot be imported ({error}): pip install numpy", file=sys.stderr)
    sys.exit(2)

if TYPE_CHECKING:  # imported where it is needed, so that a program that predicts starts sooner
    import argparse

HERE = Path(__file__).resolve().parent
RUNTIMES = {  # file type -> runtimes that read it, the preferred one first
    ".tflite": ("tflite-runtime", "ai-edge-litert"),
    ".onnx": ("onnxruntime",),
    ".c": ("native",),
    ".so": ("native",),
}
MODULES = {
    "tflite-runtime": "tflite_runtime",
    "ai-edge-litert": "ai_edge_litert",
    "onnxruntime": "onnxruntime",
    "native": "lenet5_int8",
}
DEFAULT_MODELS = ("lenet5_int8.tflite", "lenet5_int8.onnx", "native/lenet5_int8.c")
SLICE = 1024  # images of a large call that are prepared at once
MAX_THREADS = 64
MAX_FILE_BYTES = 256 * 2**20  # a larger picture or IDX file is a mistake or an attack


class InputError(ValueError):
    """A file, argument or installation that cannot be used; the message says what to do."""


# --- Reading images -------------------------------------------------------------------------


def read_bytes(path: Path) -> bytes:
    """Read a whole file, decompressed when it is gzipped (`*.gz`).

    Args:
        path: The file; its bytes, once decompressed, may be at most `MAX_FILE_BYTES`.

    Returns:
        The bytes.

    Raises:
        InputError: It cannot be read, is empty, is too large, or its gzip data is damaged.
    """
    open_file: Any = open
    if path.suffix == ".gz":
        import gzip

        open_file = gzip.open
    try:
        with open_file(path, "rb") as stream:
            return read_stream(stream, str(path))
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None)
        if reason:
            raise InputError(f"{path}: cannot be read ({reason})") from None
        raise InputError(f"{path}: damaged gzip data ({error}); copy the file again") from None


def read_stream(stream: Any, name: str) -> bytes:
    """The rest of a binary stream; InputError if it is empty or larger than `MAX_FILE_BYTES`."""
    data = bytearray()
    # One read(limit) would reserve the limit at once, more than a small board has.
    while len(data) <= MAX_FILE_BYTES and (chunk := stream.read(2**20)):
        data += chunk
    if not data:
        raise InputError(f"{name}: the file is empty")
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{name}: larger than {MAX_FILE_BYTES // 2**20} MiB")
    return bytes(data)


def parse_idx(data: bytes, name: str) -> np.ndarray:
    """Parse an IDX file of unsigned bytes, the format of MNIST.

    Args:
        data: The uncompressed bytes: two zero bytes, the type code 0x08 (unsigned byte), the
            number of dimensions, each dimension as a big-endian uint32, then the elements.
        name: What to call the file in an error.

    Returns:
        A read-only uint8 array of the shape in the header.

    Raises:
        InputError: The magic number is wrong or the length differs from the header's.

    Source: "The IDX file format", http://yann.lecun.com/exdb/mnist/.
    """
    if len(data) < 4 or data[:2] != b"\0\0":
        raise InputError(f"{name}: not an IDX file (magic number {data[:4].hex()})")
    if data[2] != 0x08:
        raise InputError(f"{name}: IDX type 0x{data[2]:02x}; only unsigned bytes (0x08) are read")
    dimensions = data[3]
    if not 1 <= dimensions <= 3:
        raise InputError(f"{name}: IDX with {dimensions} dimensions; labels have 1, images 3")
    offset = 4 + 4 * dimensions
    if len(data) < offset:
        raise InputError(f"{name}: truncated in the IDX header")
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, offset, 4))
    expected = 1
    for size in shape:
        expected *= size
    if len(data) - offset != expected:
        state = "truncated" if len(data) - offset < expected else "too long"
        raise InputError(
            f"{name}: {state}: the header promises {expected} bytes of data, "
            f"there are {len(data) - offset}"
        )
    try:
        return np.frombuffer(data, np.uint8, offset=offset).reshape(shape)
    except ValueError:  # such as 0 x 4294967295 x 4294967295
        raise InputError(f"{name}: numpy has no arrays of the header's shape {shape}") from None


def is_idx(path: Path) -> bool:
    """Whether the name is that of an IDX file, such as `t10k-images-idx3-ubyte.gz`."""
    name = path.name[:-3] if path.suffix == ".gz" else path.name
    return name.endswith(("-ubyte", ".idx", ".idx1", ".idx3"))


def parse_small_picture(data: bytes, name: str) -> np.ndarray:
    """Read a picture in MNIST's form, white on black; all that works without `picture.py`.

    Args:
        data: A binary PGM (P5, 255 grey levels) or an NPY file of uint8, 28x28 or 32x32.
        name: What to call it in an error.

    Returns:
        uint8 (28, 28) or (32, 32).

    Raises:
        InputError: It is something else.
    """
    for side in (28, 32):
        pixels = data[-side * side :]
        npy = (
            data[:6] == b"\x93NUMPY" and f"'|u1', 'fortran_order': False, 'shape': ({side}, {side})"
        )
        pgm = data[:2] == b"P5" and data[: -side * side].split() == [
            b"P5",
            *(b"%d" % size for size in (side, side, 255)),
        ]
        if pgm or (npy and npy.encode() in data[: -side * side]):
            return np.frombuffer(pixels, np.uint8).reshape(side, side)
    raise InputError(
        f"{name}: not a PGM or uint8 NPY of 28x28 or 32x32; for any other picture "
        "put picture.py and photo.py beside runner.py"
    )


def one_line(text: object) -> str:
    """A text with what does not print, such as a newline in a file's name, written as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def first_line(error: BaseException) -> str:
    """The first line of an exception's message: an error is one line here."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# --- Runtimes -------------------------------------------------------------------------------
# A session is one model in one runtime. It has:
#   input_shape            (1, 32, 32, 1)
#   dtype                  of input and output: int8 or float32
#   input_quantization     (scale, zero point); the scale is 0.0 for float32
#   output_quantization    likewise
#   classes                how many
#   batch                  how many images the model takes at once
#   uses_threads           whether more than one of them can help
#   run(image)             (1, 32, 32, 1) -> (1, classes), both of dtype
#   run_batch(images)      (N, 32, 32, 1) -> (N, classes)

IMAGE_SHAPE = (1, 32, 32, 1)


class TFLiteSession:
    """One TFLite model in tflite-runtime or ai-edge-litert; for one thread at a time."""

    input_shape = IMAGE_SHAPE
    batch = 1
    uses_threads = True

    def __init__(self, path: Path, runtime: str, num_threads: int) -> None:
        if runtime == "tflite-runtime" and int(np.__version__.partition(".")[0]) > 1:
            # Its last release was built for numpy 1, without saying so; it fails in many lines.
            raise InputError(
                f"tflite-runtime does not work with numpy {np.__version__}: pip install 'numpy<2'"
            )
        module = import_runtime(runtime, ".interpreter")
        check_tflite(path, runtime)
        try:
            self._interpreter = module.Interpreter(model_path=str(path), num_threads=num_threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError, SystemError) as error:
            raise InputError(f"{path}: {runtime} refuses it: {first_line(error)}") from None
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        self.classes = check_shapes(
            path, [tuple(d["shape"]) for d in inputs], [tuple(d["shape"]) for d in outputs]
        )
        self.dtype = np.dtype(inputs[0]["dtype"])
        if self.dtype not in (np.int8, np.float32) or self.dtype != outputs[0]["dtype"]:
            raise InputError(f"{path}: input and output must both be int8 or both float32")
        self.input_quantization: tuple[float, int] = inputs[0]["quantization"]
        self.output_quantization: tuple[float, int] = outputs[0]["quantization"]
        self._input, self._output = inputs[0]["index"], outputs[0]["index"]

    def run(self, image: np.ndarray) -> np.ndarray:
        """(1, 32, 32, 1) -> (1, classes), both of `dtype`."""
        self._interpreter.set_tensor(self._input, image)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)

    def run_batch(self, images: np.ndarray) -> np.ndarray:
        """(N, 32, 32, 1) -> (N, classes): one call an image, the graph's batch being 1."""
        output = np.empty((len(images), self.classes), self.dtype)
        for i in range(len(images)):
            output[i] = self.run(images[i : i + 1])[0]
        return output


class OnnxSession:
    """One ONNX model in onnxruntime."""

    input_shape = IMAGE_SHAPE
    dtype = np.dtype(np.float32)
    input_quantization = output_quantization = (0.0, 0)
    batch = 512  # bounds the memory of a large call
    uses_threads = True

    def __init__(self, path: Path, runtime: str, num_threads: int) -> None:
        onnxruntime = import_runtime(runtime)
        check_checksum(path, read_bytes(path))
        self._path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except Exception as error:  # onnxruntime has no public base class for its errors
            raise InputError(f"{path}: {runtime} refuses it: {first_line(error)}") from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        # The batch is the first size, by whatever name; a number if it is fixed.
        shapes = [[put.shape for put in side] for side in (inputs, outputs)]
        self.classes = check_shapes(
            path, *([(1, *s[1:]) if is_dynamic(s) else s for s in side] for side in shapes)
        )
        self.batch = OnnxSession.batch if all(is_dynamic(side[0]) for side in shapes) else 1
        if inputs[0].type != "tensor(float)" or outputs[0].type != "tensor(float)":
            raise InputError(f"{path}: input and output must be float32")
        self._input, self._outputs = inputs[0].name, [outputs[0].name]
        # One image goes through arrays that are bound once: quicker than passing new ones. There
        # is one pair of them, and onnxruntime lets other threads run meanwhile.
        self._bound = threading.Lock()
        self._image = np.zeros(IMAGE_SHAPE, np.float32)
        self._row = np.zeros((1, self.classes), np.float32)
        self._binding = self._session.io_binding()
        for bind, name, array in (
            (self._binding.bind_input, self._input, self._image),
            (self._binding.bind_output, self._outputs[0], self._row),
        ):
            bind(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)

    def run(self, image: np.ndarray) -> np.ndarray:
        """(1, 32, 32, 1) -> (1, classes), float32."""
        with self._bound:
            self._image[:] = image
            try:
                self._session.run_with_iobinding(self._binding)
            except Exception as error:  # as above
                raise InputError(f"{self._path}: {first_line(error)}") from None
            return self._row.copy()

    def run_batch(self, images: np.ndarray) -> np.ndarray:
        """(N, 32, 32, 1) -> (N, classes), float32, in slices of `batch` images."""
        slices = [images[i : i + self.batch] for i in range(0, len(images), self.batch)]
        run = self._session.run
        try:
            rows = np.concatenate([run(self._outputs, {self._input: part})[0] for part in slices])
        except Exception as error:  # as above
            raise InputError(f"{self._path}: {first_line(error)}") from None
        if len(rows) != len(images):
            raise InputError(f"{self._path}: {len(rows)} answers to {len(images)} images")
        return rows


class NativeSession:
    """The generated C model, compiled as a library: device/native/binding.c."""

    input_shape = IMAGE_SHAPE
    dtype = np.dtype(np.int8)
    batch = 512  # any, in fact
    uses_threads = False

    def __init__(self, path: Path, runtime: str, num_threads: int) -> None:
        library = native_library(path) if path.suffix == ".c" else path
        module = load_native(library)
        if np.prod(IMAGE_SHAPE) != module.INPUT_BYTES:
            raise InputError(f"{path}: its input is {module.INPUT_BYTES} bytes, not {IMAGE_SHAPE}")
        self.input_quantization = (module.INPUT_SCALE, module.INPUT_ZERO_POINT)
        self.output_quantization = (module.OUTPUT_SCALE, module.OUTPUT_ZERO_POINT)
        self.classes = module.CLASSES
        self._run = module.run_int8

    def run(self, images: np.ndarray) -> np.ndarray:
        """(N, 32, 32, 1) -> (N, classes), int8, in one call."""
        output = np.empty((len(images), self.classes), np.int8)
        self._run(np.ascontiguousarray(images), output)
        return output

    run_batch = run


SESSIONS: dict[str, Any] = {
    ".tflite": TFLiteSession,
    ".onnx": OnnxSession,
    ".c": NativeSession,
    ".so": NativeSession,
}


def native_library(source: Path) -> Path:
    """Where the library lies that device/native/Makefile compiles from a C file for this Python."""
    import platform

    machine = platform.machine()
    # A 64-bit kernel can have a 32-bit system on it.
    name = {"armv7l": "armv7", "armv8l": "armv7", "aarch64": "aarch64"}.get(machine, machine)
    if name == "aarch64" and sys.maxsize < 2**32:
        name = "armv7"
    return source.parent / name / f"{source.stem}.so"


def load_native(path: Path) -> Any:
    """Load a library of device/native; that runs its code, so none but the one named is tried.

    Raises:
        InputError: It is missing, damaged, or for another machine.
    """
    from importlib.machinery import ExtensionFileLoader
    from importlib.util import module_from_spec, spec_from_file_location

    if not path.is_file():
        raise InputError(
            f"{path}: not compiled for this machine: make native; in a bundle: make -C native"
        )
    data = read_bytes(path)
    seal = zlib.crc32(data[:-8]).to_bytes(4, "little") + (len(data) - 8).to_bytes(4, "little")
    if not data.endswith(seal):
        raise InputError(f"{path}: damaged, or not made by device/native/Makefile")
    name = MODULES["native"]
    loader = ExtensionFileLoader(name, str(path.resolve()))
    try:
        module = module_from_spec(spec_from_file_location(name, loader=loader))  # type: ignore[arg-type]
        loader.exec_module(module)
    except ImportError as error:
        raise InputError(f"{path}: not for this machine ({first_line(error)})") from None
    sys.modules[name] = module
    return module


def import_runtime(runtime: str, submodule: str = "") -> Any:
    """Import a runtime's module, with a line that says what to install if it is not there."""
    try:
        return importlib.import_module(MODULES[runtime] + submodule)
    except ImportError as error:
        reason = first_line(error)
        raise InputError(f"{runtime}: not usable ({reason}): pip install {runtime}") from None


def companion(name: str) -> Any:
    """The module of that name beside this file, or None where this file was copied alone."""
    if not (HERE / f"{name}.py").is_file():
        return None
    if not __package__ and str(HERE) not in sys.path:  # as with `python -P`
        sys.path.append(str(HERE))
    try:
        return importlib.import_module(f"{__package__}.{name}" if __package__ else name)
    except SyntaxError:
        raise InputError(f"{HERE}/{name}.py: damaged; unpack the bundle again") from None


def part_of_bundle(name: str) -> Any:
    """The module of that name beside this file.

    Raises:
        InputError: It is not there.
    """
    module = companion(name)
    if module is None:
        raise InputError(f"{HERE}/{name}.py: missing; unpack the bundle again")
    return module


def is_installed(runtime: str) -> bool:
    """Whether the runtime's package can be found, without importing it."""
    from importlib.util import find_spec

    if runtime == "native":  # comes with the model
        return True
    return find_spec(MODULES[runtime]) is not None


def has_runtime(model: Path) -> bool:
    """Whether a runtime for a model is here; for C, whether it is compiled for this machine."""
    if model.suffix == ".c":
        return native_library(model).is_file()
    return any(map(is_installed, RUNTIMES.get(model.suffix, ())))


def choose_runtime(model: Path, runtime: str = "auto") -> str:
    """The runtime for a model file: the given one, or the first installed for its type.

    Raises:
        InputError: Unknown file type, a runtime that does not read it, or none installed.
    """
    suitable = RUNTIMES.get(model.suffix)
    if suitable is None:
        raise InputError(f"{model}: unknown type of model; known: {', '.join(RUNTIMES)}")
    if runtime == "auto":
        installed = [name for name in suitable if is_installed(name)]
        if not installed:
            raise InputError(f"no runtime for {model.name}: pip install {' or '.join(suitable)}")
        return installed[0]
    if runtime not in suitable:
        raise InputError(f"{model}: {runtime} does not read {model.suffix} files")
    return runtime


def is_dynamic(shape: Sequence[Any]) -> bool:
    """Whether an ONNX shape begins with a size that is given when the model is run."""
    return len(shape) > 0 and not isinstance(shape[0], int)


def check_shapes(path: Path, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """The number of classes; InputError unless one image goes in and one row comes out."""
    inputs, outputs = (
        [tuple(size if isinstance(size, str) else int(size) for size in shape) for shape in side]
        for side in (inputs, outputs)
    )
    if inputs != [IMAGE_SHAPE]:
        raise InputError(f"{path}: its input is {inputs}, not one image of {IMAGE_SHAPE}")
    if (
        len(outputs) != 1
        or len(outputs[0]) != 2
        or outputs[0][0] != 1
        or isinstance(outputs[0][1], str)
    ):
        raise InputError(f"{path}: its output is {outputs}, not one row of probabilities")
    if outputs[0][1] < 1:
        raise InputError(f"{path}: it has no classes")
    return int(outputs[0][1])


CHECKSUM_MARK = b'"crc32": "'  # in the metadata of our own files: export/seal.py


def check_checksum(path: Path, data: bytes) -> bool:
    """Whether a model states its CRC-32, in eight hexadecimal digits that are taken as zeros.

    Raises:
        InputError: It has another one.
    """
    start = data.find(CHECKSUM_MARK) + len(CHECKSUM_MARK)
    if start < len(CHECKSUM_MARK):
        return False
    actual = zlib.crc32(data[start + 8 :], zlib.crc32(b"0" * 8, zlib.crc32(data[:start])))
    if data[start : start + 8] != b"%08x" % actual:
        raise InputError(f"{path}: damaged, its checksum is wrong; copy it again")
    return True


TRIAL = """
import sys, numpy as np
from {module}.interpreter import Interpreter
i = Interpreter(sys.argv[1]); i.allocate_tensors(); d = i.get_input_details()[0]
i.set_tensor(d['index'], np.zeros(d['shape'], d['dtype'])); i.invoke()
"""


def check_tflite(path: Path, runtime: str) -> None:
    """Refuse a damaged TFLite file before a runtime crashes on it.

    tflite-runtime 2.14 reads outside a truncated or altered file and dies of it. Our own files
    carry a checksum; any other is first tried in a process of its own.

    Raises:
        InputError: The file is no TFLite model, or is damaged.
    """
    data = read_bytes(path)
    if data[4:8] != b"TFL3":
        raise InputError(f"{path}: not a TFLite model")
    if check_checksum(path, data):
        return
    import subprocess

    command = [sys.executable, "-c", TRIAL.format(module=MODULES[runtime]), str(path)]
    child = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if child.returncode < 0:
        raise InputError(f"{path}: damaged: {runtime} crashes on it")
    # Not tried again: where an exception came once, the next load may crash.
    if child.returncode > 0:
        said = (child.stderr.strip().splitlines() or ["it failed"])[-1]
        raise InputError(f"{path}: {runtime} refuses it: {said}")


# --- The classifier -------------------------------------------------------------------------


class Predictions:
    """The outputs for N images, dequantized when they are looked at.

    Attributes:
        raw: (N, classes) as the model gave them, int8 or float32.
    """

    __slots__ = ("_scale", "_zero_point", "raw")

    def __init__(self, raw: np.ndarray, scale: float, zero_point: int) -> None:
        self.raw = raw
        self._scale = scale
        self._zero_point = zero_point

    @property
    def probabilities(self) -> np.ndarray:
        """float32 (N, classes), 0..1, each row summing to 1.

        A quantized row is scale * (raw - zero point), divided by its sum: int8 ends at 255/256,
        so that without it the surest answer would be 99.6 %.
        """
        if self._scale == 0.0:
            return self.raw
        values = (self.raw.astype(np.float32) - self._zero_point) * np.float32(self._scale)
        return values / np.maximum(values.sum(axis=1, keepdims=True), np.float32(self._scale))

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,), the most probable class; of equal ones the lowest."""
        return self.raw.argmax(axis=1)


class Classifier:
    """A model in a runtime: images in, labels and probabilities out.

    For one thread at a time: TFLite's interpreters hold what they are working on. Threads take a
    classifier each.

    Args:
        model: A `.tflite` or `.onnx` file; or the generated `.c`, compiled, or the library itself
            (`.so`). To load a library runs its code.
        runtime: "tflite-runtime", "ai-edge-litert", "onnxruntime", "native" or "auto".
        num_threads: How many threads the runtime may use. One is fastest for a model this small.

    Raises:
        InputError: The model is missing, damaged or not of our shape, or there is no runtime.
    """

    def __init__(
        self, model: str | os.PathLike[str], runtime: str = "auto", num_threads: int = 1
    ) -> None:
        self.model = Path(model)
        if not self.model.is_file():
            raise InputError(f"{self.model}: no such model")
        self.runtime = choose_runtime(self.model, runtime)
        self.session: Any = SESSIONS[self.model.suffix](self.model, self.runtime, num_threads)
        self.classes = self.session.classes
        self._run = self.session.run
        self._dtype = self.session.dtype
        self._shape = self.session.input_shape
        self._scale, self._zero_point = self.session.output_quantization
        # Every grey level as the model wants it: preprocessing and quantizing are one look-up.
        levels = np.arange(256, dtype=np.float32) / np.float32(255)
        self._levels = quantize(levels, *self.session.input_quantization)

    def predict(self, images: np.ndarray) -> Predictions:
        """Classify images.

        Args:
            images: uint8 (N, 28, 28) or (N, 32, 32), 0..255, white ink on black; or float
                (N, 28, 28) or (N, 32, 32), 0..1; or, ready-made and checked no further, the
                model's own input: (1, 32, 32, 1) of its dtype (int8: quantized by `prepare`).

        Returns:
            The predictions for the N images.

        Raises:
            InputError: Another shape or dtype, or values that are not finite or not in 0..1.
        """
        try:
            ready = images.dtype == self._dtype and images.shape == self._shape
        except AttributeError:
            raise InputError(f"images must be a numpy array, not {type(images).__name__}") from None
        if ready:
            return Predictions(self._run(images), self._scale, self._zero_point)
        # In slices, so that a whole data set takes little more memory than its answers.
        count = len(images) if images.ndim == 3 else 0
        slices = [images[i : i + SLICE] for i in range(0, count, SLICE)] or [images]
        raw = [self.session.run_batch(self.prepare(part)) for part in slices]
        return Predictions(np.concatenate(raw), self._scale, self._zero_point)

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """Scale to 0..1, pad 28x28 to 32x32 with black, and quantize.

        Args:
            images: As for `predict`.

        Returns:
            (N, 32, 32, 1) of the model's dtype.

        Raises:
            InputError: As for `predict`.
        """
        images = np.asarray(images)
        if images.ndim != 3 or images.shape[1:] not in ((28, 28), (32, 32)) or not len(images):
            raise InputError(f"images of shape {images.shape}, not (N, 28, 28) or (N, 32, 32)")
        if images.dtype == np.uint8:
            values = self._levels[images]
        elif images.dtype.kind == "f":
            if not (images.min() >= 0.0 and images.max() <= 1.0):  # NaN fails this as well
                raise InputError("float images must be finite and within 0..1")
            values = quantize(images.astype(np.float32), *self.session.input_quantization)
        else:
            raise InputError(f"images of type {images.dtype}, not uint8 or float")
        if images.shape[1] == 28:
            padded = np.empty((len(values), 32, 32), values.dtype)  # np.pad takes six times as long
            padded.fill(self._levels[0])
            padded[:, 2:30, 2:30] = values
            values = padded
        return values[..., np.newaxis]  # (N, 32, 32) -> (N, 32, 32, 1)


def quantize(values: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """Map float32 values to int8: clip(round(x / scale) + zero point, -128, 127).

    Rounding is half to even. Without it (a plain cast) 0.2 % of MNIST's predictions change.

    Args:
        values: float32, any shape.
        scale: The size of one step; 0.0 means that the tensor is not quantized.
        zero_point: The int8 value of 0.0, -128..127.

    Returns:
        int8 of the same shape, or `values` as they are when scale is 0.0.

    Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018, section 2.1.
    """
    if scale == 0.0:
        return values
    steps = np.rint(values / np.float32(scale)) + zero_point
    return np.clip(steps, -128, 127).astype(np.int8)


# --- The manifest of a bundle ---------------------------------------------------------------


def bundle_folder(model: Path) -> Path:
    """The folder whose manifest tells of a model: native code lies in a folder of the bundle's."""
    parents = list(model.resolve().parents)
    return next((p.parent for p in parents[:2] if p.name == "native"), parents[0])


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The bundle's manifest.json, or None when the folder has none.

    Raises:
        InputError: It is not JSON of the schema that this runner knows.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        return None
    import json

    try:
        manifest = json.loads(read_bytes(path))
        version = manifest["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged; unpack the bundle again") from None
    if version != 1:
        raise InputError(f"{path}: schema version {version!r}; this runner knows version 1")
    if not isinstance(manifest.get("files"), dict) or not isinstance(manifest.get("models"), dict):
        raise InputError(f"{path}: damaged; unpack the bundle again")
    return manifest  # type: ignore[no-any-return]


def label_names(folder: Path, classes: int) -> list[str]:
    """The names of the classes: the manifest's, or 0, 1, 2..."""
    manifest = read_manifest(folder)
    names = manifest.get("labels") if manifest else None
    if not isinstance(names, list) or len(names) != classes:
        return [str(label) for label in range(classes)]
    return [str(name) for name in names]


def default_model(runtime: str) -> Path:
    """The model beside this file that an installed (or the given) runtime reads.

    Raises:
        InputError: None is there, or no runtime for any of them.
    """
    present = [HERE / name for name in DEFAULT_MODELS if (HERE / name).is_file()]
    present += sorted(path for path in HERE.iterdir() if path.suffix in RUNTIMES)
    if not present:
        raise InputError(f"no model beside {Path(__file__).name}: name one with --model")
    for path in present:
        if runtime in RUNTIMES[path.suffix] or (runtime == "auto" and has_runtime(path)):
            return path
    if runtime != "auto":
        raise InputError(f"no model for {runtime} in {HERE}: name one with --model")
    packages = RUNTIMES[next((p.suffix for p in present if p.suffix != ".c"), ".tflite")]
    raise InputError(f"no runtime for {present[0].name}: pip install {' or '.join(packages)}")


# --- Commands -------------------------------------------------------------------------------

Sample = tuple[str, Any]  # a name, and its image (uint8, 28x28 or 32x32) or its InputError


def read_samples(names: Sequence[str]) -> Iterator[Sample]:
    """The images of files, folders (their files, sorted) and '-' (standard input)."""
    for name in names:
        path = Path(name)
        try:
            if name == "-":
                if sys.stdin is None:
                    raise InputError("-: standard input is closed")
                yield name, read_picture(read_stream(sys.stdin.buffer, name), name)
            elif path.is_dir():
                files = sorted(str(p) for p in path.iterdir() if p.is_file() and p.name[0] != ".")
                if not files:
                    raise InputError(f"{name}: the folder has no files")
                yield from read_samples(files)
            elif is_idx(path):
                images = parse_idx(read_bytes(path), name)
                if images.ndim != 3 or images.shape[1:] not in ((28, 28), (32, 32)):
                    raise InputError(f"{name}: shape {images.shape}, not images of 28x28")
                if not len(images):
                    raise InputError(f"{name}: it holds no images")
                for i, image in enumerate(images):
                    yield f"{name}[{i}]", image
            else:
                yield name, read_picture(read_bytes(path), name)
        except InputError as error:
            yield name, error
        except OSError as error:  # a folder that may not be looked into, a name that cannot be
            yield name, InputError(f"{name}: cannot be read ({error.strerror})")


def read_picture(data: bytes, name: str) -> np.ndarray:
    """Any picture of a digit -> uint8 (28, 28) or (32, 32), white ink on black."""
    picture, photo = companion("picture"), companion("photo")
    if picture is None or photo is None:
        return parse_small_picture(data, name)
    try:
        return photo.find_digit(picture.decode_image(data, name))
    except picture.PictureError as error:
        raise InputError(str(error)) from None
    except photo.PhotoError as error:
        raise InputError(f"{name}: {error}") from None


def command_predict(args: argparse.Namespace) -> int:
    """Print a line a picture; go on after a bad one."""
    import json

    classifier = Classifier(args.model, args.runtime, args.threads)
    names = label_names(bundle_folder(classifier.model), classifier.classes)
    code = 0
    for name, image in read_samples(args.files):
        try:
            if isinstance(image, InputError):
                raise image
            if image.min() == image.max():
                raise InputError(f"{name}: no digit found, the picture is empty")
            start = time.perf_counter()
            probabilities = classifier.predict(image[np.newaxis]).probabilities[0]
            latency_ms = (time.perf_counter() - start) * 1e3
            if not np.isfinite(probabilities).all():
                raise InputError(f"{name}: {args.model} answers with what is no number")
        except InputError as error:
            code = 2
            print(f"runner.py: {one_line(error)}", file=sys.stderr)
            row: dict[str, Any] = {"file": name, "error": str(error)}
        else:
            order = np.argsort(-probabilities, kind="stable")[: args.top_k]
            top = [{"label": names[k], "probability": float(probabilities[k])} for k in order]
            row = {"file": name, **top[0], "top": top, "latency_ms": round(latency_ms, 4)}
            if top[0]["probability"] < args.min_confidence:
                row["unsure"] = True
        if args.json:
            print(json.dumps(row), flush=True)
        elif "top" in row:
            guesses = "  ".join(f"{g['label']}  {g['probability'] * 100:.1f} %" for g in row["top"])
            answer = f"unsure ({guesses})" if "unsure" in row else guesses
            print(f"{one_line(name)}  {answer}  {row['latency_ms']:.1f} ms", flush=True)
    return code


def command_info(args: argparse.Namespace) -> int:
    """Print the model, runtime, versions and machine."""
    import platform

    classifier = Classifier(args.model, args.runtime, args.threads)
    session = classifier.session
    scale, zero_point = session.input_quantization
    manifest = read_manifest(bundle_folder(classifier.model)) or {}
    rows = {
        "model": f"{classifier.model.name} ({classifier.model.stat().st_size} bytes)",
        "bundle": f"{manifest.get('name', 'none')} {manifest.get('version', '')}".strip(),
        "input": f"{session.dtype} {session.input_shape}"
        + (f", scale {scale:.9g}, zero point {zero_point}" if scale else ", 0..1"),
        "classes": " ".join(label_names(bundle_folder(classifier.model), classifier.classes)),
        "runtime": f"{classifier.runtime} {runtime_version(classifier.runtime)}",
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": f"{board_name()} ({platform.machine()}, {os.cpu_count()} cores)",
        "system": platform.platform(),
    }
    for key, value in rows.items():
        print(f"{key:8} {value}")
    return 0


def runtime_version(runtime: str) -> str:
    """The installed version of a runtime; of a loaded native library, its instruction set."""
    from importlib.metadata import PackageNotFoundError, version

    if runtime == "native":
        return str(sys.modules[MODULES[runtime]].kernels())
    try:
        return version(runtime)
    except PackageNotFoundError:  # the module came by another name, such as onnxruntime-gpu
        return str(getattr(importlib.import_module(MODULES[runtime]), "__version__", "unknown"))


def board_name() -> str:
    """The board's name as the device tree gives it, such as 'Raspberry Pi 4 Model B Rev 1.5'."""
    import platform

    try:
        return Path("/proc/device-tree/model").read_text("utf-8").strip("\0\n ")
    except OSError:
        return platform.node()


def command_accuracy(args: argparse.Namespace) -> int:
    """Classify a whole labelled set and print the accuracy."""
    images = parse_idx(read_bytes(args.images), str(args.images))
    labels = parse_idx(read_bytes(args.labels), str(args.labels))
    if labels.ndim != 1 or len(labels) != len(images):
        raise InputError(f"{args.labels}: {labels.shape} labels for {len(images)} images")
    if images.shape[1:] not in ((28, 28), (32, 32)) or not len(images):
        raise InputError(f"{args.images}: shape {images.shape}, not images of 28x28")
    classifier = Classifier(args.model, args.runtime, args.threads)
    if labels.max() >= classifier.classes:
        raise InputError(
            f"{args.labels}: label {labels.max()}, and the model has {classifier.classes} classes"
        )
    start = time.perf_counter()
    predicted = classifier.predict(images).labels
    seconds = time.perf_counter() - start
    correct = int((predicted == labels).sum())
    print(
        f"{classifier.model.name} on {classifier.runtime}: {correct} of {len(labels)} correct, "
        f"{correct / len(labels):.2%}, {seconds / len(labels) * 1e6:.1f} us an image"
    )
    return 0


def command_of_bundle(args: argparse.Namespace) -> int:
    """`verify` and `bench`, which are files of the bundle."""
    module = companion(f"{args.command}_command")
    if module is None:
        raise InputError(f"{HERE}: {args.command} works in an unpacked bundle; this is none")
    # This module, for as a program its name is not `runner`: imported again it would be another.
    return int(module.run(sys.modules[__name__], args))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    import argparse

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-m", "--model", type=Path, help="default: the one beside runner.py")
    common.add_argument("--runtime", default="auto", choices=["auto", *MODULES])
    common.add_argument("--threads", type=threads, default=1, help="default: 1, the fastest")
    parser = argparse.ArgumentParser(
        prog="runner.py",
        description="Classify handwritten digits with a LeNet-5 model.",
        epilog="`runner.py FILE...` is short for `runner.py predict FILE...`.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    predict = commands.add_parser("predict", parents=[common], help="classify pictures")
    predict.add_argument("files", nargs="+", metavar="FILE", help="picture, IDX, folder, or -")
    predict.add_argument("-k", "--top-k", type=positive, default=1, metavar="K")
    predict.add_argument("--json", action="store_true", help="one JSON object a line")
    predict.add_argument(
        "--min-confidence",
        type=share,
        default=0.0,
        metavar="P",
        help="answer 'unsure' below this probability (the manifest has one); default: 0",
    )
    predict.set_defaults(run=command_predict)
    info = commands.add_parser("info", parents=[common], help="model, runtime, machine")
    info.set_defaults(run=command_info)
    verify = commands.add_parser("verify", parents=[common], help="check this device's answers")
    verify.add_argument("--all", action="store_true", help="every model of the bundle")
    verify.set_defaults(run=command_of_bundle)
    accuracy = commands.add_parser("accuracy", parents=[common], help="accuracy on a labelled set")
    accuracy.add_argument("images", type=Path, help="IDX file, .gz or not")
    accuracy.add_argument("labels", type=Path, help="IDX file, .gz or not")
    accuracy.set_defaults(run=command_accuracy)
    bench = commands.add_parser("bench", help="how fast is each model here")
    bench.add_argument("-m", "--model", type=Path, default=HERE, help="or a folder of models")
    bench.add_argument("--runtime", default="auto", choices=["auto", *MODULES], help="auto: all")
    bench.add_argument("--full", action="store_true", help="three times the calls")
    bench.add_argument("--json", action="store_true", help="print all figures as JSON")
    bench.set_defaults(run=command_of_bundle)
    return parser


def positive(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    import argparse

    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def threads(text: str) -> int:
    """An argparse type: more threads than this crash a runtime, or keep it from ever answering."""
    import argparse

    value = positive(text)
    if value > MAX_THREADS:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_THREADS}")
    return value


def share(text: str) -> float:
    """An argparse type: a number within 0..1."""
    import argparse

    value = float(text)
    if not 0 <= value <= 1:  # NaN fails as well
        raise argparse.ArgumentTypeError("must be within 0 and 1")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = ("predict", "info", "verify", "accuracy", "bench", "-h", "--help")
    if arguments and arguments[0] not in commands:
        arguments.insert(0, "predict")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show
    args = build_parser().parse_args(arguments)
    try:
        if args.model is None:
            args.model = default_model(args.runtime)
        code: int = args.run(args)
        print(end="", flush=True)
        return code
    except InputError as error:
        print(f"runner.py: {one_line(error)}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output, such as `head`, is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk is reported without a name
        print(f"runner.py: {error.filename or 'the output'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
