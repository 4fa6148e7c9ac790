"""A serial port as the transport of an asyncio protocol."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hil.devices.spec import SerialSpec

_PARITIES = {"none": "N", "even": "E", "odd": "O"}
_MOST_BYTES = 4096


class SerialTransport(asyncio.Transport):
    """Reads and writes an open port of pyserial without waiting."""

    def __init__(self, port: Any, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._port, self._protocol = port, protocol
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(port.fileno(), self._read)
        protocol.connection_made(self)

    def _read(self) -> None:
        try:  # not pyserial's own read, which cannot take the 1024th open file of a process
            data = os.read(self._port.fileno(), _MOST_BYTES)
        except BlockingIOError:
            return
        except OSError as error:  # the adapter was pulled out
            self._end(error)
            return
        if data:
            self._protocol.data_received(data)
        else:
            self._end(OSError("the serial line ended"))

    def write(self, data: Any) -> None:
        """Send a frame, which fits into the port's buffer unless the line does not take any more.

        pyserial's own write would try for ever then.
        """
        problem: OSError | None = None
        try:
            sent = os.write(self._port.fileno(), data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            sent, problem = 0, error
        if sent < len(data):
            problem = problem or OSError("the serial line takes no more bytes")
            self._loop.call_soon(self._end, problem)

    def is_closing(self) -> bool:
        """Return whether the port is closed."""
        return not self._port.is_open

    def abort(self) -> None:
        """Close the port."""
        self._end(None)

    def close(self) -> None:
        """Close the port."""
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self._port.is_open:
            self._loop.remove_reader(self._port.fileno())
            import termios  # Unix only, as the ports are

            with contextlib.suppress(OSError, termios.error):
                self._port.reset_output_buffer()  # closing waits for what is not sent yet
            self._port.close()
            self._protocol.connection_lost(error)


def open_serial(line: SerialSpec, protocol: asyncio.Protocol) -> None:
    """Open a serial port for a protocol; what is in its buffer is thrown away.

    Raises OSError: There is no such port, or another program has it.
    """
    import serial  # a run without a serial line does not need it

    port = serial.Serial(
        line.port,
        line.baud,
        bytesize=line.data_bits,
        parity=_PARITIES[line.parity],
        stopbits=line.stop_bits,
        timeout=0,
        write_timeout=0,
        exclusive=True,
    )
    port.reset_input_buffer()
    SerialTransport(port, protocol)
