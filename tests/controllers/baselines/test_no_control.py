from __future__ import annotations

import numpy as np
import pytest

from controllers.baselines.no_control import NoControl
from controllers.core.compliance import check_controller
from controllers.core.errors import ControllerError
from controllers.core.mail import Mail
from controllers.core.sample_site import sample_site


def test_publishes_zero_for_every_hosted_agent() -> None:
    agents = NoControl(sample_site(), ["pv_b4", "pv_b1"])
    v = np.full(len(agents.inputs[0].labels), np.nan)
    q = agents.step(0.0, {"v_pu": v}, Mail.empty()).outputs["q_set_kvar"]
    assert agents.outputs[0].labels == ("pv_b4", "pv_b1")
    np.testing.assert_array_equal(q, [0.0, 0.0])


def test_has_no_options() -> None:
    with pytest.raises(ControllerError, match="unknown option 'gain'"):
        NoControl(sample_site(), ["pv_b1"], gain=1.0)


def test_compliance() -> None:
    check_controller(NoControl)
