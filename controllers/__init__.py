"""Distributed control algorithms as agents: measurements and mail in, set-points and mail out.

Pure: no HELICS, no files, no clocks, no OpenDSS. The protocol a controller implements is
``controllers.core.protocol.Controller``.
"""
