"""Data as people have it: every form, and what is said of odd and damaged ones."""

import gzip
import shutil

import numpy as np
import pytest
from helpers import idx_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline import data
from pipeline.__main__ import main

RNG = np.random.default_rng(1)


def make_set(classes=3, train=24, test=9):
    """Images with a bright square on black, and labels: x_train, y_train, x_test, y_test."""
    arrays = {}
    for name, count in (("train", train), ("test", test)):
        x = np.zeros((count, 28, 28), np.uint8)
        x[:, 4:-4, 4:-4] = RNG.integers(0, 256, (count, 20, 20))
        x[:, 9, 9] = 255
        arrays[f"x_{name}"], arrays[f"y_{name}"] = x, (np.arange(count) % classes).astype(np.uint8)
    return arrays


def imported(source, target, *flags):
    """Import and load."""
    assert main(["import", *flags, str(source), str(target)]) == 0
    return data.load(target)


def assert_same(got, arrays):
    """The set is these arrays; training images may be in another order."""
    together = np.concatenate([got.train.images, got.validation.images])
    assert sorted(map(bytes, together)) == sorted(map(bytes, arrays["x_train"]))
    assert np.array_equal(got.test.images, arrays["x_test"])
    assert np.array_equal(got.test.labels, arrays["y_test"])


def refusal(capsys, *arguments):
    """The one line that an import is refused with."""
    assert main(["import", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pipeline: ")
    assert error.count("\n") == 1
    return error


# --- IDX ---------------------------------------------------------------------------------------


def idx_files(test="t10k", images="-images-idx3-ubyte", labels="-labels-idx1-ubyte", prefix=""):
    return [f"{prefix}{split}{kind}" for split in ("train", test) for kind in (images, labels)]


MNIST = idx_files()
EMNIST = idx_files("test", prefix="emnist-digits-")
DOTS = idx_files("t10k", "-images.idx3-ubyte", "-labels.idx1-ubyte")
IDX_FILES = {
    "hyphens": MNIST,
    "dots": DOTS,
    "emnist": EMNIST,
    "test": idx_files("test", "-images.idx", "-labels.idx"),
    "folders": [
        f"{split}/{kind}" for split in ("train", "test") for kind in ("images.idx3", "labels.idx1")
    ],
    "in folders of their names": [f"{name}/{name}" for name in MNIST],
    "downloaded twice": [f"{name} (1)" for name in MNIST],
    "capitals": [name.upper() for name in MNIST],
}


def write_files(folder, names, arrays, pack=lambda content: content, suffix=""):
    for name, array in zip(names, arrays.values(), strict=True):
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pack(idx_bytes(array)))


@pytest.mark.parametrize("names", IDX_FILES.values(), ids=IDX_FILES.keys())
def test_idx_files_of_every_name_are_read(tmp_path, names):
    arrays = make_set()
    write_files(tmp_path / "from", names, arrays, gzip.compress, ".gz")
    assert_same(imported(tmp_path / "from", tmp_path / "to"), arrays)


def test_a_link_to_a_folder_is_refused_and_no_class_is_missed(tmp_path, capsys):
    write_files(tmp_path / "elsewhere", MNIST, make_set())
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "7").symlink_to(tmp_path / "elsewhere")
    assert "7: a link to a folder" in refusal(capsys, tmp_path / "from", tmp_path / "to")


def test_what_a_browser_unpacked_under_a_gz_name_is_read(tmp_path):
    arrays = make_set()
    write_files(tmp_path / "from", MNIST, arrays, suffix=".gz")
    assert_same(imported(tmp_path / "from", tmp_path / "to"), arrays)
    assert_same(data.load(tmp_path / "from"), arrays)  # without an import as well


def test_packed_and_unpacked_twins_are_one_file(tmp_path):
    arrays = make_set()
    write_files(tmp_path, MNIST, arrays, gzip.compress, ".gz")
    write_files(tmp_path / "raw", DOTS, arrays)
    write_files(tmp_path, [f"{name} (1)" for name in MNIST], arrays)
    assert_same(imported(tmp_path, tmp_path / "to"), arrays)


