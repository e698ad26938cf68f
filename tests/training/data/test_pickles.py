from __future__ import annotations

import os
import pickle
import struct
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyconv_search.errors import UserError
from pyconv_search.training.data.files import Blob
from pyconv_search.training.data.pickles import load_batch as load_batch_of


def blob(data: bytes) -> Blob:
    return Blob("folder/data_batch_1", data)


def load_batch(blob: Blob) -> dict:
    return load_batch_of(blob, 100)


def python2(make) -> bytes:
    labels, images = make.cifar10_files()["data_batch_1"]
    return make.python2_pickle(labels, images, "labels")


def test_agrees_with_the_unrestricted_unpickler(make):
    data = python2(make)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy.core is the old name of numpy._core
        expected = pickle.loads(data, encoding="bytes")
    batch = load_batch(blob(data))
    np.testing.assert_array_equal(batch["data"], expected[b"data"])
    assert batch["data"].dtype == np.uint8
    assert batch["labels"] == expected[b"labels"]
    assert batch["batch_label"] == b"some batch"


class Hostile:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("function", [os.system, os.popen, eval, exec, __import__, getattr, pickle.loads])
def test_hostile_pickles_are_refused_and_not_run(tmp_path, protocol, function):
    marker = tmp_path / "was-run"
    argument = f"open({str(marker)!r}, 'w')" if function in (eval, exec) else f"touch {marker}"
    data = pickle.dumps({b"data": [1, Hostile(function, argument)]}, protocol)
    with pytest.raises(UserError, match=r"data_batch_1: is refused and was not run: this pickle calls \S+\.\w+, "):
        load_batch(blob(data))
    assert not marker.exists()


def test_the_hostile_pickle_would_run_where_it_is_not_refused(tmp_path):
    marker = tmp_path / "was-run"
    pickle.loads(pickle.dumps({b"data": Hostile(os.system, f"touch {marker}")}, 2))
    assert marker.exists()


@pytest.mark.parametrize(
    "name", [b"numpy\nndarray.tofile", b"numpy\nload", b"numpy.core.multiarray\nfromfile", b"numpy\nsave"]
)
def test_other_names_of_numpy_are_refused(name):
    with pytest.raises(UserError, match="is refused and was not run: this pickle calls numpy"):
        load_batch(blob(b"\x80\x02c" + name + b"\n."))


@pytest.mark.parametrize("name", [b"numpy\ndtype", b"numpy.core.multiarray\n_reconstruct", b"_codecs\nencode"])
def test_a_pickle_cannot_spoil_the_next_one(name):
    """BUILD with a slot state sets attributes on whatever a name stands for; the next pickle must not see them."""
    named = b"\x80\x02}(U\x04datac" + name + b"\n"
    spoilt = load_batch(blob(named + b"N}X\x06\0\0\0spoiltK\x01s\x86bu."))["data"]
    assert spoilt.spoilt == 1
    assert not hasattr(load_batch(blob(named + b"u."))["data"], "spoilt")


def test_the_array_class_cannot_be_changed():
    with pytest.raises(UserError, match="not a readable pickle"):
        load_batch(blob(b"\x80\x02}(U\x04datacnumpy\nndarray\nN}X\x06\0\0\0spoiltK\x01s\x86bu."))


def test_an_array_that_claims_more_bytes_than_it_has(make):
    data = python2(make)
    shape = b"K\x0aM\x00\x0c\x86"
    assert data.count(shape) == 1
    for claimed in (
        b"K\x0bM\x00\x0c\x86",
        b"J" + struct.pack("<i", 2**31 - 1) + b"M\x00\x0c\x86",
        b"K\x0aM\x00\x0c\x85",
    ):
        with pytest.raises(UserError, match="not a readable pickle"):
            load_batch(blob(data.replace(shape, claimed)))


def test_every_cut_is_noticed(make):
    data = python2(make)
    for length in [*range(200), *range(200, len(data), 997), len(data) - 1]:
        with pytest.raises(UserError, match="folder/data_batch_1: "):
            load_batch(blob(data[:length]))


@given(st.binary(max_size=60))
def test_noise_is_told_and_never_crashes(noise):
    with pytest.raises(UserError):
        load_batch(blob(b"\x80\x02" + noise.replace(b"}", b"").replace(b"d", b"")))


def doubled(depth: int) -> bytes:
    """Steps that leave on the stack a tuple of twice the tuple before, so many deep: hashing it takes 2**depth."""
    return b"K\x07" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(depth))


@pytest.mark.parametrize(
    "steps",
    [
        b"}" + doubled(40) + b"K\x01s.",
        b"}(" + doubled(40) + b"K\x01u.",
        b"(" + doubled(40) + b"K\x01d.",
        b"}(U\x04dataK\x01" + doubled(40) + b"K\x01u.",
        # Inside of a value, and as the state of something that is built.
        b"}U\x04data}" + doubled(40) + b"K\x01ss.",
        b"cnumpy\ndtype\n}" + doubled(40) + b"K\x01sb.",
    ],
)
def test_keys_that_would_hash_for_ever_are_refused(steps):
    with pytest.raises(UserError, match=r"not a readable pickle of a CIFAR batch .a key that is no text"):
        load_batch(blob(b"\x80\x02" + steps))


def test_the_doubled_tuple_is_what_it_says():
    assert pickle.loads(b"\x80\x02" + doubled(2) + b".") == ((7, 7), (7, 7))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (b"]" + b"N0" * 20_000 + b".", "more steps than so many images need"),
        (b"N" * 20_000 + b".", "more steps than so many images need"),
        (b"\x8f.", "step 0x8f is of no use"),  # a set, whose members would be hashed
        (b"\x96" + struct.pack("<Q", 2**62) + b".", "step 0x96 is of no use"),  # a bytearray of any length
        (b"U\x01aq\x00c_codecs\nencode\n(h\x00h\x00tR.", "TypeError|not a dictionary|has no attribute"),
        (b"K\x01r" + struct.pack("<I", 2**31) + b".", "a int, not a dictionary"),
    ],
)
def test_steps_without_end_and_memory_for_nothing_are_refused(steps, message):
    with pytest.raises(UserError, match=message):
        load_batch(blob(b"\x80\x02" + steps))


def test_a_text_is_not_encoded_again_and_again():
    text = b"X" + struct.pack("<I", 10_000) + b"a" * 10_000
    once = b"c_codecs\nencode\n(h\x00X\x06\0\0\0latin1tR"
    start = b"\x80\x02" + text + b"q\x000}U\x01a"
    assert load_batch(blob(start + once + b"s."))["a"] == b"a" * 10_000
    with pytest.raises(UserError, match="encodes the same text again and again"):
        load_batch(blob(start + (once + b"0") * 5 + once + b"s."))


def test_messages_are_short(make):
    for hostile in (b"cnumpy\n" + b"x" * 900_000 + b"\n.", b"c" + b"x" * 900_000 + b"\nload\n."):
        with pytest.raises(UserError) as caught:
            load_batch(blob(b"\x80\x02" + hostile))
        assert len(str(caught.value)) < 500
