import numpy as np
import pytest
from _hosting_cases import hosting_case

from grid_models.hosting.alone import AloneOptions, alone_capacity


@pytest.mark.parametrize(("direction", "sign"), [("generation", 1.0), ("load", -1.0)])
def test_each_site_takes_what_the_engine_accepts(direction: str, sign: float) -> None:
    model, circuit = hosting_case(noon_load_pu=0.35, step_h=4.0)
    found = alone_capacity(model, AloneOptions(direction=direction, step_kw=2.0))
    table = found.tables["sites"]
    rated = [x for x in circuit.feeder.lines if x.norm_amps]

    def feasible(site: int, kw: float) -> bool:
        for t in range(len(model.hours)):
            output = model.pv_pu[t] if sign > 0 else 1.0
            injected = np.zeros(len(model.sites))
            injected[site] = sign * kw * output
            circuit.set_loads(model.load_kva[t].real, model.load_kva[t].imag)
            circuit.set_ders(injected, np.zeros(len(injected)))
            circuit.solve()
            v_pu = circuit.v_pu()
            if v_pu.max() > 1.05 or v_pu.min() < 0.95:
                return False
            for line in rated:
                circuit.engine.dss.Circuit.SetActiveElement(f"line.{line.name}")
                amps = circuit.engine.dss.CktElement.CurrentsMagAng()[: 2 * len(line.phases) : 2]
                if max(amps) > line.norm_amps:
                    return False
        return True

    for site in (0, 40, 95):
        assert feasible(site, found.hc_kw[site])
        assert not feasible(site, found.hc_kw[site] + 2.0)
        assert table["limit"][site] in ("overvoltage", "undervoltage", "line")
    assert np.count_nonzero(found.site_kw) == len(model.sites)
    assert (np.diag(found.site_kw) == found.hc_kw).all()
