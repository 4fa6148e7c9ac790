"""Consumer market, stages II and III: exactness, equilibrium, signs of prices, time.

    python benchmarks/consumer.py [--json] [--games 1000] [--day]

tracking_kw       largest miss of a target that can be reached
budget            largest imbalance of an operator's payments, money per hour
short             games whose homes cannot reach the target
bound             games in which a bound of a home binds, and how far the printed prices, which
                  know no bounds, miss the target there (mean, of the power asked for)
deviation         most that a home gains by another injection at the same prices, money per hour
negative          games with a price below 0: as printed, with plans that answer to the price of
                  the grid (`plan_price`), and with the policy `floor`; of that, the games with an
                  uplift and its mean relative to the operator's energy bill
misreport         small games (2 or 3 homes) in which a home gains by telling a false gamma and
                  delivering what it is then cleared for: prices are not strategy-proof
worse_off         homes that would be better off at the price of the grid and their plan
clear_ms          one batch of 255 operators with 3 to 12 homes each

With ``--day`` the scenario `consumer-market` instead: as shipped, with plans without price as in
the slides, with these and the policy `floor`, and with 20 % of the mail lost. Half a minute each:
largest miss of the homes' set-points, mean and largest miss of what was metered over an interval,
clearings with a price of the wrong sign, largest prices over that of the grid, money.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import timeit
from pathlib import Path
from typing import Any

import numpy as np
from _consumer_games import Games, deviation_gain, misreport_gain, random_games, utility

from controllers.core.mail import FloatArray
from controllers.market.consumer.game import ConsumerClearing, respond

GRID = "grid_price_per_kwh"
FACTORS = (0.25, 0.5, 0.8, 1.25, 2.0, 4.0)
GAIN = 1e-6
"""Money per hour from which a gain is one."""


def balance(games: Games, found: ConsumerClearing) -> float:
    """Return the largest imbalance, less the uplift that was reported."""
    total, planned = games.sums(found.p), games.sums(games.p0)
    paid = found.mu_flex * (total - planned) + found.mu * total
    return float(np.abs(paid - games.price * total - found.uplift).max())


def printed_miss(games: Games, found: ConsumerClearing) -> dict[str, float]:
    """Return in how many games a bound binds, and the mean miss of the printed prices there."""
    bound = games.sums(((found.p == games.p_min) | (found.p == games.p_max)).astype(float)) > 0.0
    need = games.p_target - games.sums(games.p0)
    s = need / games.sums(0.5 / games.gamma)
    p = respond(games.p0, games.p_min, games.p_max, games.gamma, s[games.owner])
    miss = np.abs(games.sums(p) - games.p_target) / np.abs(need)
    return {"bound": float(bound.mean()), "printed_miss": float(miss[bound].mean())}


def signs(games: Games) -> dict[str, float]:
    """Return the share of games with a negative price, by reading and policy, and the uplift."""
    bill = np.abs(games.price * games.p_target)
    out = {}
    for name, plan_price in (("printed", 0.0), ("planned", games.price)):
        found = games.clear(plan_price=plan_price)
        out[f"negative_{name}"] = float(((found.mu < 0.0) | (found.mu_flex < 0.0)).mean())
        asked = np.sign(games.p_target - games.sums(games.p0))
        wrong = (found.mu < 0.0) | (found.mu_flex * asked < 0.0)
        out[f"wrong_sign_{name}"] = float(wrong.mean())
        floor = games.clear("floor", plan_price)
        out[f"uplift_games_{name}"] = float((floor.uplift != 0.0).mean())
        out[f"uplift_share_{name}"] = float(floor.uplift.sum() / bill.sum())
    return out


def measure(n: int) -> dict[str, Any]:
    games = random_games(n, 1)
    found = games.clear()
    alone = games.price[games.owner] * games.p0
    small = random_games(n, 2, (2, 3))
    upward = random_games(n, 3, (2, 12))
    batch = random_games(255, 4, (3, 12))
    times = timeit.repeat(batch.clear, number=20, repeat=5)
    return {
        "games": n,
        "tracking_kw": float(np.abs(games.sums(found.p) - games.p_target - found.short).max()),
        "budget": balance(games, found),
        "budget_floor": balance(games, games.clear("floor")),
        "short": int((random_games(n, 1, part=1.2).clear().short != 0.0).sum()),
        **printed_miss(games, found),
        "deviation": float(deviation_gain(games, found).max()),
        "deviation_planned": float(
            deviation_gain(upward, upward.clear(plan_price=upward.price), upward.price).max()
        ),
        **signs(games),
        "misreport": float((misreport_gain(small, FACTORS) > GAIN).mean()),
        "worse_off": float((utility(games, found, found.p) < alone - GAIN).mean()),
        "clear_ms": 1e3 * min(times) / 20,
    }


NO_PRICE = "federates.market.options.plans_know_price=false"
DAYS: dict[str, tuple[str, ...]] = {
    "as shipped": (),
    "plans without price": (NO_PRICE,),
    "the same, floor": (NO_PRICE, "federates.market.options.policy=floor"),
    "20 % of mail lost": ("links=[{loss: 0.2}]",),
}


def day(overrides: tuple[str, ...]) -> dict[str, float]:
    """Run the shipped day and return how well requests were met, and at which prices."""
    from federates.core.signals import read_signal
    from federates.runs.runner import run
    from federates.scenario.schema import load_scenario

    with tempfile.TemporaryDirectory() as folder:
        scenario = load_scenario("consumer-market", overrides)
        result = run(scenario, out=Path(folder) / "run", placement="single")
        n = round(scenario.federates["market"].options["interval_s"] / scenario.time.step_s)

        def per_interval(name: str) -> FloatArray:
            values = read_signal(result.folder / "signals", name)[2]
            if name.startswith("market"):  # a step's set-points act in the next one
                values = np.vstack([values[:1], values[:-1]])
            return values[n:].reshape(-1, n, values.shape[1]).mean(axis=1)

        request, price = (per_interval(f"market.{x}")[:, 0] for x in ("request_kw", GRID))
        sets = per_interval("market.home_set_kw").sum(axis=1)
        miss = per_interval("feeder.p_kw").sum(axis=1) - request
        mu, flex = (per_interval(f"market.{x}_per_kwh")[:, 0] for x in ("mu", "mu_flex"))
        money = {
            x: read_signal(result.folder / "signals", f"market.{x}_money")[2][-1].sum()
            for x in ("cmo_pays", "uplift")
        }
        return {
            "set_miss_kw": float(np.abs(sets - request).max()),
            "mean_miss_kw": float(np.abs(miss).mean()),
            "largest_miss_kw": float(np.abs(miss).max()),
            "wrong_sign": result.metrics["consumer_negative_prices_count"] or 0.0,
            "mu_over_price": float((mu / price).max()),
            "mu_flex_over_price": float((flex / price).max()),
            "cmo_pays": float(money["cmo_pays"]),
            "uplift": float(money["uplift"]),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--games", type=int, default=1000)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--day", action="store_true", help="run the scenario instead")
    arguments = parser.parse_args()
    if arguments.day:
        rows: dict[str, Any] = {name: day(overrides) for name, overrides in DAYS.items()}
    else:
        rows = {"": measure(arguments.games)}
    if arguments.json:
        print(json.dumps(rows if arguments.day else rows[""], indent=2))
        return
    for row, figures in rows.items():
        for name, value in figures.items():
            print(f"{row:22s} {name:22s} {value:.3g}")


if __name__ == "__main__":
    main()
