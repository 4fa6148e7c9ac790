"""A component of OEDI-SI, written as its own are; it imports nothing of this project.

It takes its name and parameter from ``static_inputs.json`` and the topics that it reads from
``input_mapping.json``, both beside it. Ports: reads ``topology`` (Topology) and
``voltages_magnitude`` (VoltagesMagnitude), publishes ``powers_imag`` (PowersImaginary): reactive
power of every PV system, in proportion to its rating and to the voltage error at its node.

Usage:  oedisi_droop.py BROKER CORE
"""

import json
import sys
from pathlib import Path

import helics as h

broker, core = sys.argv[1:3]
here = Path(__file__).parent
config = json.loads((here / "static_inputs.json").read_text())
mapping = json.loads((here / "input_mapping.json").read_text())

info = h.helicsCreateFederateInfo()
h.helicsFederateInfoSetBroker(info, broker)
h.helicsFederateInfoSetCoreTypeFromString(info, core)
info.core_name = config["name"]
info.core_init = "--federates=1"
h.helicsFederateInfoSetTimeProperty(info, h.HELICS_PROPERTY_TIME_DELTA, 1.0)
federate = h.helicsCreateValueFederate(config["name"], info)
sub_topology = federate.register_subscription(mapping["topology"], "")
sub_voltages = federate.register_subscription(mapping["voltages_magnitude"], "")
pub_powers = federate.register_publication("powers_imag", h.HELICS_DATA_TYPE_STRING, "")

federate.enter_executing_mode()
granted = h.helicsFederateRequestTime(federate, h.HELICS_TIME_MAXTIME)
topology = sub_topology.json
base = topology["base_voltage_magnitudes"]
base_v = dict(zip(base["ids"], base["values"], strict=True))
rated = topology["injections"]["power_real"]
pv = [
    (node, equipment, kw)
    for node, equipment, kw in zip(
        rated["ids"], rated["equipment_ids"], rated["values"], strict=True
    )
    if equipment.startswith("PVSystem.")
]
while granted < h.HELICS_TIME_MAXTIME:
    voltages = sub_voltages.json
    volts = dict(zip(voltages["ids"], voltages["values"], strict=True))
    gain = config["kvar_per_kw_and_pu"]
    message = {
        "ids": [node for node, _, _ in pv],
        "equipment_ids": [equipment for _, equipment, _ in pv],
        "values": [gain * kw * (1.0 - volts[node] / base_v[node]) for node, _, kw in pv],
        "units": "kVAR",
        "time": voltages["time"],
    }
    pub_powers.publish(json.dumps(message))
    granted = h.helicsFederateRequestTime(federate, h.HELICS_TIME_MAXTIME)

h.helicsFederateDisconnect(federate)
h.helicsFederateFree(federate)
h.helicsCloseLibrary()
