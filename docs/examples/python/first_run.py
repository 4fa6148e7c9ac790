"""A first run, a change of it, and a figure of both. Needs matplotlib.

The cells (``# %%``) are those of a notebook; Jupyter and editors open the file as one.
"""

# %% One hour around noon, one solution of the feeder every 5 s
import matplotlib.pyplot as plt

import feederate

STEPS = 720
noon = feederate.load("voltvar-ieee123", set={"time.start_s": 41400})
controlled = feederate.run(noon, steps=STEPS)
print(controlled)

# %% The same hour without control: only what differs is written down
alone = {"federates.volt_var": {"controller": "none", "options": {}}}
uncontrolled = feederate.run(noon, set=alone, steps=STEPS)
both = {"OPTDIST-VC": controlled, "no control": uncontrolled}
print(feederate.compare(both).loc[["v_max_pu", "losses_kwh"]])

# %% Highest voltage over time; signals are pandas tables, a column per node
fig, axes = plt.subplots()
for label, run in both.items():
    run.signals["feeder.v_pu"].max(axis=1).plot(ax=axes, label=label)
axes.axhline(noon.band.v_max_pu, color="0.5", linestyle="--", label="band")
axes.set(xlabel="seconds from 11:30", ylabel="highest voltage, pu")
axes.legend()
fig.savefig("first_run.png", dpi=150)

# %% Where is it worst? The grid is a table, too
highest = uncontrolled.signals["feeder.v_pu"].max().nlargest(3)
buses = uncontrolled.grid["buses"].set_index("bus")
for node, v_pu in highest.items():
    print(f"{node}: {v_pu:.4f} pu, at {tuple(buses.loc[node.split('.')[0], ['x', 'y']])} ft")