def test_emnist_letters_are_numbered_from_0_named_and_turned(tmp_path, capsys):
    arrays = make_set(classes=26, train=78, test=26)
    stored = {k: v + 1 if k[0] == "y" else v.swapaxes(1, 2) for k, v in arrays.items()}
    names = [name.replace("digits", "letters") for name in EMNIST]
    write_files(tmp_path / "from", names, stored)
    (tmp_path / "from" / "emnist-balanced-train-images-idx3-ubyte").write_bytes(b"")  # another set
    letters = tmp_path / "from" / "emnist-letters"
    imported(letters, tmp_path / "as it is")
    assert "--transpose" in capsys.readouterr().out
    got = imported(letters, tmp_path / "to", "--transpose")
    assert "--transpose" not in capsys.readouterr().out
    assert_same(got, arrays)
    assert got.label_names == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def test_a_mapping_or_the_sets_name_names_the_classes(tmp_path):
    write_files(tmp_path / "from", EMNIST, make_set())
    (tmp_path / "from" / "emnist-digits-mapping.txt").write_text("0 65 97\n1 66 98\n2 67\n")
    assert imported(tmp_path / "from", tmp_path / "to").label_names == ("A", "B", "C")
    write_files(tmp_path / "fashion-mnist", MNIST, make_set(classes=10))
    clothes = imported(tmp_path / "fashion-mnist", tmp_path / "clothes")
    assert clothes.label_names[-1] == "Ankle boot"


def test_the_first_column_of_qmnist_labels_is_the_class(tmp_path):
    arrays = make_set()
    wide = {k: np.stack([v, v + 100], 1).astype(">i4") for k, v in arrays.items() if k[0] == "y"}
    names = idx_files("test", labels="-labels-idx2-int", prefix="qmnist-")
    write_files(tmp_path / "from", names, arrays)
    for name, labels in zip(names[1::2], wide.values(), strict=True):
        header = b"\0\0\x0c\x02" + np.array(labels.shape, ">u4").tobytes()
        (tmp_path / "from" / name).write_bytes(header + labels.tobytes())
    assert_same(imported(tmp_path / "from", tmp_path / "to"), arrays)


def test_two_sets_in_a_folder_are_told_apart_by_the_user(tmp_path, capsys):
    for name in ("digits", "mnist"):
        names = [file.replace("digits", name) for file in EMNIST]
        write_files(tmp_path / "from", names, make_set())
    assert "two sets" in refusal(capsys, tmp_path / "from", tmp_path / "to")


# --- Files that stand in for others ------------------------------------------------------------

STAND_INS = {
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 99\n",
    "git-annex": b"/annex/objects/SHA256E-s9912422--440f.gz\n",
    "web page": b"\n<!DOCTYPE html>\n<title>403</title>",
}


@pytest.mark.parametrize("form", ["train-images-idx3-ubyte.gz", "data.npz", "train.csv"])
@pytest.mark.parametrize("what", STAND_INS)
def test_what_stands_in_for_a_file_is_called_what_it_is(tmp_path, capsys, what, form):
    (tmp_path / form).write_bytes(STAND_INS[what])
    message = refusal(capsys, tmp_path, tmp_path / "to")
    assert what in message
    assert form in message


def test_a_git_annex_link_is_called_what_it_is_by_every_stage(tmp_path, capsys):
    write_files(tmp_path / "from", MNIST, make_set())
    link = tmp_path / "from" / MNIST[0]
    link.unlink()
    link.symlink_to("../.git/annex/objects/Jx/4M/SHA256E-s9912422--440f.gz")
    assert "git annex get" in refusal(capsys, tmp_path / "from", tmp_path / "to")
    assert main(["data", "--data", str(tmp_path / "from")]) == 2
    assert "git annex get" in capsys.readouterr().err


