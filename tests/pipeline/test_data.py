"""The data set: both forms, the fixed split, and every way in which a folder can be wrong."""

import contextlib
import gzip
import hashlib
import io
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import as_nobody, idx_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from device.idx import FileError, parse_idx
from pipeline import data
from pipeline.__main__ import main
from pipeline.files import UserError

SPLIT = {  # how many, and the SHA-256 of the images and then the labels
    "train": (55_000, "e19979547d2848db2f941fb000323a3604879e9258ff770279cd40cc7b8f2fb2"),
    "validation": (5_000, "9100eac4d0ee8691d7330e462d8f252f11409172e22699d7ee85cb826b3a1aec"),
    "test": (10_000, "c3f9adf9c66efb572b1f9326c3a511b45910c7173b97be66ceceeeeaef6b802b"),
}
IMAGES, LABELS = 24, 12  # training and test images of the sets made here
COUNTS = {"y_train": IMAGES, "y_test": LABELS}


def make_arrays(classes=3):
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (IMAGES, 28, 28), np.uint8),
        "y_train": np.arange(IMAGES, dtype=np.uint8) % classes,
        "x_test": rng.integers(0, 256, (LABELS, 28, 28), np.uint8),
        "y_test": np.arange(LABELS, dtype=np.uint8) % classes,
    }


def write_idx(folder, arrays, pack=bytes, suffix=""):
    for key, name in data.IDX_NAMES.items():
        Path(folder, f"{name}{suffix}").write_bytes(pack(idx_bytes(arrays[key])))


def write_set(folder, arrays, form):
    if form == "npz":
        np.savez(folder / "any-name.npz", **arrays)
    elif form == "gz":
        write_idx(folder, arrays, gzip.compress, ".gz")
    else:
        write_idx(folder, arrays)


@pytest.fixture
def folder(tmp_path):
    """A sound data set of four plain IDX files."""
    write_idx(tmp_path, make_arrays())
    return tmp_path


def assert_refused(folder, *parts):
    """Loading fails with one line that contains the parts."""
    with pytest.raises(UserError) as caught:
        data.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(folder), *parts):
        assert part in message


@contextlib.contextmanager
def memory_below(size_bytes):
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size_bytes
    finally:
        tracemalloc.stop()


# --- MNIST itself -----------------------------------------------------------------------------


@pytest.mark.parametrize("part", SPLIT)
def test_mnist_is_split_as_for_every_published_figure(mnist, part):
    split = getattr(mnist, part)
    digest = hashlib.sha256(split.images.tobytes() + split.labels.tobytes()).hexdigest()
    assert (len(split), digest) == SPLIT[part]
    assert mnist.label_names == tuple("0123456789")


def test_calibration_images_are_a_fixed_sample_of_the_training_split_or_all_of_it(mnist, folder):
    sample = data.calibration_images(mnist, 50)
    assert np.array_equal(sample, data.calibration_images(mnist, 50))
    assert sample.shape == (50, 32, 32, 1)
    known = set(map(bytes, mnist.train.images))
    pixels = np.rint(sample[:, 2:-2, 2:-2, 0] * 255).astype(np.uint8)
    assert len(known.intersection(map(bytes, pixels))) == 50
    assert len(data.calibration_images(data.load(folder), 1000)) == IMAGES - 2


def test_preprocessing_pads_by_two_and_divides_by_255():
    images = np.full((1, 28, 28), 255, np.uint8)
    images[0, 0, 0] = 51
    got = data.preprocess(images)
    assert got.shape == (1, 32, 32, 1)
    assert got.dtype == np.float32
    assert got[0, 2, 2, 0] == np.float32(0.2)
    assert got.sum() == pytest.approx(28 * 28 - 0.8)
    assert not got[0, :2].any()
    assert not got[0, :, -2:].any()


# --- Sound sets of the user's own --------------------------------------------------------------


@pytest.mark.parametrize("form", ["plain", "gz", "npz"])
def test_every_form_gives_the_same_data(tmp_path, form):
    arrays, folder = make_arrays(classes=4), tmp_path / "my images é"
    folder.mkdir()
    (folder / "read me.txt").write_text("notes")
    write_set(folder, arrays, form)
    got = data.load(folder)
    assert got.label_names == ("0", "1", "2", "3")
    assert np.array_equal(got.test.images, arrays["x_test"])
    assert np.array_equal(got.test.labels, arrays["y_test"])
    together = np.concatenate([got.train.labels, got.validation.labels])
    assert np.array_equal(np.sort(together), np.sort(arrays["y_train"]))


def test_other_number_types_of_whole_grey_levels_are_read(tmp_path):
    arrays = make_arrays()
    changed = {"x_train": np.float64, "y_train": np.int64, "x_test": np.uint16, "y_test": ">i4"}
    np.savez_compressed(tmp_path / "a.npz", **{k: arrays[k].astype(t) for k, t in changed.items()})
    got = data.load(tmp_path)
    assert got.train.images.dtype == got.train.labels.dtype == np.uint8
    assert np.array_equal(got.test.images, arrays["x_test"])


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"], ids=["utf-8", "with byte order mark"])
def test_labels_txt_names_the_classes(folder, prefix):
    joined = "\u0645\u06cc\u200c\u0631\u0648\u062f"  # one word, with a joiner
    text = f"Hemd\r\n{joined}\r\nStrümpfe \r\n\r\n"
    (folder / "labels.txt").write_bytes(prefix + text.encode())
    assert data.load(folder).label_names == ("Hemd", joined, "Strümpfe")


