"""OEDI-SI messages: what is written is read back, other readers agree, wrong ones are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federates.core.oedisi import Codec, codec_of
from federates.errors import MessageError
from grid_models.feeder.model import Bus, Der, Feeder, Source

START = np.datetime64("2017-01-01T12:00:00", "ns")
FEEDER = Feeder(
    "two",
    Source("head", 4.16),
    {"head": Bus("head", (1, 2, 3), 2.4), "end": Bus("end", (1, 3), 0.12)},
    ders=(
        Der("pv_end", "pv", "end", (1, 3), 5.0, 4.0),
        Der("storage_7", "battery", "head", (1, 2, 3), 9.0, 9.0, -9.0),
        Der("gas", "inverter", "end", (3,), 2.0, 2.0),
    ),
)
NODES = ("HEAD.1", "HEAD.2", "HEAD.3", "END.1", "END.3")


def _codec(kind: str, labels: list[str] | None = None, unit: str | None = None) -> Codec:
    feeder = None if kind == "MeasurementArray" else FEEDER
    return codec_of(kind, unit, labels, feeder, START)[2]


VOLTAGES, POWERS = _codec("VoltagesMagnitude"), _codec("PowersImaginary")


def test_voltages_are_in_volt_of_each_node() -> None:
    message = json.loads(VOLTAGES.encode(np.array([1.0, 1.02, 0.98, 1.1, 0.9]), 90 * 10**9))
    assert message["ids"] == list(NODES)
    assert message["values"] == pytest.approx([2400.0, 2448.0, 2352.0, 132.0, 108.0])
    assert message["units"] == "V"
    assert message["time"] == "2017-01-01T12:01:30.000000"


def test_powers_are_split_over_the_phases_of_their_equipment() -> None:
    message = json.loads(POWERS.encode(np.array([3.0, -6.0, 1.5]), 0))
    assert message["equipment_ids"] == ["PVSystem.pv_end"] * 2 + ["Storage.7"] * 3 + [
        "Generator.gas"
    ]
    assert message["ids"] == ["END.1", "END.3", "HEAD.1", "HEAD.2", "HEAD.3", "END.3"]
    assert message["values"] == [1.5, 1.5, -2.0, -2.0, -2.0, 1.5]
    assert message["units"] == "kVAR"


def test_angles_are_in_radians() -> None:
    codec = _codec("VoltagesAngle", ["head.1", "head.2"])
    message = json.loads(codec.encode(np.array([0.0, -120.0]), 0))
    assert (message["ids"], message["units"]) == (["HEAD.1", "HEAD.2"], "radians")
    assert message["values"] == pytest.approx([0.0, -2.0 * np.pi / 3.0])


def test_a_plain_array_keeps_labels_and_unit() -> None:
    codec = _codec("MeasurementArray", ["a", "b"], "USD/kWh")
    message = json.loads(codec.encode(np.array([0.1, 0.3]), 0))
    assert (message["ids"], message["values"], message["units"]) == (
        ["a", "b"],
        [0.1, 0.3],
        "USD/kWh",
    )


@pytest.mark.parametrize("codec", [VOLTAGES, POWERS], ids=["voltages", "powers"])
@given(data=st.data())
def test_a_message_is_read_back_in_any_order_and_case(codec: Codec, data: st.DataObject) -> None:
    numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
    vector = np.array(data.draw(st.lists(numbers, min_size=codec.n, max_size=codec.n)))
    message = json.loads(codec.encode(vector, 0))
    order = data.draw(st.permutations(range(len(codec.ids))))
    for key in {"values", "ids", "equipment_ids"} & set(message):
        message[key] = [message[key][i] for i in order]
    message["ids"] = [x.lower() if data.draw(st.booleans()) else x for x in message["ids"]]
    np.testing.assert_allclose(codec.decode(json.dumps(message), "t"), vector, rtol=1e-12)


def test_a_node_without_voltage_is_left_out() -> None:
    text = VOLTAGES.encode(np.array([1.0, np.nan, 1.0, 1.0, np.nan]), 0)
    message = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert message["ids"] == ["HEAD.1", "HEAD.3", "END.1"]
    assert len(message["values"]) == 3


def _changed(codec: Codec, **changes: object) -> str:
    return json.dumps(json.loads(codec.encode(np.ones(codec.n), 0)) | changes)


WRONG = {
    "cut off": (VOLTAGES, VOLTAGES.encode(np.ones(5), 0)[:-9], r"not JSON \(.* at character \d+\)"),
    "empty": (VOLTAGES, "", "not JSON"),
    "a number": (VOLTAGES, "1.5", "the lists 'values' and 'ids'"),
    "a list of arrays": (VOLTAGES, "[{}]", "the lists 'values' and 'ids'"),
    "no values": (VOLTAGES, '{"ids": []}', "the lists 'values' and 'ids'"),
    "text as values": (VOLTAGES, _changed(VOLTAGES, values=["x"] * 5), "5 values .*finite"),
    "NaN": (VOLTAGES, _changed(VOLTAGES, values=[1.0] * 4 + [np.nan]), "1 of 5 values"),
    "null": (VOLTAGES, _changed(VOLTAGES, values=[None] * 2 + [1.0] * 3), "2 of 5 values"),
    "infinite": (POWERS, _changed(POWERS, values=[np.inf] * 6), "6 of 6 values"),
    "nested": (VOLTAGES, _changed(VOLTAGES, values=[[1.0]] * 5), "finite numbers"),
    "kV": (VOLTAGES, _changed(VOLTAGES, units="kV"), "in 'kV'; expected 'V'"),
    "kW for kvar": (POWERS, _changed(POWERS, units="kW"), "in 'kW'; expected 'kVAR'"),
    "another id": (
        VOLTAGES,
        _changed(VOLTAGES, ids=[*NODES[:4], "END.2"]),
        r"unknown id end\.2 \(1 of 5\); expected HEAD\.1, .*did you mean",
    ),
    "an id too few": (
        VOLTAGES,
        _changed(VOLTAGES, ids=list(NODES[:4]), values=[1.0] * 4),
        r"no value for END\.3 \(1 of 5 missing\)",
    ),
    "an id twice": (
        VOLTAGES,
        _changed(VOLTAGES, ids=[*NODES, "head.1"], values=[1.0] * 6),
        "twice",
    ),
    "values too few": (VOLTAGES, _changed(VOLTAGES, values=[1.0] * 4), "4 values and 5 ids"),
    "no equipment": (POWERS, _changed(POWERS, equipment_ids=None), "6 ids and 0 equipment_ids"),
    "equipment elsewhere": (
        POWERS,
        _changed(POWERS, ids=["HEAD.1"] * 6),
        r"unknown id pvsystem\.pv_end at head\.1",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_message_is_refused_by_name(case: str) -> None:
    codec, text, words = WRONG[case]
    with pytest.raises(MessageError, match=rf"(?s)lab/topic: .*{words}"):
        codec.decode(text, "lab/topic")


def test_a_wrong_message_after_a_good_one_is_refused_too() -> None:
    good = _changed(VOLTAGES)
    for _ in range(2):
        VOLTAGES.decode(good, "t")
    for changes in ({"values": [1.0] * 4}, {"ids": [*NODES[:4], "END.2"]}, {"units": "kV"}):
        with pytest.raises(MessageError):
            VOLTAGES.decode(_changed(VOLTAGES, **changes), "t")


@pytest.mark.parametrize(
    ("kind", "labels", "unit", "words"),
    [
        ("VoltagesMagnitude", ["head.4"], None, "label 'head.4'; expected a node of the grid"),
        ("PowersReal", ["gas", "gas"], None, "a label is given twice"),
        ("PowersReal", ["pv_ent"], None, "label 'pv_ent'; .*did you mean 'pv_end'"),
        ("PowersReal", None, "kvar", "unit 'kvar' for PowersReal; expected 'kW'"),
    ],
)
def test_a_port_that_the_grid_cannot_give_is_refused(
    kind: str, labels: list[str] | None, unit: str | None, words: str
) -> None:
    with pytest.raises(MessageError, match=words):
        _codec(kind, labels, unit)


@pytest.mark.parametrize(
    "kind", ["VoltagesMagnitude", "VoltagesAngle", "PowersReal", "PowersImaginary"]
)
def test_the_types_of_oedisi_read_and_write_the_same(kind: str) -> None:
    types = pytest.importorskip("oedisi.types.data_types")
    codec = _codec(kind)
    vector = np.linspace(0.9, 1.1, codec.n)
    array = getattr(types, kind).model_validate_json(codec.encode(vector, 10**9))
    assert tuple(array.ids) == codec.ids
    assert array.units == getattr(types, kind).model_fields["units"].default
    assert array.time.isoformat() == "2017-01-01T12:00:01"
    np.testing.assert_allclose(codec.decode(array.model_dump_json(), "t"), vector, rtol=1e-12)
