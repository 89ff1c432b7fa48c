"""A flag that ranks share; what they do with it together is in `test_distributed.py`."""

import pytest
import torch

from segkc_deploy.training.shared_flag import SharedFlag

SENT = [False, True, False, False, True]


def test_an_answer_is_that_of_the_call_before() -> None:
    flag = SharedFlag(torch.device("cpu"))
    assert [flag.exchange(value) for value in SENT] == [False, *SENT[:-1]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
def test_on_a_gpu_the_host_waits_for_nothing_else() -> None:
    flag = SharedFlag(torch.device("cuda"))
    try:
        torch.cuda.set_sync_debug_mode("error")
        answers = [flag.exchange(value) for value in SENT]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert answers == [False, *SENT[:-1]]