CONTROLS = ("\x1b[2JHemd", "He\tmd", "\u202eHemd", "\u200bHemd", "\x9bHemd")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        *((f"Hose\n{name}\nKleid\n".encode(), ascii(name)) for name in CONTROLS),
        (b"one\ntwo\n", "2 names for 3 classes"),
        ("Hemd\nHose\nStrümpfe\n".encode("latin-1"), "UTF-8"),
    ],
)
def test_names_that_drive_the_terminal_or_are_too_few_or_no_text_are_refused(folder, content, part):
    (folder / "labels.txt").write_bytes(content)
    assert_refused(folder, "labels.txt", part)


def test_data_stage_prints_the_split(folder, capsys):
    assert main(["data", "--data", f"{folder}/"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in printed] == ["22", "2", "12", "3"]


# --- Folders -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "part"), [("nowhere", "no such folder"), ("a file", "no such folder"), ("", "neither")]
)
def test_what_is_no_folder_of_data_is_refused(tmp_path, name, part):
    if name == "a file":
        (tmp_path / name).write_bytes(b"")
    assert_refused(tmp_path / name, part)


@pytest.mark.parametrize("stand_in", [None, "folder"])
def test_missing_file_is_named(folder, stand_in):
    path = folder / "t10k-labels-idx1-ubyte"
    path.unlink()
    if stand_in:
        path.mkdir()
    assert_refused(folder, path.name, "missing")


def test_two_archives_are_refused(tmp_path):
    for name in "ab":
        np.savez(tmp_path / name, **make_arrays())
    assert_refused(tmp_path, "2 .npz files")


@pytest.mark.parametrize("name", ["", "t10k-labels-idx1-ubyte", "labels.txt", "SHA256SUMS"])
def test_unreadable_file_is_named(name):
    with tempfile.TemporaryDirectory() as made:  # tmp_path lies below a folder closed to others
        folder = Path(made)
        write_idx(folder, make_arrays())
        (folder / "labels.txt").write_text("a\nb\nc\n")
        (folder / "SHA256SUMS").write_text("# none\n")
        folder.chmod(0o755)
        (folder / name).chmod(0)
        with as_nobody():
            assert_refused(folder, name, "ermission")
        folder.chmod(0o755)


# --- IDX files ---------------------------------------------------------------------------------

TRAIN_IMAGES = "train-images-idx3-ubyte"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda content: b"", "empty"),
        (lambda content: content[:3], "not an IDX file"),
        (lambda content: content[:9], "truncated in the IDX header"),
        (lambda content: content[:-1], "truncated"),
        (lambda content: content + b"\0", "too long"),
        (lambda content: b"\x89PNG" + content[4:], "not an IDX file"),
        (lambda content: b"\0\0\x0d" + content[3:], "IDX type 0x0d"),
        (lambda content: b"\0\0\x08\x04" + content[4:], "4 dimensions"),
        (lambda content: b"\0\0\x08\x00" + content[4:], "0 dimensions"),
        (lambda content: content[:4] + b"\xff" * 12 + content[16:], "truncated"),
        (lambda content: content[:4] + b"\0" * 4 + b"\xff" * 8, "shape"),
    ],
)
def test_damaged_idx_file_is_named(folder, change, part):
    path = folder / TRAIN_IMAGES
    path.write_bytes(change(path.read_bytes()))
    assert_refused(folder, TRAIN_IMAGES, part)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"x_train": np.zeros(IMAGES, np.uint8)}, f"training set: images of shape ({IMAGES},)"),
        ({"y_train": np.zeros(IMAGES - 1, np.uint8)}, "24 images but labels of shape (23,)"),
        ({"x_train": np.zeros((IMAGES, 32, 32), np.uint8)}, "(24, 32, 32)"),
        ({"x_test": np.zeros((0, 28, 28), np.uint8), "y_test": np.zeros(0, np.uint8)}, "empty"),
        ({k: np.zeros(n, np.uint8) for k, n in COUNTS.items()}, "all labels are 0"),
        ({"y_test": np.full(LABELS, 9, np.uint8)}, "no training image has the label 3"),
    ],
)
def test_sound_files_that_make_no_data_set_are_refused(tmp_path, changed, part):
    write_idx(tmp_path, {**make_arrays(), **changed})
    assert_refused(tmp_path, part)