# --- Tables ------------------------------------------------------------------------------------


def write_csv(path, images, labels=None, header=True, last=False, delimiter=","):
    pixels = images.reshape(len(images), 28 * 28).astype(str).tolist()
    rows = [[f"pixel{i}" for i in range(28 * 28)], *pixels]
    if labels is not None:
        column = ["label", *map(str, labels)]
        rows = [[*row, c] if last else [c, *row] for row, c in zip(rows, column, strict=True)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(delimiter.join(row) for row in rows[0 if header else 1 :]) + "\n")


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize(
    "form", [{}, {"last": True}, *({"delimiter": by} for by in ";\t ")], ids=str
)
def test_tables_of_kaggle_are_read(tmp_path, form, header):
    arrays, suffix = make_set(), "tsv" if form.get("delimiter") == "\t" else "csv"
    for part in ("train", "test"):
        path = tmp_path / "from" / f"mnist_{part}.{suffix}"
        write_csv(path, arrays[f"x_{part}"], arrays[f"y_{part}"], header, **form)
    assert_same(imported(tmp_path / "from", tmp_path / "to"), arrays)


def test_labels_in_a_table_of_their_own_are_read(tmp_path):
    arrays = make_set()
    for part in ("Train", "Test"):
        images, labels = (arrays[f"{kind}_{part.lower()}"] for kind in "xy")
        write_csv(tmp_path / "from" / f"csv{part}Images.csv", images, header=False)
        np.savetxt(tmp_path / "from" / f"csv{part}Label.csv", labels, fmt="%d")
    assert_same(imported(tmp_path / "from", tmp_path / "to"), arrays)


def test_a_table_of_numpy_with_the_blank_lines_of_windows_is_read(tmp_path, capsys):
    arrays = make_set()
    for part in ("train", "test"):
        columns = [arrays[f"y_{part}"][:, None], arrays[f"x_{part}"].reshape(-1, 28 * 28)]
        path = tmp_path / "from" / f"{part}.csv"
        path.parent.mkdir(exist_ok=True)
        np.savetxt(path, np.hstack(columns), delimiter=",", newline="\r\r\n")
    got = imported(tmp_path / "from", tmp_path / "to")
    assert_same(got, arrays)
    assert got.label_names == ("0", "1", "2")
    assert not capsys.readouterr().err


def test_a_table_without_labels_is_left_out_and_test_images_are_drawn(tmp_path, capsys):
    arrays = make_set(train=63)
    write_csv(tmp_path / "from" / "train.csv", arrays["x_train"], arrays["y_train"])
    write_csv(tmp_path / "from" / "test.csv", arrays["x_test"])
    (tmp_path / "from" / "sample_submission.csv").write_text("ImageId,Label\n1,0\n")
    got = imported(tmp_path / "from", tmp_path / "to")
    said = capsys.readouterr().out
    assert "test images have no labels" in said
    assert "sample_submission.csv" in said
    assert np.bincount(got.test.labels).tolist() == [3, 3, 3]
    again = imported(tmp_path / "from", tmp_path / "again")
    assert again.sha256 == got.sha256  # drawn by a seed


# --- Arrays ------------------------------------------------------------------------------------

