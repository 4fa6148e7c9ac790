"""The compliance test passes good controllers and names what is wrong with bad ones."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from controllers.core.compliance import ComplianceError, check_controller, examine_controller, main
from controllers.core.errors import ControllerError
from controllers.core.mail import FloatArray, LatestMail, Link, Mail
from controllers.core.ports import Port
from controllers.core.protocol import ControllerStep, ControlSite
from controllers.core.sample_site import sample_site


class Good:
    """Each agent tells its voltage to the next one and acts on the mean of the two."""

    unit = "kvar"
    scale = 100.0

    def __init__(self, site: ControlSite, hosted: Sequence[str]) -> None:
        names = self.agents(site)
        place = [names.index(name) for name in hosted]
        self.hosted = tuple(hosted)
        ders = [site.ders[i] for i in place]
        self.inputs: tuple[Port, ...] = (
            Port("v_pu", "pu", tuple(dict.fromkeys(d.labels[0] for d in ders)), initial=1.0),
        )
        self.gather = [self.inputs[0].labels.index(d.labels[0]) for d in ders]
        self.outputs: tuple[Port, ...] = (Port("q_set_kvar", self.unit, self.hosted),)
        nexts = [names[(i + 1) % len(names)] for i in place]
        self.links_in = tuple(Link(names[i - 1], names[i], "v") for i in place)
        self.links_out = tuple(Link(n, m, "v") for n, m in zip(hosted, nexts, strict=True))
        self.heard = LatestMail(self.links_in, initial=1.0)
        self.v = np.ones(len(self.inputs[0].labels))
        self.round = 0

    @classmethod
    def agents(cls, site: ControlSite) -> tuple[str, ...]:
        return tuple(der.name for der in site.ders)

    def measure(self, v: FloatArray) -> FloatArray:
        self.v = np.where(np.isfinite(v), v, self.v)
        return self.v[self.gather]

    def tell(self, v: FloatArray) -> FloatArray:
        return v

    def decide(self, v: FloatArray) -> FloatArray:
        return self.scale * (1.0 - 0.5 * (v + self.heard.values))

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        self.heard.absorb(mail)
        v = self.measure(inputs["v_pu"])
        self.round += 1
        told = Mail(np.arange(v.size), np.full(v.size, self.round), np.array(self.tell(v)))
        return ControllerStep({"q_set_kvar": self.decide(v)}, told)


class AcceptsAnything(Good):
    def __init__(self, site: ControlSite, hosted: Sequence[str], **options: Any) -> None:
        super().__init__(site, hosted)


class WrongUnit(Good):
    unit = "kW"


class SeesTheOthers(Good):
    def decide(self, v: FloatArray) -> FloatArray:
        return np.full(v.size, float(v.mean()))


class PassesNan(Good):
    def measure(self, v: FloatArray) -> FloatArray:
        return v[self.gather]


class TooMuch(Good):
    scale = 1e4


class Counts(Good):
    """Adds up what arrives: increments, so a repeated message changes the result."""

    total = 0.0

    def step(self, time_s: float, inputs: Mapping[str, FloatArray], mail: Mail) -> ControllerStep:
        self.total += mail.values.sum()
        done = super().step(time_s, inputs, mail)
        return ControllerStep({"q_set_kvar": done.outputs["q_set_kvar"] + self.total}, done.mail)


class Random(Good):
    calls = itertools.count()

    def decide(self, v: FloatArray) -> FloatArray:
        return np.full(v.size, float(next(self.calls) % 50))


class Scribbles(Good):
    def measure(self, v: FloatArray) -> FloatArray:
        v[:] = 1.0
        return v[self.gather]


class Reuses(Good):
    def decide(self, v: FloatArray) -> FloatArray:
        if not hasattr(self, "kept"):
            self.kept = np.zeros(v.size)
        self.kept += v
        return self.kept


class WrongShape(Good):
    def decide(self, v: FloatArray) -> FloatArray:
        return np.zeros(v.size + 1)


class DeafEnd(Good):
    def __init__(self, site: ControlSite, hosted: Sequence[str]) -> None:
        super().__init__(site, hosted)
        self.links_in = tuple(Link(k.source, k.target, "v", 2) for k in self.links_in)


class LocalLinks(Good):
    """Links chosen from `hosted`: the classic mistake."""

    def __init__(self, site: ControlSite, hosted: Sequence[str]) -> None:
        super().__init__(site, hosted)
        pairs = list(zip(hosted, [*hosted[1:], hosted[0]], strict=True))
        self.links_out = tuple(Link(a, b, "v") for a, b in pairs)
        self.links_in = tuple(Link(a, b, "v") for a, b in [pairs[-1], *pairs[:-1]])


class Crashes(Good):
    def decide(self, v: FloatArray) -> FloatArray:
        raise RuntimeError("no luck")


BAD = [
    (AcceptsAnything, "construction", "an unknown option is accepted"),
    (WrongUnit, "ports", "q_set_kvar: the name does not end with its unit, '_kw'"),
    (SeesTheOthers, "partition independence", r"2 instances: q_set_kvar of pv_b1 differs"),
    (PassesNan, "bad measurements", r"NaN in every measurement: output q_set_kvar of pv_b1"),
    (TooMuch, "limits", r"q_set_kvar of \w+ is .* at step \d+, -\d+ to \d+"),
    (Counts, "repeated mail", "mail delivered twice: q_set_kvar of"),
    (Random, "determinism", "a second run: q_set_kvar of"),
    (Scribbles, "step", "step changes its inputs"),
    (Reuses, "step", "step changes what an earlier step returned"),
    (WrongShape, "step", r"output q_set_kvar has shape \(6,\) not \(5,\)"),
    (DeafEnd, "links", "pv_b1>pv_b2:v: sent with width 1, received with width 2"),
    (LocalLinks, "links", "the links depend on the partition"),
    (Crashes, "step", r"raised RuntimeError: no luck \(in decide, line \d+\)"),
]


def test_a_good_controller_passes_every_check() -> None:
    checks = check_controller(Good)  # type: ignore[arg-type]
    assert len(checks) == 10
    assert all(check.passed for check in checks)


@pytest.mark.parametrize(("cls", "name", "text"), BAD, ids=[c.__name__ for c, _, _ in BAD])
def test_each_mistake_is_named(cls: type[Any], name: str, text: str) -> None:
    found = {c.name: "\n".join(c.findings) for c in examine_controller(cls)}
    assert re.search(text, found[name]), found
    with pytest.raises(ComplianceError) as caught:
        check_controller(cls)
    assert isinstance(caught.value, ControllerError)
    assert isinstance(caught.value, AssertionError)
    assert any(line.startswith(f"{name}: ") for line in caught.value.findings)
    assert f"controller {cls.__name__}" in str(caught.value)


@pytest.mark.parametrize("name", ["none", "volt-var-1547", "optdist-vc", "optimum"])
def test_shipped_controllers_pass_on_the_sample_site_and_on_a_slower_one(name: str) -> None:
    check_controller(name)
    check_controller(name, sample_site(period_s=60.0, seed=3))


def test_forbidden_imports_are_found(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "class {0}(Base):\n    def late(self):\n        import helics.cli\n"
    (tmp_path / "speaks_helics.py").write_text(
        "from controllers.baselines.no_control import NoControl as Base\n" + text.format("Speaks")
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {c.name: c.findings for c in examine_controller("speaks_helics:Speaks")}
    assert found["imports"] == ("speaks_helics imports helics.cli",)
    assert found["partition independence"] == ()


def test_command_line_prints_a_table_and_exits_with_the_outcome(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["none"]) == 0
    out = capsys.readouterr().out
    assert out.endswith("none: 10 checks passed, 0 failed\n")
    assert re.search(r"^partition independence  pass$", out, re.M)
    assert main(["none", "--option", "gain=3"]) == 1
    assert "unknown option 'gain'" in capsys.readouterr().out
    assert main(["nonne"]) == 1
    assert "did you mean 'none'?" in capsys.readouterr().err
    assert main(["none", "--option", "gain"]) == 1
    assert "'gain' is no option; expected KEY=VALUE" in capsys.readouterr().err
