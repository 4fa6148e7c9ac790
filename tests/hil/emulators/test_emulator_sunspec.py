"""SunSpec's own client (pysunspec2) on the emulators, plain and over mutual TLS."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sunspec2
import sunspec2.modbus.client as sunspec
from hypothesis import given
from hypothesis import strategies as st
from sunspec2.modbus.modbus import ModbusClientError, ModbusClientException

from hil.devices.errors import DeviceError
from hil.emulators.background import Background, background
from hil.emulators.grid_channel import GridChannel
from hil.emulators.inverter_nameplate import MODELS
from hil.emulators.inverter_plant import batteries, inverters
from hil.emulators.options import Clock, EmulatorOptions
from hil.emulators.sunspec_image import SunSpecImage
from hil.modbus.tls import server_context
from hil.servers.faults import Faults
from hil.servers.pdu import Refused, Table

#: The certificates SunSpec publishes for tests of Modbus/TCP Security.
PKI = Path(sunspec2.__file__).parent / "tests" / "tls_data"


class Grid:
    """The grid's end of the side channel."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.file = self.socket.makefile("rw")

    def __call__(self, **message: object) -> dict[str, Any]:
        self.file.write(json.dumps(message) + "\n")
        self.file.flush()
        answer: dict[str, Any] = json.loads(self.file.readline())
        return answer

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def grid() -> Iterator[Any]:
    opened: list[Grid] = []

    def connect(devices: Background) -> Grid:
        opened.append(Grid(devices.grid_port))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


@pytest.fixture
def client() -> Iterator[Any]:
    opened: list[Any] = []

    def connect(port: int, **options: Any) -> Any:
        device = sunspec.SunSpecModbusClientDeviceTCP(
            slave_id=1, ipaddr="127.0.0.1", ipport=port, timeout=3, **options
        )
        opened.append(device)
        device.connect()
        return device

    yield connect
    for device in opened:
        device.disconnect()


BY_GRID = EmulatorOptions(grid_port=0, time=Clock.grid, step_s=1.0)


def tls_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tls"
    folder.mkdir()
    shutil.copy(PKI / "ca" / "client_ca_chain.crt", folder / "ca.pem")
    shutil.copy(PKI / "server" / "tls1_2" / "server_valid.crt", folder / "server.pem")
    shutil.copy(PKI / "server" / "tls1_2" / "server_valid.key", folder / "server.key")
    return folder


def identity(role: str, kind: str = "tls1_2") -> dict[str, Any]:
    stem = PKI / "client" / kind / f"client_{role}"
    ca = PKI / "ca" / "server_ca_chain.crt"
    return {"tls": True, "cafile": str(ca), "certfile": f"{stem}.crt", "keyfile": f"{stem}.key"}


def adopt(device: Any) -> None:
    """Write curve 2, adopt it, check; then try one that cannot be adopted."""
    device.scan(connect=False)
    volt_var = device.models[705][0]
    curve = volt_var.Crv[1]
    curve.Pt[0].V.cvalue, curve.Pt[0].Var.cvalue = 95.0, 30.0
    volt_var.write()
    volt_var.AdptCrvReq.value, volt_var.Ena.value = 2, 1
    volt_var.write()
    volt_var.read()
    assert volt_var.AdptCrvRslt.value == 1
    assert (volt_var.Crv[0].Pt[0].V.cvalue, volt_var.Crv[0].Pt[0].Var.cvalue) == (95.0, 30.0)
    assert volt_var.Crv[0].ReadOnly.value == 1
    curve.Pt[1].V.cvalue = 94.0  # does not ascend
    volt_var.write()
    volt_var.AdptCrvReq.value = 2
    volt_var.write()
    volt_var.read()
    assert volt_var.AdptCrvRslt.value == 2
    assert volt_var.Crv[0].Pt[1].V.cvalue == 98.0


@pytest.mark.parametrize("kind", ["inverter", "battery"])
@pytest.mark.parametrize("secure", [False, True])
def test_scan_read_write_and_adopt(kind: str, secure: bool, client: Any, tmp_path: Path) -> None:
    plant = inverters(1, 10.0, 11.0) if kind == "inverter" else batteries(1, 5.0, 13.5)
    folder = str(tls_folder(tmp_path)) if secure else None
    with background(plant, EmulatorOptions(tls=folder)) as devices:
        device = client(devices.ports[0], **(identity("gridservice") if secure else {}))
        adopt(device)
        assert [m.model_id for m in device.model_list] == [model for model, _ in MODELS]
        assert [m.error_info for m in device.model_list if m.error_info] == []
        assert device.common[0].Md.value == f"Emulated {kind}"
        control = device.DERCtlAC[0]
        control.WMaxLimPct.cvalue = 33.37
        control.write()
        control.read()
        assert control.WMaxLimPct.cvalue == 33.37
        storage = device.DERStorageCapacity[0]
        assert storage.SoC.cvalue == (50.0 if kind == "battery" else None)


