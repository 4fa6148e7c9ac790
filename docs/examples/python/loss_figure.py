"""How many messages may get lost? The script of docs/from-idea-to-figure.md. Needs matplotlib."""

# %%
import matplotlib.pyplot as plt

import feederate

STEPS = 720  # one hour
study = {"time.start_s": 39600, "links": [{"latency_s": 0.0, "loss": 0.0}]}

run = feederate.run("voltvar-ieee123", set=study, steps=STEPS)
print(run.metrics["out_of_band_node_hours"], run.report)

# %%
LOSS, SEEDS = [0.0, 0.5, 0.8, 0.9, 0.95, 0.98], 10
sweep = feederate.sweep(
    "voltvar-ieee123", set=study, grid={"links.0.loss": LOSS}, seeds=SEEDS, steps=STEPS
)
results = sweep.results[sweep.results["status"] == "finished"]
print(f"{len(results)} runs, {len(sweep.failures)} failed, in {sweep.folder}")

# %%
hours = results.groupby("links.0.loss")["out_of_band_node_hours"]
spread = hours.quantile([0.0, 0.5, 1.0]).unstack()
fig, axes = plt.subplots(figsize=(3.5, 2.4), layout="constrained")  # a column of a paper
axes.fill_between(spread.index, spread[0.0], spread[1.0], alpha=0.25, label="all seeds")
axes.plot(spread.index, spread[0.5], marker="o", label="median")
axes.set(xlabel="share of messages lost", ylabel="out of band, node-hours")
axes.legend()
fig.savefig("loss.pdf")

# %%
spread.to_csv("loss.csv")
