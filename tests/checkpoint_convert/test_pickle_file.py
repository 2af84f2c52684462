"""``.pth`` files: what torch wrote is read to the bit; what is more than tensors, or broken, is named."""

import io
import random
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from checkpoint_convert.pickle_file import PickleFile, is_pickle_file
from checkpoint_convert.restricted_pickle import read_pickle
from mammoth_jax.core.errors import InputError
from tests.published_files import (
    dictionary,
    number,
    program,
    stream_head,
    tensor,
    text,
    write_stream,
    write_zip,
)

FOLDER = Path(__file__).parents[1] / "vectors" / "loss_networks"
TENSORS = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "a.bias": np.array([0.5, -1.0], np.float16),
    "a.count": np.array(7, np.int64),
}
WRITERS = {"zip": write_zip, "stream": write_stream}


@pytest.mark.parametrize("layout", WRITERS)
def test_files_of_torch_are_read_whatever_their_layout(layout):
    file = FOLDER / f"tensors_{layout}.pth"
    source, expected = PickleFile(file), load_file(FOLDER / "tensors_expected.safetensors")
    assert is_pickle_file(file) and set(source.specs) == set(expected)
    for name, values in expected.items():
        read = source.read(name)
        assert (tuple(read.shape), read.dtype) == (source.specs[name].shape, source.specs[name].dtype)
        np.testing.assert_array_equal(read.astype(np.float32), values, err_msg=name)
    dtypes = {"whole": np.float32, "half": np.float16, "brain": ml_dtypes.bfloat16, "double": np.float64}
    assert {name: source.specs[name].dtype for name in dtypes} == {n: np.dtype(t) for n, t in dtypes.items()}


@pytest.mark.parametrize("layout", WRITERS)
def test_our_own_writer_is_read_alike(tmp_path, layout):
    source = PickleFile(WRITERS[layout](tmp_path / "x.pth", TENSORS))
    assert list(source.specs) == list(TENSORS) and source.doubled == ()
    for name, values in TENSORS.items():
        np.testing.assert_array_equal(source.read(name), values)


def test_tensors_are_read_one_at_a_time(tmp_path):
    """A storage that is damaged matters to its own tensor only."""
    file = write_zip(tmp_path / "x.pth", TENSORS)
    data = file.read_bytes()
    place = data.index(TENSORS["a.weight"].tobytes())
    file.write_bytes(data[:place] + b"\xff" + data[place + 1 :])
    source = PickleFile(file)
    np.testing.assert_array_equal(source.read("a.bias"), TENSORS["a.bias"])
    with pytest.raises(InputError, match=r"x\.pth is truncated or corrupt"):
        source.read("a.weight")


@pytest.mark.parametrize("rebuild", ["_rebuild_tensor", "_rebuild_tensor_v2"])
def test_tensors_of_older_versions_are_read(rebuild):
    found = read_pickle(io.BytesIO(dictionary({"x": np.zeros((2, 3), np.float32)}, rebuild)), "x.pth")
    assert (found["x"].shape, found["x"].strides, found["x"].storage.numel) == ((2, 3), (3, 1), 6)


def test_a_dictionary_written_as_pairs_is_read():
    """As Python 2 did."""
    pairs = b"ccollections\nOrderedDict\n]](" + text("x") + number(1) + b"ea\x85R"
    assert read_pickle(io.BytesIO(program(pairs)), "x.pth") == {"x": 1}


def test_a_view_of_a_storage_is_the_part_that_it_names(tmp_path):
    x = np.arange(10, dtype=np.float32)
    whole = write_stream(tmp_path / "x.pth", {"x": x}).read_bytes()
    place = text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
    view = b"(" + text("view") + number(4) + number(3) + b"t"
    assert whole.count(place + number(10)) == 1
    part = whole.replace(place + number(10), place + number(10) + view).replace(
        b"(" + number(10) + b"t", b"(" + number(3) + b"t"
    )
    (tmp_path / "x.pth").write_bytes(part)
    np.testing.assert_array_equal(PickleFile(tmp_path / "x.pth").read("x"), x[4:7])


HARMFUL = {
    "os.system": b"cos\nsystem\n" + text("true") + b"\x85R",
    "builtins.eval": b"cbuiltins\neval\n" + text("1") + b"\x85R",
    "posix.system": text("posix") + text("system") + b"\x93" + text("true") + b"\x85R",
    "torch.nn.modules.linear.Linear": b"ctorch.nn.modules.linear\nLinear\n)\x81",
    "a call of collections.OrderedDict": b"ccollections\nOrderedDict\n" + number(3) + b"\x85R",
    "a call of torch._utils._rebuild_tensor_v2": b"ctorch._utils\n_rebuild_tensor_v2\n)R",
    "the pickle instruction NEWOBJ": b"ccollections\nOrderedDict\n)\x81",
    "the pickle instruction EXT1": b"\x82\x01",
    "the pickle instruction PERSID": b"Pstorage\n",
    "the stored object 'storage'": text("storage") + b"Q",
    "attributes of a list": b"]}b",
    "attributes of a _Name": b"ctorch._utils\n_rebuild_tensor_v2\n}b",
}


