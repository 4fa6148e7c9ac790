"""``python -m hil.rpi``."""

from hil.rpi.agent import main

raise SystemExit(main())