KEYS = [
    ("x_train", "y_train", "x_test", "y_test"),
    ("trainX", "trainY", "testX", "testY"),
    ("X_train", "Y_train", "X_val", "Y_val"),
    *(
        tuple(f"{part}_{what}" for part in (train, "test") for what in ("images", "labels"))
        for train in ("train", "training")
    ),
]
FORMS = {
    "channel last": lambda x, y: (x[..., None], y),
    "channel first": lambda x, y: (x[:, None], y),
    "colours": lambda x, y: (np.repeat(x[..., None], 3, 3), y),
    "flat": lambda x, y: (x.reshape(len(x), -1), y),
    "floats": lambda x, y: (x.astype(np.float32) / 255, y),
    "floats around 0": lambda x, y: (x / 127.5 - 1, y),
    "floats to 0.5": lambda x, y: (x / 255 - 0.5, y),
    "int8": lambda x, y: ((x.astype(np.int16) - 128).astype(np.int8), y),
    "floats to 255": lambda x, y: (x.astype(np.float64), y),
    "uint16": lambda x, y: (x.astype(np.uint16) * 257, y),
    "one-hot": lambda x, y: (x, np.eye(3)[y]),
    "a column": lambda x, y: (x, y[:, None].astype(np.int64)),
    "text": lambda x, y: (x, y.astype(str)),
    "bytes": lambda x, y: (x, y.astype("S")),
    "float labels": lambda x, y: (x, y.astype(np.float32)),
    "padded": lambda x, y: (np.pad(x, ((0, 0), (2, 2), (2, 2))), y),
}


@pytest.mark.parametrize("keys", KEYS, ids=" ".join)
def test_arrays_are_known_by_their_usual_keys(tmp_path, keys):
    arrays = make_set()
    names = {"classes": np.array(["a", "b", "c"])}
    np.savez(tmp_path / "a.npz", **dict(zip(keys, arrays.values(), strict=True)), **names)
    assert_same(imported(tmp_path / "a.npz", tmp_path / "to"), arrays)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_arrays_of_every_usual_form_are_read(tmp_path, form):
    arrays = make_set()
    train = form(arrays["x_train"], arrays["y_train"])
    test = form(arrays["x_test"], arrays["y_test"])
    np.savez(tmp_path / "a.npz", **dict(zip(arrays, (*train, *test), strict=True)))
    assert_same(imported(tmp_path, tmp_path / "to"), arrays)


def test_one_array_a_file_is_read(tmp_path):
    arrays = make_set()
    names = ("kmnist-train-imgs", "kmnist-train-labels", "kmnist-test-imgs", "kmnist-test-labels")
    for name, array in zip(names, arrays.values(), strict=True):
        np.savez(tmp_path / name, array)
    assert_same(imported(tmp_path, tmp_path / "to"), arrays)


def test_images_of_ones_and_zeros_become_black_and_white(tmp_path, capsys):
    arrays = {k: v // 128 if k[0] == "x" else v for k, v in make_set().items()}
    np.savez(tmp_path / "a.npz", **arrays)
    assert main(["data", "--data", str(tmp_path)]) == 2
    assert "make data" in capsys.readouterr().err
    assert set(np.unique(imported(tmp_path, tmp_path / "to").test.images)) == {0, 255}


def test_what_interpolation_puts_beyond_black_and_white_is_black_and_white(tmp_path):
    arrays = make_set()
    beyond = {k: v / 255 * 1.06 - 0.03 if k[0] == "x" else v for k, v in arrays.items()}
    np.savez(tmp_path / "a.npz", **beyond)
    got = imported(tmp_path / "a.npz", tmp_path / "to").test.images.astype(int)
    assert np.abs(got - arrays["x_test"]).max() < 10


def test_names_and_gaps_among_the_labels_are_kept_as_names(tmp_path):
    arrays = make_set()
    for name, labels in (("ints", [2, 5, 9]), ("words", ["cat", "dog", "eel"])):
        np.savez(tmp_path / name, x=arrays["x_train"], y=np.array(labels)[arrays["y_train"]])
        got = imported(tmp_path / f"{name}.npz", tmp_path / name)
        assert got.label_names == tuple(map(str, labels))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"y_train": np.array([0, None] * 12)}, "Python objects"),
        ({"x_test": make_set()["x_test"] / 255}, "0 to 1 and 0 to 255; give one scale"),
        ({"y_train": np.zeros(23)}, "24 images, but 23 labels"),
        ({"y_train": np.full(24, np.nan)}, "whole numbers"),
        ({"y_train": np.zeros(24), "y_test": np.zeros(9)}, "all of one class, 0"),
        ({"y_test": np.full(9, 7)}, "no training image of the class '7'"),
        ({"x_train": np.full((24, 28, 28), np.nan)}, "NaN"),
        ({"x_train": make_set()["x_train"] - 30.0}, "normalised"),
        ({"x_train": make_set()["x_train"] * 16.0}, "pixels from 0 to 4080; give"),  # 12 bits
        ({"x_train": np.zeros((24, 100, 7, 3, 2))}, "shape"),
        ({"x_train": np.zeros((24, 28, 28), "U3")}, "grey levels"),
        ({"more_train": np.zeros((24, 28, 28))}, "too many"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, capsys, change, part):
    np.savez(tmp_path / "a.npz", **{**make_set(), **change})
    assert part in refusal(capsys, tmp_path, tmp_path / "to")


