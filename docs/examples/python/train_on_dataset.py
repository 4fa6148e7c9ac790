"""A classifier that learns from a data set: python train_on_dataset.py DIR."""

import sys
from pathlib import Path

import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import classification_report

folder = Path(sys.argv[1])
data = {}
for split in ("train", "test"):
    table = pd.concat(pd.read_parquet(path) for path in sorted((folder / split).iterdir()))
    table = table[table["recovering"] == 0]  # neither attacked nor as before
    labels = ["time_s", "under_attack", "recovering", "step"]
    data[split] = table.drop(columns=labels), table["under_attack"]
model = HistGradientBoostingClassifier(class_weight="balanced", random_state=0).fit(*data["train"])
readings, under_attack = data["test"]
print(classification_report(under_attack, model.predict(readings), zero_division=0))
