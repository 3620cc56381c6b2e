"""Share of time in which a GPU waits for data, from spans of kernels and copies."""

import pytest

from benchmarks.engine_step import waiting_of_spans

KERNEL, COPY = False, True


def test_waiting_of_spans_counts_gaps_with_host_copy():
    spans = [(KERNEL, 0, 4), (KERNEL, 5, 6), (COPY, 7, 8), (KERNEL, 9, 10)]
    assert waiting_of_spans(spans) == pytest.approx(0.3)  # 6 to 9; 4 to 5 waits for something else
    assert waiting_of_spans([(KERNEL, 0, 9), (COPY, 2, 3), (KERNEL, 9, 10)]) == 0  # hidden behind a kernel
    assert waiting_of_spans([]) == 0
