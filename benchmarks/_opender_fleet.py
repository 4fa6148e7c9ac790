"""EPRI's OpenDER (BSD-3) in the place of the emulator's physics: ``pip install opender==2.2.0``.

The registers, the server and the side channel are the project's; what the inverter does is
OpenDER's. Settings go over before each step.
"""

from __future__ import annotations

import logging
import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hil.emulators.inverter import InverterFleet
from hil.emulators.inverter_settings import Array

_LONGEST_STEP_S = 0.1


class OpenDerFleet(InverterFleet):
    """One inverter of OpenDER with the settings of a fleet.

    Parameters
    ----------
    category : Abnormal operating performance category: I, II or III.
    """

    def __init__(self, rated_kw: float, rated_kva: float, category: str = "II") -> None:
        super().__init__([rated_kw], [rated_kva])
        # It warns of a reactive power of exactly 44 %, and of an angle that a single phase lacks.
        logging.getLogger().setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from opender import DER, DER_PV, DERCommonFileFormat  # type: ignore

            var = 1e3 * float(self.settings.var_inject_kvar[0])
            self._file: Any = DERCommonFileFormat(
                NP_P_MAX=1e3 * rated_kw, NP_VA_MAX=1e3 * rated_kva, NP_Q_MAX_INJ=var,
                NP_Q_MAX_ABS=var, NP_AC_V_NOM=240, NP_PHASE="SINGLE", NP_NORMAL_OP_CAT="CAT_B",
                NP_ABNORMAL_OP_CAT=f"CAT_{category}", NP_EFFICIENCY=1.0, STATUS_INIT="ON",
                NP_P_MAX_OVER_PF=1e3 * rated_kw, NP_P_MAX_UNDER_PF=1e3 * rated_kw, NP_V_DC=2000,
            )  # fmt: skip
            self._clock: Any = DER
            self._der: Any = DER_PV(der_file_obj=self._file)

    def step(
        self, dt_s: float, v_pu: ArrayLike = 1.0, irradiance_pu: ArrayLike = 1.0,
        hz: ArrayLike = 60.0,
    ) -> tuple[Array, Array]:  # fmt: skip
        """See `InverterFleet.step`."""
        self._take_settings()
        v, sun, f = (float(np.broadcast_to(x, (1,))[0]) for x in (v_pu, irradiance_pu, hz))
        dc_kw = min(sun, 1.0) * float(self.settings.rated_kw[0])
        n = max(1, math.ceil(dt_s / _LONGEST_STEP_S - 1e-9))
        self._clock.t_s = dt_s / n
        self._der.update_der_input(v_pu=v, f=f, p_dc_kw=dc_kw)
        for _ in range(n):
            self._der.run()
        self.v_pu, self.hz = np.array([v]), np.array([f])
        self.available_kw = np.array([dc_kw])
        self.p_kw, self.q_kvar = np.array([self._der.p_out_kw]), np.array([self._der.q_out_kvar])
        self.in_service = np.array([self._der.der_status != "Trip"])
        return self.p_kw, self.q_kvar

    def _take_settings(self) -> None:
        s = self.settings
        kva, kw = float(s.va_max_kva[0]), float(s.w_max_kw[0])
        kvar = s.var_inject_kvar if s.var_pct[0] > 0 else s.var_absorb_kvar
        bases = {0: kw, 1: float(kvar[0]), 3: kva}
        values: dict[str, Any] = {
            "CONST_PF_MODE_ENABLE": bool(s.pf_on[0]), "CONST_PF": float(s.pf[0]),
            "CONST_PF_EXCITATION": "INJ" if s.pf_sign[0] > 0 else "ABS",
            "CONST_Q_MODE_ENABLE": bool(s.var_on[0]),
            "CONST_Q": float(s.var_pct[0]) / 100 * bases[int(s.var_ref[0])] / kva,
            "AP_LIMIT_ENABLE": bool(s.limit_on[0]), "AP_LIMIT": float(s.limit_pct[0]) / 100,
            "QV_MODE_ENABLE": bool(s.volt_var_on[0]), "QV_OLRT": float(s.volt_var_response_s[0]),
            "PV_MODE_ENABLE": bool(s.volt_watt_on[0]), "PV_OLRT": float(s.volt_watt_response_s[0]),
            "QP_MODE_ENABLE": bool(s.watt_var_on[0]),
            "PF_MODE_ENABLE": bool(s.droop_on[0]), "PF_OLRT": float(s.droop_response_s[0]),
            "PF_DBOF": float(s.droop_over_hz[0]), "PF_DBUF": float(s.droop_under_hz[0]),
            "PF_KOF": float(s.droop_over_slope[0]), "PF_KUF": float(s.droop_under_slope[0]),
            "ES_DELAY": float(s.service_delay_s[0]), "ES_RAMP_RATE": float(s.service_ramp_s[0]),
        }  # fmt: skip
        values |= self._curves() | self._trips()
        for name, value in values.items():
            setattr(self._file, "_" + name, value)

    def _curves(self) -> dict[str, float]:
        s = self.settings
        values = {}
        for i in range(4):
            values[f"QV_CURVE_V{i + 1}"] = float(s.volt_var.x[0, i])
            values[f"QV_CURVE_Q{i + 1}"] = float(s.volt_var.y[0, i]) / 100
        for i in range(2):
            values[f"PV_CURVE_V{i + 1}"] = float(s.volt_watt.x[0, i])
            values[f"PV_CURVE_P{i + 1}"] = float(s.volt_watt.y[0, i]) / 100
        for i, name in enumerate(("P3_LOAD", "P2_LOAD", "P1_LOAD", "P1_GEN", "P2_GEN", "P3_GEN")):
            values[f"QP_CURVE_{name}"] = float(s.watt_var.x[0, i]) / 100
            values[f"QP_CURVE_{name.replace('P', 'Q', 1)}"] = float(s.watt_var.y[0, i]) / 100
        return values

    def _trips(self) -> dict[str, float]:
        values = {}
        for row, (kind, i) in enumerate(self.relay.names):
            of_voltage = kind.endswith("voltage")
            name = ("O" if kind.startswith("over") else "U") + ("V" if of_voltage else "F")
            values[f"{name}{2 - i}_TRIP_{'V' if of_voltage else 'F'}"] = float(
                self.relay.limit[row, 0]
            )
            values[f"{name}{2 - i}_TRIP_T"] = float(self.relay.clear_s[row, 0])
        return values