@pytest.mark.parametrize(("role", "kind"), [("readonly", "tls1_2"), ("no_role", "invalid")])
def test_roles_over_tls(role: str, kind: str, client: Any, tmp_path: Path) -> None:
    folder = str(tls_folder(tmp_path))
    with background(inverters(1, 10.0), EmulatorOptions(tls=folder)) as devices:
        device = client(devices.ports[0], **identity(role, kind))
        if role == "no_role":
            with pytest.raises(ModbusClientException, match=r"exception:? 1\b"):
                device.read(40000, 2)
        else:
            assert device.read(40000, 2) == b"SunS"
        with pytest.raises(ModbusClientException, match=r"exception:? 1\b"):
            device.write(40000 + 200, b"\0\1")


def test_a_client_of_another_authority_reads_nothing(client: Any, tmp_path: Path) -> None:
    folder = str(tls_folder(tmp_path))
    with background(inverters(1, 10.0), EmulatorOptions(tls=folder)) as devices:
        stranger = identity("foreign_ca", "invalid")
        assert Path(stranger["certfile"]).is_file()
        with pytest.raises((ModbusClientError, OSError)):  # TLS 1.3 tells at the first read
            client(devices.ports[0], **stranger).read(40000, 2)
        device = client(devices.ports[0], **identity("gridservice", "tls1_3"))
        assert device.read(40000, 2) == b"SunS"


def test_missing_certificates_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"no such file: .*ca\.pem"):
        server_context(tmp_path)


def test_watt_limit_reverts(client: Any, grid: Any) -> None:
    with background(inverters(1, 10.0), BY_GRID) as devices:
        feed, device = grid(devices), client(devices.ports[0])
        device.scan(connect=False)
        control, measured = device.DERCtlAC[0], device.DERMeasureAC[0]
        feed(t=1.0)
        control.WMaxLimPctRvrtTms.value, control.WMaxLimPctRvrt.cvalue = 20, 80.0
        control.WMaxLimPctEnaRvrt.value = 1
        control.write()
        control.WMaxLimPct.cvalue, control.WMaxLimPctEna.value = 30.0, 1
        control.write()
        assert feed(t=20.9)["p_kw"] == pytest.approx([3.0])
        control.read()
        assert control.WMaxLimPctRvrtRem.value == 1
        control.WMaxLimPct.cvalue = 40.0  # renewed: the timer starts anew
        control.write()
        assert feed(t=40.8)["p_kw"] == pytest.approx([4.0])
        assert feed(t=41.5)["p_kw"] == pytest.approx([8.0])
        measured.read()
        control.read()
        assert measured.W.cvalue == 8000
        assert measured.InvSt.value == 4
        assert control.WMaxLimPctRvrtRem.value == 0


def test_a_lost_heartbeat_reverts_commands_without_a_timer(client: Any, grid: Any) -> None:
    with background(inverters(1, 10.0, heartbeat_s=5.0), BY_GRID) as devices:
        feed, device = grid(devices), client(devices.ports[0])
        device.scan(connect=False)
        control, beat = device.DERCtlAC[0], device.DERCtl[0]
        control.WMaxLimPct.cvalue, control.WMaxLimPctEna.value = 30.0, 1
        control.write()
        assert feed(t=100.0)["p_kw"] == pytest.approx([3.0])  # nobody promised a heartbeat
        for t in range(101, 110):
            beat.ControllerHb.value = t
            beat.write()
            assert feed(t=t)["p_kw"] == pytest.approx([3.0])
        beat.write()  # nothing new
        device.write(beat.model_addr + beat.ControllerHb.offset, (109).to_bytes(4, "big"))
        assert feed(t=112.9)["p_kw"] == pytest.approx([3.0])
        assert feed(t=114.1)["p_kw"] == pytest.approx([10.0])
        beat.read()
        assert beat.DERHb.value == 114


