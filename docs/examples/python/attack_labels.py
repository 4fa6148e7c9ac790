"""An attack: what it did, which values it forged, and how far a simple rule finds them."""

# %% The scenario without the attack, with it, and with each defence, side by side
import feederate

STEPS = 720
attack = {"attack.steps.0": {"trigger": {"at_s": 900}, "duration_s": 900}}
paired = feederate.attack_run(
    "voltvar-ieee13", "false-voltage", set={"time.start_s": 41400, **attack}, steps=STEPS
)
print(paired.metrics.loc[["v_min_pu", "abs_q_kvarh", "attacked_values_count"]])

# %% True value, seen value and label of the same step and node
attacked = paired["attacked"]
true, seen = attacked.signals["feeder.v_pu"], attacked.seen["feeder.v_pu"]
labels = attacked.labels["feeder.v_pu"].drop(columns="under_attack")
forged = labels.columns[labels.any()]
print(f"forged: {', '.join(forged)}; legend of the numbers: {labels.attrs['steps']}")
print((seen - true)[forged].describe().loc[["min", "max"]])

# %% A naive rule: a reading that jumps is forged. It finds the jump, not the attack
jumps = seen.diff().abs() > 0.03
found = jumps & (labels > 0)
print(f"readings that jump: {jumps.to_numpy().sum()}")
print(f"forged readings: {(labels > 0).to_numpy().sum()}, found: {found.to_numpy().sum()}")
