"""The broker's process: ``python -m federates.hosts.broker``, started by the process host."""

from __future__ import annotations

import json
import os
import sys
from urllib.parse import urlsplit

from federates.hosts.helics_broker import Broker


def main() -> int:
    """Serve one federation; end when standard input does."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    url = urlsplit(order["listen"] or "tcp://127.0.0.1:0")
    try:
        broker = Broker(
            order["n"], order["core_type"], url.hostname or "127.0.0.1", url.port or 0, order["key"]
        )
    except Exception as error:
        print(json.dumps({"error": str(error)}), file=out, flush=True)
        return 3
    print(json.dumps({"address": broker.endpoint.address}), file=out, flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        if "abort" in message:
            broker.global_error(message["abort"])
        elif "ask" in message:
            print(json.dumps({"here": True}), file=out, flush=True)
    broker.close()
    return 0


if __name__ == "__main__":
    code = main()
    os._exit(code)
