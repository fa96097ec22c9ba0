import numpy as np

from boltax.checkpoint._differences import Difference, compare, table
from boltax.checkpoint._structure import structure_of, walk


def tree(**arrays):
    return structure_of({"params": arrays})


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def differences(saved, wanted):
    return compare(dict(walk(saved)), dict(walk(wanted)))


def test_equal_structures_do_not_differ():
    assert differences(tree(w=zeros(3), b=None), tree(b=None, w=zeros(3))) == []


def test_each_kind_of_difference_is_told():
    saved = tree(same=zeros(1), old=zeros(2), s=zeros(3, 4), d=zeros(3), both=zeros(1), k=zeros(2))
    wanted = tree(
        same=zeros(1),
        new=zeros(5),
        s=zeros(3, 5),
        d=zeros(3, dtype=np.float16),
        both=zeros(2, dtype=np.int32),
        k={"in": zeros(2)},
    )
    kinds = {d.names[-1]: d.kind for d in differences(saved, wanted)}
    assert kinds == {
        "new": "missing",
        "s": "shape",
        "d": "dtype",
        "both": "shape, dtype",
        "in": "missing",
        "k": "unexpected",
        "old": "unexpected",
    }


def test_an_array_in_place_of_a_container_is_told():
    assert differences([], "float32[3]")[0].kind == "kind"
    assert differences(structure_of([zeros(1)]), structure_of((zeros(1),)))[0] == Difference(
        "kind", (), "list", "tuple"
    )
    assert differences(tree(w=None), tree(w=zeros(2)))[0].kind == "kind"


def test_the_table_is_aligned_and_readable():
    found = differences(tree(w=zeros(3, 4), old=zeros(2)), tree(w=zeros(3, 5)))
    assert table(found).splitlines() == [
        "              array       saved          model",
        "  shape       params/w    float32[3, 4]  float32[3, 5]",
        "  unexpected  params/old  float32[2]     -",
    ]


def test_a_long_table_is_cut():
    many = differences(tree(), tree(**{f"w{i}": zeros(1) for i in range(100)}))
    lines = table(many).splitlines()
    assert len(lines) == 42
    assert lines[-1] == "  ... and 61 more"