@pytest.mark.parametrize("asked", HARMFUL)
@pytest.mark.parametrize("layout", WRITERS)
def test_a_pickle_that_asks_for_more_is_named_with_what_it_asks_for(tmp_path, layout, asked):
    pickled, file = program(HARMFUL[asked]), tmp_path / "x.pth"
    if layout == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", pickled)
    else:
        file.write_bytes(stream_head() + pickled)
    with pytest.raises(InputError) as caught:
        PickleFile(file)
    message = str(caught.value)
    assert str(file) in message and f"asks for {asked}" in message and len(message.splitlines()) == 1


def test_a_whole_module_is_refused_by_the_name_of_its_class():
    with pytest.raises(InputError, match=r"module_zip.pth asks for torch.nn.modules.linear.Linear"):
        PickleFile(FOLDER / "module_zip.pth")


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        (
            b"}(" + text("epoch") + number(3) + text("x") + b"}u",
            r"more than tensors: 'epoch' \(int\), 'x' \(dict\)",
        ),
        (b"]", "holds a list; expected a dictionary of tensors"),
        (b"}(" + text("x") + number(1) + text("x") + number(2) + b"u", "holds 'x' twice"),
    ],
)
def test_other_objects_are_refused(tmp_path, instructions, message):
    (tmp_path / "x.pth").write_bytes(stream_head() + program(instructions))
    with pytest.raises(InputError, match=message):
        PickleFile(tmp_path / "x.pth")


@pytest.mark.parametrize("layout", WRITERS)
def test_a_file_cut_anywhere_is_refused(tmp_path, layout):
    whole = WRITERS[layout](tmp_path / "whole.pth", TENSORS).read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "x.pth").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"x\.pth"):
            PickleFile(tmp_path / "x.pth")


@pytest.mark.parametrize("layout", WRITERS)
def test_a_damaged_file_is_refused_or_gives_tensors_and_never_another_error(tmp_path, layout):
    whole = WRITERS[layout](tmp_path / "whole.pth", TENSORS).read_bytes()
    rng, refused = random.Random(0), 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        (tmp_path / "x.pth").write_bytes(damaged)
        try:
            source = PickleFile(tmp_path / "x.pth")
            for name, spec in source.specs.items():
                assert source.read(name).shape == spec.shape
        except InputError as error:
            refused += 1
            assert "x.pth" in str(error)
    assert refused > 100


def sized(shape, strides, held=6):
    """A file whose only tensor has a storage of ``held`` elements."""
    push = tensor(0, np.zeros(held, np.float32))
    given = b"(" + number(held) + b"t(" + number(1) + b"t"
    assert given in push
    wanted = b"(" + b"".join(map(number, shape)) + b"t(" + b"".join(map(number, strides)) + b"t"
    items = b"}(" + text("x") + push.replace(given, wanted) + b"u"
    keys = b"](" + text("0") + b"e"
    return stream_head() + program(items) + program(keys) + struct.pack("<q", held) + bytes(4 * held)


def test_a_tensor_reaches_to_the_end_of_its_storage_and_no_further(tmp_path):
    file = tmp_path / "x.pth"
    file.write_bytes(sized((2, 2), (3, 2)))
    assert PickleFile(file).read("x").shape == (2, 2)
    for shape, strides in [
        ((2, 2), (4, 2)),
        ((7,), (1,)),
        ((2, 3), (1,)),
        ((2, -1), (1, 1)),
        ((2,), (-1,)),
        ((7,), (0,)),
    ]:
        file.write_bytes(sized(shape, strides))
        with pytest.raises(InputError, match=r"x\.pth"):
            PickleFile(file)


def test_compressed_and_missing_storages_are_refused(tmp_path):
    file = write_zip(tmp_path / "x.pth", TENSORS, zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match=r"bytes of a\.weight are missing or compressed"):
        PickleFile(file)


@pytest.mark.parametrize("start", [b"\x80\x02", b"\x80\x04"])
def test_safetensors_whose_header_length_looks_like_a_pickle_are_no_pickle(tmp_path, start):
    length = int.from_bytes(start, "little")
    (tmp_path / "x.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}".ljust(length))
    assert not is_pickle_file(tmp_path / "x.safetensors")


def test_other_files_are_refused_by_what_they_are(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("notes.txt", "no tensors")
    with pytest.raises(InputError, match=r"zip archive without torch's data\.pkl"):
        PickleFile(tmp_path / "other.zip")
    (tmp_path / "old.pth").write_bytes(bytes(257) + b"ustar" + bytes(300))
    with pytest.raises(InputError, match="oldest layout, a tar archive"):
        PickleFile(tmp_path / "old.pth")
    (tmp_path / "plain.pkl").write_bytes(program(b"}"))
    with pytest.raises(InputError, match=r"torch\.save did not write"):
        PickleFile(tmp_path / "plain.pkl")
    with pytest.raises(InputError, match=r"cannot read .*absent"):
        is_pickle_file(tmp_path / "absent.pth")