def test_curve_reverts_and_function_switches_off(client: Any, grid: Any) -> None:
    with background(inverters(1, 10.0, 10.0), BY_GRID) as devices:
        feed, device = grid(devices), client(devices.ports[0])
        device.scan(connect=False)
        volt_var = device.DERVoltVar[0]
        volt_var.RvrtTms.value, volt_var.RvrtCrv.value, volt_var.Ena.value = 30, 0, 1
        volt_var.write()
        assert feed(t=29.0, v_pu=1.05)["q_kvar"] == pytest.approx([-2.2], abs=1e-3)
        volt_var.read()
        assert volt_var.RvrtRem.value == 1
        assert feed(t=31.0)["q_kvar"] == [0.0]
        volt_var.read()
        assert volt_var.Ena.value == 0


def test_trip_alarm_state_and_reset(client: Any, grid: Any) -> None:
    with background(inverters(1, 10.0), BY_GRID) as devices:
        feed, device = grid(devices), client(devices.ports[0])
        device.scan(connect=False)
        measured, service, control = (
            device.DERMeasureAC[0],
            device.DEREnterService[0],
            device.DERCtl[0],
        )
        feed(t=3.0, v_pu=1.15)
        measured.read()
        assert (measured.InvSt.value, measured.Alrm.value, measured.W.value) == (6, 1 << 10, 0)
        control.AlarmReset.value = 1
        control.write()
        feed(t=5.0, v_pu=1.0)
        measured.read()
        service.read()
        assert (measured.InvSt.value, measured.Alrm.value) == (2, 0)
        assert service.ESDlyRemTms.value == 298
        control.OpCtl.value = 0
        control.write()
        feed(t=6.0)
        measured.read()
        assert (measured.InvSt.value, measured.Alrm.value) == (0, 1 << 6)


def test_battery_charges_and_tells_its_state(client: Any, grid: Any) -> None:
    with background(batteries(1, 5.0, 10.0), BY_GRID) as devices:
        feed, device = grid(devices), client(devices.ports[0])
        device.scan(connect=False)
        control = device.DERCtlAC[0]
        control.WSet.cvalue, control.WSetEna.value = -4000, 1
        control.write()
        answer = feed(t=360.0)
        assert answer["p_kw"] == [-4.0]
        assert answer["soc_pu"] == pytest.approx([0.538])  # 5 kWh + 0.4 kWh * 0.95
        device.DERMeasureAC[0].read()
        device.DERStorageCapacity[0].read()
        assert device.DERMeasureAC[0].W.cvalue == -4000
        assert device.DERStorageCapacity[0].SoC.cvalue == 53.8


@pytest.mark.parametrize(
    ("model", "name", "words"),
    [
        (701, "W", [1]),  # read-only by its model
        (705, "Crv[1].Pt[1].V", [9000]),  # the curve in force
        (704, "PFWAbsEna", [1]),  # not implemented
        (704, "WMaxLimPctRvrtTms", [1]),  # half of 32 bits
        (704, "WMaxLimPctEna", [7]),  # no such choice
        (704, "WMaxLimPct", [10001]),  # 100.01 %
        (702, "WMax", [60000]),  # above the rating
        (704, "WSet", [0x8000, 0]),  # "not implemented" is no set-point
    ],
)
def test_refused_writes_change_nothing(model: int, name: str, words: list[int]) -> None:
    bank = inverters(1, 10.0).banks[0]
    assert isinstance(bank, SunSpecImage)
    before = list(bank.words)
    with pytest.raises(Refused):
        bank.write(Table.holding, bank.points[model, name].place.address, words)
    assert bank.words == before


