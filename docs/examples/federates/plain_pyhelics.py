"""A program that is not ours: plain pyhelics, no import of this project.

It reads the topic ``feeder/v_pu`` and writes the topic ``lab/q_set_kvar``, one vector each. The
scenario declares both under an external federate; what is written here must agree with it.

Usage:  plain_pyhelics.py BROKER CORE N_SET_POINTS GAIN_KVAR_PER_PU
"""

import sys

import helics as h
import numpy as np

broker, core, n_set_points, gain = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
PERIOD_S, OFFSET_S, END_S = 60.0, 30.0, 1800.0

info = h.helicsCreateFederateInfo()
h.helicsFederateInfoSetCoreTypeFromString(info, core)
h.helicsFederateInfoSetBroker(info, broker)  # the address, as the scenario's {broker} gives it
# Wait for a broker that is not there yet, and take messages of more than 4096 bytes.
h.helicsFederateInfoSetCoreInitString(info, "--networktimeout=60s --maxsize=1048576")
# A value must not wake this federate between its own steps.
h.helicsFederateInfoSetFlagOption(info, h.HELICS_FLAG_UNINTERRUPTIBLE, True)
h.helicsFederateInfoSetTimeProperty(info, h.HELICS_PROPERTY_TIME_PERIOD, PERIOD_S)
h.helicsFederateInfoSetTimeProperty(info, h.HELICS_PROPERTY_TIME_OFFSET, OFFSET_S)
federate = h.helicsCreateValueFederate("lab", info)
voltages = h.helicsFederateRegisterSubscription(federate, "feeder/v_pu", "")
set_points = h.helicsFederateRegisterGlobalPublication(
    federate, "lab/q_set_kvar", h.HELICS_DATA_TYPE_VECTOR, "kvar"
)

h.helicsFederateEnterExecutingMode(federate)
time_s = OFFSET_S
while time_s < END_S:
    h.helicsFederateRequestTime(federate, time_s)
    v_pu = np.array(h.helicsInputGetVector(voltages))
    error_pu = 1.0 - v_pu[v_pu > 0.0].mean()
    h.helicsPublicationPublishVector(set_points, [gain * error_pu] * n_set_points)
    time_s += PERIOD_S
h.helicsFederateDisconnect(federate)
h.helicsCloseLibrary()