# --- Pictures ----------------------------------------------------------------------------------


def draw(path, grey, size=(28, 28)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey).resize(size, Image.Resampling.NEAREST).save(path)


@pytest.mark.parametrize(
    "folders", [("train", "test"), ("Training", "Testing"), ("", None)], ids=str
)
def test_a_folder_of_pictures_per_class_is_read(tmp_path, capsys, folders):
    arrays = make_set()
    for folder, part in zip(folders, ("train", "test"), strict=True):
        for i, image in enumerate(arrays[f"x_{part}"] if folder is not None else ()):
            name = f"{'abc'[arrays[f'y_{part}'][i]]}/{i:02}.png"
            draw(tmp_path / "set" / folder / name, image)
    (tmp_path / "set" / "Thumbs.db").write_bytes(b"\0")
    (tmp_path / "set" / "classes.txt").write_text("c\nb\na\n")  # the folders' names hold
    if folders[1]:  # of no class
        draw(tmp_path / "set" / "single_prediction" / "x.png", image)
    (tmp_path / "set" / folders[0] / "a" / "damaged.png").write_bytes(b"\x89PNG")
    got = imported(tmp_path / "set", tmp_path / "to")
    said = capsys.readouterr().out
    assert "1 other files are left out, such as Thumbs.db" in said
    assert "damaged.png" in said
    assert ("1 pictures outside the classes' folders" in said) == bool(folders[1])
    assert got.label_names == ("a", "b", "c")
    if folders[1]:
        order = np.argsort(arrays["y_test"], kind="stable")
        assert np.array_equal(got.test.images, arrays["x_test"][order])
    else:
        assert len(got.test) == 3


def test_an_accent_written_by_a_mac_is_the_one_written_elsewhere(tmp_path):
    image = make_set()["x_train"][0]
    for name in ("train/e\u0301", "train/a", "test/\u00e9", "test/a"):
        for i in range(4):
            draw(tmp_path / "set" / name / f"{i}.png", image)
    assert imported(tmp_path / "set", tmp_path / "to").label_names == ("a", "\u00e9")


def test_pictures_of_other_sizes_are_scaled_whole(tmp_path, capsys):
    grey = np.zeros((28, 28), np.uint8)
    grey[:, 12:16] = 255
    forms = [(grey, (112, 112)), (grey[:, 7:21], (56, 112))]  # the second is filled up
    for i in range(12):
        draw(tmp_path / "set" / str(i % 2) / f"{i}.png", *forms[i % 2])
    draw(tmp_path / "set" / "0" / "12.png", grey)
    got = imported(tmp_path / "set", tmp_path / "to")
    assert "12 pictures scaled to 28x28, most of " in capsys.readouterr().out
    assert got.test.images.shape == (2, 28, 28)
    assert np.abs(got.test.images.astype(int) - grey).max() < 90  # a stroke's edge


# --- What is said, and what is written ---------------------------------------------------------