def test_side_channel_refuses_what_it_cannot_use(grid: Any) -> None:
    with background(inverters(2, 10.0), EmulatorOptions(grid_port=0)) as devices:
        feed = grid(devices)
        assert "t" in feed(v_pu=[1.0, 1.01])
        for message in (
            {"v_pu": [1.0]},
            {"v_pu": float("nan")},
            {"v_pu": "1"},
            {"v_pv": 1.0},
            {"t": 5.0},  # the wall clock rules here
            {"fault": "silnt"},
            {"fault": "silent", "device": 2},
            {"fault": "silent", "v_pu": -1},
            {"fault": "silnt", "v_pu": 1.5},
        ):
            assert "expected" in feed(**message)["error"]
        assert [f.mode for f in devices.host.faults] == ["none", "none"]
        feed.file.write("[1]\n{\n")
        feed.file.flush()
        assert "error" in json.loads(feed.file.readline())
        assert "not JSON" in json.loads(feed.file.readline())["error"]
        assert "t" in feed()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(
    st.binary(max_size=40)
    | st.dictionaries(
        st.sampled_from(["t", "v_pu", "hz", "irradiance_pu", "fault", "device", "x"]), json_values
    ).map(lambda message: json.dumps(message).encode())
)
def test_no_line_breaks_the_side_channel(line: bytes) -> None:
    plant = inverters(2, 10.0)
    channel = GridChannel(plant, [Faults(), Faults()], by_grid=True, step_s=3600.0)
    answer = channel.handle(line)
    assert ("error" in answer) != ("p_kw" in answer)
    assert json.loads(json.dumps(answer, allow_nan=False))["t" if "t" in answer else "error"] != ""
    assert np.isfinite(plant.outputs()["p_kw"]).all()


def test_a_defect_of_the_physics_ends_the_process_instead_of_freezing_it() -> None:
    plant = inverters(1, 10.0)

    def fail(dt_s: float) -> None:
        raise ZeroDivisionError

    plant.advance = fail  # type: ignore[method-assign]

    def wait_for_the_end() -> None:
        with background(plant) as devices:
            for _ in range(100):
                time.sleep(0.05)
                try:
                    socket.create_connection(("127.0.0.1", devices.ports[0]), timeout=1).close()
                except OSError:
                    return
            pytest.fail("it goes on")

    with pytest.raises(ZeroDivisionError):
        wait_for_the_end()


def test_faults_come_and_go_by_the_side_channel(client: Any, grid: Any) -> None:
    with background(inverters(2, 10.0), EmulatorOptions(grid_port=0, step_s=0.02)) as devices:
        feed = grid(devices)
        devices_clients = [client(port) for port in devices.ports]
        first = devices.host.plant.banks[0]
        assert isinstance(first, SunSpecImage)
        address = first.points[715, "ControllerHb"].place.address
        devices_clients[0].write(address, b"\0\0\0\5")
        feed(fault="drift:1.0", device=0)
        time.sleep(0.2)
        measured = devices_clients[0].read(first.points[701, "LNV"].place.address, 1)
        assert int.from_bytes(measured, "big") > 2770 * 1.05
        other = devices_clients[1].read(first.points[701, "LNV"].place.address, 1)
        assert int.from_bytes(other, "big") == 2770
        feed(fault="reset", device=1)
        with pytest.raises((ModbusClientError, OSError)):
            devices_clients[1].write(address, b"\0\0\0\5")
        devices_clients[0].write(address, b"\0\0\0\6")
        assert feed(fault="none")["p_kw"] == [10.0, 10.0]  # physics did not drift


def test_trip_limits_and_droop_are_adopted(client: Any) -> None:
    plant = inverters(1, 10.0)
    with background(plant) as devices:
        device = client(devices.ports[0])
        device.scan(connect=False)
        trip = device.models[708][0]
        assert [(p.V.cvalue, p.Tms.cvalue) for p in trip.Crv[0].MustTrip.Pt] == [
            (110.0, 2.0), (120.0, 0.16),
        ]  # fmt: skip
        trip.Crv[1].MustTrip.Pt[0].V.cvalue, trip.Crv[1].MustTrip.Pt[0].Tms.cvalue = 115.0, 13.0
        trip.write()
        trip.AdptCrvReq.value = 2
        trip.write()
        trip.read()
        assert trip.AdptCrvRslt.value == 1
        relay = plant.fleet.relay
        row = relay.names.index(("over_voltage", 1))
        assert (relay.limit[row, 0], relay.clear_s[row, 0]) == pytest.approx((1.15, 13.0))
        trip.Ena.value = 0
        trip.write()
        assert np.isnan(relay.limit[[row, row - 1], 0]).all()
        droop = device.models[711][0]
        droop.Ctl[1].DbOf.cvalue, droop.Ctl[1].KOf.cvalue = 0.5, 0.03
        droop.write()
        droop.AdptCtlReq.value, droop.Ena.value = 2, 1
        droop.write()
        droop.read()
        assert droop.AdptCtlRslt.value == 1
        settings = plant.fleet.settings
        assert settings.droop_on[0]
        assert (settings.droop_over_hz[0], settings.droop_over_slope[0]) == pytest.approx(
            (0.5, 0.03)
        )
