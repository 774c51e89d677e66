"""grmp_hf.evaluation.arrays: what comes out is float64, finite and of the asked shape."""

from __future__ import annotations

import numpy as np

from grmp_hf.evaluation.arrays import finite_array, paired_arrays


def test_numbers_of_any_kind_become_float64() -> None:
    for values in ([1, 2], (1.0, 2.0), np.array([1, 2], np.float16), range(1, 3)):
        array = finite_array(values, "values")
        assert array.dtype == np.float64
        assert array.tolist() == [1.0, 2.0]


def test_the_caller_keeps_its_array() -> None:
    mine = np.array([1.0, 2.0])
    x, _ = paired_arrays(mine, [3, 4])
    assert x is mine  # a view is enough: nothing here writes into its input
