"""State dicts to variables and back, bit for bit, for every variant. Nothing is computed: the reference is abstract."""

from __future__ import annotations

import numpy as np
import pytest

from flaxcnn import WeightsError, create_model, from_torch, to_torch
from tests.references import torch, torch_reference
from tests.variants import PROBES, variants_but_slow_beyond


@variants_but_slow_beyond(PROBES)
def test_round_trip(name: str) -> None:
    with torch.device("meta"):
        reference = torch_reference(name)
    random = np.random.default_rng(0)
    state_dict = {
        # Any finite half-precision numbers: VGG's are many.
        key: random.integers(0, 0x7C00, tuple(value.shape), np.uint16).view(np.float16)
        for key, value in reference.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    model = create_model(name)
    variables = from_torch(model, state_dict)
    back = to_torch(model, variables)
    assert back.keys() == state_dict.keys()
    for key, value in state_dict.items():
        assert back[key].dtype == value.dtype and back[key].tobytes() == value.tobytes(), key
    reference.load_state_dict({key: torch.from_numpy(value) for key, value in back.items()}, strict=True, assign=True)


def test_every_misfit_is_listed() -> None:
    model = create_model("lenet", num_classes=10)
    state_dict = torch_reference("lenet", 10).state_dict()
    state_dict["fc9.bias"] = state_dict.pop("fc1.bias")
    state_dict["fc2.weight"] = state_dict["fc2.weight"].T
    state_dict["conv1.num_batches_tracked"] = torch.zeros(())
    with pytest.raises(WeightsError) as error:
        from_torch(model, state_dict)
    message = str(error.value)
    assert "missing fc1.bias (is it fc9.bias?)" in message
    assert "unexpected fc9.bias" in message
    assert "fc2.weight has shape (120, 84), the model's is (84, 120)" in message
    assert "num_batches_tracked" not in message


def test_variables_share_no_memory() -> None:
    reference = torch_reference("lenet", 10)
    variables = from_torch(create_model("lenet", num_classes=10), reference.state_dict())
    before = np.array(variables["params"]["fc1"]["kernel"])
    with torch.no_grad():
        reference.fc1.weight.zero_()
    np.testing.assert_array_equal(variables["params"]["fc1"]["kernel"], before)


def test_other_channels() -> None:
    model = create_model("resnet18", num_classes=10)
    reference = torch_reference("resnet18", 10)
    reference.conv1 = torch.nn.Conv2d(1, 64, 7, bias=False)
    variables = from_torch(model, reference.state_dict(), channels=1)
    assert variables["params"]["conv1"]["kernel"].shape == (7, 7, 1, 64)
    with pytest.raises(WeightsError, match=r"conv1.weight has shape \(64, 1, 7, 7\), the model's is \(64, 3, 7, 7\)"):
        from_torch(model, reference.state_dict())
