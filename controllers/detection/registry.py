"""Detectors by name, and a user's own class by ``module:Class``."""

from __future__ import annotations

from controllers.core.named_classes import NamedClasses
from controllers.detection.protocol import Detector

DETECTORS: NamedClasses[Detector] = NamedClasses(
    what="detector",
    protocol="controllers.detection.protocol.Detector",
    methods={"__init__": "site, **options", "step": "time_s, inputs"},
    shipped={
        "power-flow-residual": (
            "controllers.detection.residual:PowerFlowResidual",
            "linear state estimation with chi-square and normalised-residual tests",
        ),
        "cusum": (
            "controllers.detection.cusum:Cusum",
            "two-sided CUSUM per signal on the error of a prediction from its past",
        ),
        "oscillation": (
            "controllers.detection.oscillation:Oscillation",
            "smoothed square of how each voltage alternates",
        ),
    },
)
descriptions = DETECTORS.descriptions
resolve = DETECTORS.resolve
