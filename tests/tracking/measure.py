#!/usr/bin/env python3
"""Measures tracks with py-motmetrics, to compare with what `make eval` says:

    pip install motmetrics
    tests/tracking/measure.py TRUTH.csv TRACKS.csv [OVERLAP]

Both files have a line per box: frame,id,left,top,width,height, as MOTChallenge writes them and `EVAL_OUT=folder make eval`.
Prints one line of JSON with the names of `sharp_eyes_tests::tracking::Tally`.

    tests/tracking/measure.py --fixture tests/tracking/motmetrics

writes the numbers that the test `tracking` compares with: made-up walkers with tracks that miss, swap, break and see ghosts.
"""

import csv
import json
import random
import sys
from collections import defaultdict
from pathlib import Path

import motmetrics
import numpy as np


def read(path):
    frames = defaultdict(list)
    with open(path) as file:
        for row in csv.reader(file):
            frames[int(row[0])].append([float(number) for number in row[1:6]])
    return frames


def overlaps(a, b):
    """Intersection over union of boxes [left, top, width, height]."""
    a, b = a[:, None], b[None]
    sides = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    both = sides.clip(0).prod(-1)
    return both / (a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - both)


def measure(truth, tracks, overlap):
    accumulator = motmetrics.MOTAccumulator()
    for frame in sorted(set(truth) | set(tracks)):
        objects, found = np.array(truth[frame]).reshape(-1, 5), np.array(tracks[frame]).reshape(-1, 5)
        iou = overlaps(objects[:, 1:], found[:, 1:])
        distances = np.where(iou >= overlap, 1 - iou, np.nan)
        accumulator.update(objects[:, 0].astype(int), found[:, 0].astype(int), distances, frameid=frame)
    names = {
        "objects": "num_objects",
        "found": "num_predictions",
        "misses": "num_misses",
        "false_alarms": "num_false_positives",
        "switches": "num_switches",
        "own": "idtp",
        "mota": "mota",
        "idf1": "idf1",
    }
    row = motmetrics.metrics.create().compute(accumulator, metrics=list(names.values())).iloc[0]
    whole = lambda name: float(row[name]) if name in ("mota", "idf1") else int(row[name])
    return {name: whole(theirs) for name, theirs in names.items()}


def walkers(random):
    """Boxes of six people who cross each other in 40 frames, and tracks of them."""
    truth, tracks = [], []
    names = {person: 100 + person for person in range(6)}
    fresh = 200
    for frame in range(1, 41):
        for person in range(6):
            if not person * 3 <= frame <= 40 - person:
                continue
            left = 20 * person + (frame * 5 if person % 2 else 220 - frame * 5)
            box = [left, 50 + 4 * person, 30, 70]
            truth.append([frame, person + 1, *box])
            if random.random() < 0.05:
                other = random.randrange(6)
                names[person], names[other] = names[other], names[person]
            if random.random() < 0.04:
                names[person], fresh = fresh, fresh + 1
            if random.random() < 0.85:
                jittered = [round(side + random.gauss(0, 5), 2) for side in box]
                tracks.append([frame, names[person], *jittered])
        if random.random() < 0.2:
            tracks.append([frame, fresh, random.randrange(300), random.randrange(60), 30, 70])
            fresh += 1
    return truth, tracks


def fixture(folder):
    folder.mkdir(parents=True, exist_ok=True)
    expected = {}
    for tracks in ("tracks-0", "tracks-1", "tracks-2"):
        for name, rows in zip(("truth", tracks), walkers(random.Random(tracks))):
            with open(folder / f"{name}.csv", "w") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)
        expected[tracks] = measure(read(folder / "truth.csv"), read(folder / f"{tracks}.csv"), 0.4)
    text = json.dumps({"motmetrics": motmetrics.__version__, "overlap": 0.4, "tallies": expected}, indent=1)
    (folder / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--fixture"]:
        fixture(Path(sys.argv[2]))
    else:
        truth, tracks = read(sys.argv[1]), read(sys.argv[2])
        print(json.dumps(measure(truth, tracks, float(sys.argv[3]) if len(sys.argv) > 3 else 0.4)))
