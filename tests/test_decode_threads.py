import threading
import time

import pytest
import torch

from unialign_gen.data.decode import decoders, ordered


def test_results_come_in_order_and_few_wait():
    started: list[int] = []
    taken = 0

    def slow(i):
        started.append(i)
        time.sleep(0.02 if i % 3 == 0 else 0.001)
        return i

    with decoders(4) as pool:
        for i, result in enumerate(ordered(pool, slow, range(40), ahead=6)):
            assert result == i
            taken += 1
            assert len(started) <= taken + 6


def test_decoding_goes_on_while_a_result_is_used():
    both = threading.Barrier(2, timeout=5)
    with decoders(2) as pool:
        results = ordered(pool, lambda i: both.wait() if i == 1 else i, range(3), ahead=2)
        assert next(results) == 0
        both.wait()  # the second item waits for this, so it is being decoded now
        assert list(results)[1] == 2


def test_what_is_not_wanted_any_more_is_not_done():
    done: list[int] = []
    with decoders(1) as pool:
        results = ordered(pool, lambda i: (time.sleep(0.01), done.append(i)), range(50), ahead=20)
        next(results)
        results.close()
    assert len(done) < 10


def test_an_error_is_not_lost():
    with decoders(2) as pool, pytest.raises(ZeroDivisionError):
        list(ordered(pool, lambda i: 1 / (i - 3), range(6), ahead=2))


def test_decoding_threads_compute_on_one_core_and_others_as_before():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with decoders(3) as pool:
            assert {f.result() for f in [pool.submit(torch.get_num_threads) for _ in range(9)]} == {1}
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