def test_black_on_white_is_noticed_and_turned(tmp_path, capsys):
    arrays = make_set()
    light = {k: 255 - v if k[0] == "x" else v for k, v in arrays.items()}
    np.savez(tmp_path / "a.npz", **light)
    got = imported(tmp_path / "a.npz", tmp_path / "light")
    assert "black on white" in capsys.readouterr().out
    data.warn(got)
    assert "--invert" in capsys.readouterr().err
    assert_same(imported(tmp_path / "a.npz", tmp_path / "to", "--invert"), arrays)
    assert "white on black" in capsys.readouterr().out


def test_a_set_of_both_polarities_is_not_to_be_turned_as_a_whole(tmp_path, capsys):
    arrays = make_set()
    np.savez(tmp_path / "a.npz", **{**arrays, "x_test": 255 - arrays["x_test"]})
    imported(tmp_path / "a.npz", tmp_path / "to")
    said = capsys.readouterr().out
    assert "9 of 33 images look black on white" in said
    assert "--invert" not in said


def test_the_summary_counts_classes_and_duplicates_and_the_sheet_shows_them(tmp_path, capsys):
    arrays = make_set()
    arrays["x_test"][:2] = arrays["x_train"][:2]
    np.savez(tmp_path / "a.npz", **arrays)
    imported(tmp_path / "a.npz", tmp_path / "to")
    said = capsys.readouterr().out
    assert "3 classes, 24 training and 9 test images" in said
    assert "duplicates: 2 " in said
    with Image.open(tmp_path / "to" / "samples.png") as sheet:
        assert sheet.format == "PNG"


def test_ten_classes_that_are_not_digits_are_not_taken_for_digits(mnist, tmp_path, capsys):
    assert mnist.shows_digits
    np.savez(tmp_path / "a.npz", **make_set(classes=10))
    got = data.load(tmp_path)
    assert got.label_names == tuple("0123456789")
    assert not got.shows_digits
    data.warn(got)
    assert "labels.txt" in capsys.readouterr().err


def test_a_table_of_a_header_alone_is_one_line(tmp_path, capsys):
    write_csv(tmp_path / "from" / "train.csv", np.zeros((1, 28, 28), int)[:0], [])
    assert "no row of data" in refusal(capsys, tmp_path / "from", tmp_path / "to")


def test_what_is_refused_leaves_all_as_it_was(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", **make_set(classes=2, train=3, test=2))
    assert "already" in refusal(capsys, tmp_path / "a.npz", tmp_path)
    message = refusal(capsys, tmp_path / "a.npz", tmp_path / "to")
    assert f"{tmp_path / 'a.npz'}: 3 training images are too few" in message
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("nothing", "no such file"),
        ("SET.ZIP", "unpack SET.ZIP first"),
        ("mnist.pkl.gz", "unpack"),
        ("train.parquet", "in Python: np.savez"),
        ("flat.png", "put each class into a folder"),
    ],
)
def test_other_forms_are_refused_with_what_to_do(tmp_path, capsys, name, advice):
    if name == "flat.png":
        draw(tmp_path / name, np.zeros((28, 28), np.uint8))
    elif name != "nothing":
        (tmp_path / name).write_bytes(b"PK\3\4")
    for source in [tmp_path / name] if name == "nothing" else [tmp_path / name, tmp_path]:
        assert advice in refusal(capsys, source, tmp_path / "to")


FILES = ("a.npz", "x_train.npy", "train.csv", "train-images-idx3-ubyte", "0/a.png", "1/a.npy")
STARTS = (b"", b"\x1f\x8b", b"PK\3\4", b"\x93NUMPY\1\0", b"\0\0\x08\3", b"label,a\n", b"1,2,3\n1,2")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FILES), st.sampled_from(STARTS), st.binary(max_size=80))
def test_rubbish_ends_in_one_line(tmp_path, capsys, name, start, rest):
    shutil.rmtree(tmp_path / "from", ignore_errors=True)
    path = tmp_path / "from" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(start + rest)
    refusal(capsys, tmp_path / "from", tmp_path / "to")
