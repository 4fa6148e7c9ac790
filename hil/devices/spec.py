"""What a device file contains: connection, guard, curves and points of a device."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from grid_models.base.schema_errors import problem
from hil.devices.errors import DeviceError
from hil.devices.points import DeviceFileSection, Finite, PointSpec, PollPeriod, Positive, Span


class TlsSpec(DeviceFileSection):
    """Mutual TLS (Modbus/TCP Security): both sides show a certificate."""

    ca: Path = Field(
        strict=False, description="certificates that the device's own must be signed by"
    )
    cert: Path = Field(
        strict=False, description="our certificate; its role extension says what we may do"
    )
    key: Path = Field(strict=False, description="key of our certificate")
    server_name: str | None = Field(
        None, description="name or address in the device's certificate; default the host"
    )


class SerialSpec(DeviceFileSection):
    """Settings of a serial line."""

    port: str = Field(min_length=1, description="serial port, as /dev/ttyUSB0")
    baud: int = Field(9600, ge=300, le=4_000_000, description="bits per second")
    parity: Literal["none", "even", "odd"] = "none"
    stop_bits: Literal[1, 2] = 1
    data_bits: Literal[8] = Field(8, description="RTU frames are bytes of 8 bits")


class ConnectionSpec(DeviceFileSection):
    """Address, unit id, framing, deadlines and limits of a connection."""

    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(502, ge=1, le=65535)
    unit: int = Field(1, ge=0, le=255, description="Modbus unit id")
    framing: Literal["tcp", "rtu-over-tcp", "serial"] = Field(
        "tcp", description="Modbus/TCP, RTU frames over TCP (serial gateways), or a serial line"
    )
    serial: SerialSpec | None = Field(None, description="the line of framing 'serial'")
    reply_unit: int | Literal["any"] | None = Field(
        None, description="another unit id that replies may carry, or 'any'"
    )
    timeout_s: Finite = Field(0.5, gt=0, le=60, description="deadline of one request")
    connect_timeout_s: Finite = Field(1.0, gt=0, le=60, description="deadline of a connection")
    connect_delay_s: Finite = Field(
        0.0, ge=0, le=60, description="wait between a connection and its first request"
    )
    reconnect_max_s: Finite = Field(5.0, gt=0, le=300, description="longest wait to reconnect")
    one_connection: bool = Field(False, description="the device accepts only one connection")
    close_after_poll: bool = Field(False, description="disconnect when a poll is done")
    max_registers: int = Field(125, ge=1, le=125, description="most registers of one read")
    max_gap: int = Field(
        0, ge=0, le=124, description="unwanted registers that may be read to save a request"
    )
    borders: list[int] = Field(
        [], description="addresses at which a block of the device begins: no request crosses one"
    )
    base_address: int = Field(
        0, ge=-65535, le=65535, description="added to the address of every point without 'sunspec'"
    )
    sunspec_base: int | None = Field(
        None, ge=0, le=65535, description="address of the mark 'SunS'; default 40000, 50000 or 0"
    )
    pause_s: Finite = Field(
        0.0, ge=0, le=5, description="pause between a reply and the next request"
    )
    tls: TlsSpec | None = None

    @model_validator(mode="after")
    def _framing_has_what_it_needs(self) -> ConnectionSpec:
        if (self.framing == "serial") != (self.serial is not None):
            raise problem(
                f"framing is {self.framing}, and section 'serial' is "
                f"{'there' if self.serial else 'missing'}",
                "both, as {framing: serial, serial: {port: /dev/ttyUSB0, baud: 9600}}, or none",
            )
        if self.serial is not None and (self.host, self.port) != ("127.0.0.1", 502):
            raise problem(
                f"host {self.host} and port {self.port} with framing serial", "no host and no port"
            )
        if self.tls is not None and self.framing != "tcp":
            raise problem(f"tls with framing {self.framing}", "framing tcp")
        if isinstance(self.reply_unit, int) and not 0 <= self.reply_unit <= 255:
            raise problem(f"reply_unit is {self.reply_unit}", "0 to 255, or any")
        return self

    @property
    def endpoint(self) -> str:
        """Return the address that devices behind one gateway or on one line share."""
        if self.serial is not None:
            return os.path.realpath(self.serial.port)  # also by the name of its adapter
        return f"{'127.0.0.1' if self.host == 'localhost' else self.host}:{self.port}"

    @property
    def address(self) -> str:
        """Return the endpoint and unit: one text for one device."""
        return f"{self.endpoint}, unit {self.unit}"

    @property
    def is_loopback(self) -> bool:
        """Return True where the host can only be this machine; a serial line leads elsewhere."""
        if self.serial is not None:
            return False
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def through(self, host: str, port: int) -> ConnectionSpec:
        """Return the same connection by way of a proxy; the certificate is still the device's.

        Raises DeviceError: The proxy reads Modbus/TCP, and the framing is another one.
        """
        if self.framing != "tcp":
            raise DeviceError(
                f"a man in the middle cannot read framing {self.framing}",
                where=self.endpoint,
                expected="framing tcp",
            )
        tls = self.tls
        if tls is not None:
            tls = tls.model_copy(update={"server_name": tls.server_name or self.host})
        return self.model_copy(update={"host": host, "port": port, "tls": tls})


class GuardSpec(DeviceFileSection):
    """When the device goes to its safe state by itself."""

    heartbeat_s: Finite = Field(
        2.0, ge=0.2, le=3600, description="longest silence of the federation, in seconds"
    )
    input_timeout_s: Positive | None = Field(
        None, description="longest life of a command that is not repeated; default 5 heartbeats"
    )
    readback_failures: int = Field(
        2, ge=1, le=10, description="failed read-backs of one write that latch a fault"
    )
    max_bad_s: Positive | None = Field(
        None, description="a commanded device that is bad this long goes safe; default 2 heartbeats"
    )
    heartbeat_point: str | None = Field(
        None, description="point (access 'guard') to count up once per heartbeat_s / 2"
    )
    heartbeat_range: tuple[int, int] | None = Field(
        None,
        description="lowest and highest count, [0, 1] toggles; default: what the point holds",
    )

    @property
    def input_limit_s(self) -> float:
        """Longest life of a command, in seconds."""
        return self.input_timeout_s or 5.0 * self.heartbeat_s

    @property
    def bad_limit_s(self) -> float:
        """Longest time a commanded device may be bad, in seconds."""
        return self.max_bad_s or 2.0 * self.heartbeat_s


class CurveSpec(DeviceFileSection):
    """Limits of a SunSpec curve model that may be adopted (705 to 712).

    In 711 the first coordinate is a deadband in Hz and the second a slope.
    """

    curve: int = Field(2, ge=2, le=100, description="stored curve to write; 1 is read-only")
    x: Span = Field(description="lowest and highest first coordinate")
    y: Span = Field(description="lowest and highest second coordinate")
    timeout_s: Finite = Field(5.0, gt=0, le=60, description="longest wait for the result")
    safe: list[Span] | None = Field(None, description="curve adopted in the safe state")


class DeviceSpec(DeviceFileSection):
    """A device file."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_\-]*$", description="name of the device")
    description: str = ""
    source: str = Field("", description="where the register map comes from")
    connection: ConnectionSpec = Field(default_factory=ConnectionSpec)
    poll_s: PollPeriod = Field(1.0, description="poll period")
    stale_after_s: Positive | None = Field(None, description="default 2.5 poll periods")
    bad_after_s: Positive | None = Field(None, description="default 5 poll periods")
    sunspec: list[int] = Field(default_factory=list, description="models to read whole")
    guard: GuardSpec = Field(default_factory=GuardSpec)
    points: dict[str, PointSpec] = Field(default_factory=dict)
    curves: dict[int, CurveSpec] = Field(default_factory=dict)

    @field_validator("curves", mode="before")
    @classmethod
    def _curve_keys(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {int(k) if str(k).isdigit() else k: v for k, v in value.items()}

    @property
    def has_sunspec(self) -> bool:
        """Return True where the device must be scanned for its SunSpec map."""
        return bool(self.sunspec or self.curves) or any(p.sunspec for p in self.points.values())

    def stale_limit_s(self, poll_s: float | None = None) -> float:
        """Age in seconds from which a value read every `poll_s` is stale."""
        return self.stale_after_s or 2.5 * (poll_s or self.poll_s)

    def bad_limit_s(self, poll_s: float | None = None) -> float:
        """Age in seconds from which a value read every `poll_s` is bad."""
        default = max(5.0 * (poll_s or self.poll_s), self.stale_limit_s(poll_s))
        return self.bad_after_s or default

    def at(
        self,
        *,
        name: str | None = None,
        host: str | None = None,
        port: int | None = None,
        unit: int | None = None,
    ) -> DeviceSpec:
        """Return the same device under another name or at another address; limits stay."""
        changed = {"host": host, "port": port, "unit": unit}
        connection = self.connection.model_dump() | {
            k: v for k, v in changed.items() if v is not None
        }
        data = self.model_dump() | {"connection": connection, "name": name or self.name}
        return DeviceSpec.model_validate(data)
