"""``python -m hil.rpi``."""

from hil.rpi.agent import main

if __name__ == "__main__":
    raise SystemExit(main())
