"""Write reference.csv with EPRI's OpenDER 2.2.0 (BSD-3): ``pip install opender==2.2.0``.

Steady states: one inverter of 10 kW and 12 kVA, category B; every case is run until it settles.
Step responses: volt-var and volt-watt after a step of voltage from 1.0, read every second.
"""

import csv
import itertools
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

from opender import DER, DER_PV, DERCommonFileFormat  # noqa: E402

MODES = {
    "volt_var": {"QV_MODE_ENABLE": "ENABLED"},
    "volt_watt": {"PV_MODE_ENABLE": "ENABLED", "CONST_PF_MODE_ENABLE": "DISABLED"},
    "both": {"QV_MODE_ENABLE": "ENABLED", "PV_MODE_ENABLE": "ENABLED"},
    "pf_absorb": {
        "CONST_PF_MODE_ENABLE": "ENABLED",
        "CONST_PF": 0.92,
        "CONST_PF_EXCITATION": "ABS",
    },
    "var_inject": {"CONST_Q_MODE_ENABLE": "ENABLED", "CONST_Q": 0.3},
    "watt_var": {"QP_MODE_ENABLE": "ENABLED"},
    "limit": {"AP_LIMIT_ENABLE": "ENABLED", "AP_LIMIT": 0.4, "QV_MODE_ENABLE": "ENABLED"},
}


def inverter(mode):
    file = DERCommonFileFormat(
        NP_P_MAX=10000,
        NP_VA_MAX=12000,
        NP_Q_MAX_INJ=5280,
        NP_Q_MAX_ABS=5280,
        NP_AC_V_NOM=240,
        NP_PHASE="SINGLE",
        NP_NORMAL_OP_CAT="CAT_B",
        NP_ABNORMAL_OP_CAT="CAT_II",
        NP_EFFICIENCY=1.0,
        NP_P_MAX_OVER_PF=10000,
        NP_P_MAX_UNDER_PF=10000,
        STATUS_INIT="ON",
        NP_V_DC=2000,
    )
    for key in (
        "CONST_PF_MODE_ENABLE",
        "CONST_Q_MODE_ENABLE",
        "QV_MODE_ENABLE",
        "QP_MODE_ENABLE",
        "PV_MODE_ENABLE",
        "AP_LIMIT_ENABLE",
        "PF_MODE_ENABLE",
    ):
        setattr(file, key, "DISABLED")
    for key, value in MODES[mode].items():
        setattr(file, key, value)
    return DER_PV(der_file_obj=file)


rows = []
for mode, v, sun in itertools.product(
    MODES, (0.89, 0.93, 0.96, 1.0, 1.03, 1.055, 1.07, 1.09), (0.3, 0.7, 1.0)
):
    DER.t_s = 1.0
    der = inverter(mode)
    for _ in range(100):
        der.update_der_input(v_pu=v, f=60.0, p_dc_kw=10.0 * sun)
        der.run()
    rows.append(["steady", mode, v, sun, 0, round(der.p_out_kw, 5), round(der.q_out_kvar, 5)])
for mode, v in (("volt_var", 1.05), ("volt_var", 0.95), ("volt_watt", 1.08)):
    DER.t_s = 0.1
    der = inverter(mode)
    for k in range(300 + 301):
        der.update_der_input(v_pu=1.0 if k < 300 else v, f=60.0, p_dc_kw=10.0)
        der.run()
        if k >= 300 and (k - 299) % 10 == 0:
            rows.append(
                [
                    "step",
                    mode,
                    v,
                    1.0,
                    (k - 299) / 10,
                    round(der.p_out_kw, 5),
                    round(der.q_out_kvar, 5),
                ]
            )
with open(Path(sys.argv[1] if len(sys.argv) > 1 else "reference.csv"), "w", newline="") as out:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["kind", "mode", "v_pu", "sun", "t_s", "p_kw", "q_kvar"])
    writer.writerows(rows)