# --- gzip --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda packed: b"", "empty"),
        (lambda packed: packed[:5], "damaged gzip"),
        (lambda packed: packed[: len(packed) // 2], "damaged gzip"),
        (lambda packed: packed[:-8] + b"\0" * 8, "CRC"),
        (lambda packed: b"no gzip at all", "not an IDX file"),
        (lambda packed: packed[:40] + b"\xff" * 40 + packed[80:], "damaged gzip"),
    ],
)
def test_damaged_gzip_file_is_named(tmp_path, change, part):
    write_idx(tmp_path, make_arrays(), gzip.compress, ".gz")
    path = tmp_path / f"{TRAIN_IMAGES}.gz"
    path.write_bytes(change(path.read_bytes()))
    assert_refused(tmp_path, path.name, part)


def test_gzip_bomb_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "MAX_BYTES", 2**22)
    path = tmp_path / f"{TRAIN_IMAGES}.gz"
    path.write_bytes(gzip.compress(bytes(2**26), 1))
    with memory_below(2**24):
        assert_refused(tmp_path, path.name, "larger than 4 MiB")


# --- Checksums ---------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", ["  ", " *"], ids=["text", "binary"])
@pytest.mark.parametrize("form", ["plain", "gz", "npz"])
def test_checksums_are_verified_in_both_forms_of_sha256sum(tmp_path, form, separator):
    write_set(tmp_path, make_arrays(), form)
    name = "any-name.npz" if form == "npz" else TRAIN_IMAGES  # uncompressed
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}{separator}{name}\n")
    assert_refused(tmp_path, name, "SHA-256")


# --- npz ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "change", "part"),
    [
        ("x_train", lambda a: np.where(a > 200, np.nan, a.astype(np.float32)), "NaN"),
        ("x_train", lambda a: a.astype(np.float64) * 1e300, "0..255"),
        ("x_train", lambda a: a / 255, "whole numbers"),
        ("x_train", lambda a: a.astype(np.int16) - 1, "0..255"),
        ("x_train", lambda a: a.astype(np.uint64) + 2**63, "0..255"),
        ("x_train", lambda a: a.astype(np.complex64), "not numbers"),
        ("x_train", lambda a: a.astype("U3"), "not numbers"),
        ("x_train", lambda a: a.astype(object), "never loaded"),  # pickled
        ("x_train", lambda a: a.reshape(-1, 784), "(24, 784)"),
        ("y_train", lambda a: np.eye(3)[a], "labels of shape (24, 3)"),
        ("y_train", lambda a: np.float32(1), "labels of shape ()"),
        ("y_test", lambda a: a[:0], "labels of shape (0,)"),
    ],
)
def test_unsuitable_array_is_named(tmp_path, key, change, part):
    arrays = make_arrays()
    np.savez(tmp_path / "a.npz", **{**arrays, key: change(arrays[key])})
    assert_refused(tmp_path, part)


def test_archive_without_keras_keys_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros(3))
    assert_refused(tmp_path, "a.npz", "'x_train'", "images")


def npy_header(shape):
    stream, form = io.BytesIO(), {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, form)
    return stream.getvalue()


@pytest.mark.parametrize(
    "shape", [(10**7, 28, 28), (2**40, 28, 28), (2**62, 4), (-1, 28, 28), (10**30,)]
)
def test_array_header_that_promises_too_much_allocates_nothing(tmp_path, shape):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for key in data.IDX_NAMES:
            archive.writestr(f"{key}.npy", npy_header(shape))
    with memory_below(2**22):
        assert_refused(tmp_path, "a.npz", "damaged")


def test_archive_that_would_unpack_to_more_than_the_limit_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "MAX_BYTES", 2**22)
    np.savez_compressed(tmp_path / "a.npz", **{**make_arrays(), "x_train": np.zeros(2**20)})
    with memory_below(2**21):
        assert_refused(tmp_path, "a.npz", "x_train.npy: larger than 4 MiB")


# --- Properties --------------------------------------------------------------------------------

idx_arrays = npst.arrays(np.uint8, npst.array_shapes(max_dims=3, min_side=0, max_side=6))


@given(idx_arrays)
def test_idx_reader_gives_back_every_array_and_refuses_every_strict_prefix(array):
    content = idx_bytes(array)
    got = parse_idx(content, "name")
    assert got.shape == array.shape
    assert np.array_equal(got, array)
    for length in range(len(content)):
        with pytest.raises(FileError):
            parse_idx(content[:length], "name")


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda tail: b"\0\0\x08" + tail))
def test_idx_reader_raises_nothing_but_input_errors(content):
    try:
        array = parse_idx(content, "name")
    except FileError as error:
        assert str(error).startswith("name: ")
    else:
        assert idx_bytes(array) == content


changes = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["plain", "gz", "npz"]), changes, st.integers(0, 20_000) | st.just(10**6))
def test_a_damaged_set_is_refused_in_one_line_or_loaded(tmp_path, form, changes, length):
    for path in tmp_path.iterdir():
        path.unlink()
    write_set(tmp_path, make_arrays(), form)
    path = min(tmp_path.iterdir())
    damaged = bytearray(path.read_bytes()[:length])
    for position, value in changes if damaged else ():
        damaged[position % len(damaged)] = value
    path.write_bytes(damaged)
    try:
        data.load(tmp_path)
    except UserError as error:
        assert str(error).startswith(str(tmp_path))
        assert "\n" not in str(error)
