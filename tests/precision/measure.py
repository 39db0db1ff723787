#!/usr/bin/env python3
"""Makes the numbers that the test `precision` compares with: made-up boxes, measured with pycocotools.

    pip install pycocotools
    tests/precision/measure.py tests/precision/pycocotools.json
"""

import contextlib
import io
import json
import random
import sys

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def boxes(random):
    """Objects of all sizes in 60 pictures, some of them places that do not count, and detections that miss, double, drift and
    see ghosts. Scores are distinct, because equal ones are ordered by chance."""
    truth, found = [], []
    scores = [n / 10000 for n in random.sample(range(1, 10000), 4000)]
    for picture in range(1, 61):
        for _ in range(random.choice([0, 1, 2, 3, 8])):
            side = random.choice([8, 20, 31, 33, 60, 95, 97, 200])
            box = [random.uniform(0, 400), random.uniform(0, 400), side * random.uniform(0.6, 1.6), side]
            box = [round(number, 2) for number in box]
            ignored = random.random() < 0.1
            truth.append([picture, *box, int(ignored)])
            for _ in range(random.choice([0, 1, 1, 1, 2])):
                drift = side * random.choice([0.01, 0.05, 0.15])
                found.append([picture, *(round(n + random.gauss(0, drift), 2) for n in box), scores.pop()])
        for _ in range(random.choice([0, 0, 1, 3])):
            side = random.uniform(5, 220)
            ghost = [random.uniform(0, 400), random.uniform(0, 400), side, side * 1.3]
            found.append([picture, *(round(number, 2) for number in ghost), scores.pop()])
    # One picture with more detections than are looked at.
    for _ in range(130):
        found.append([61, round(random.uniform(0, 400), 2), 10.0, 30.0, 40.0, scores.pop()])
    truth.append([61, 50.0, 10.0, 30.0, 40.0, 0])
    found = [[*box[:3], max(box[3], 1.0), max(box[4], 1.0), box[5]] for box in found]
    return truth, found


def measure(truth, found):
    pictures = sorted({row[0] for row in truth + found})
    coco = COCO()
    coco.dataset = {
        "images": [{"id": picture} for picture in pictures],
        "categories": [{"id": 1}],
        "annotations": [
            {"id": n, "image_id": row[0], "category_id": 1, "bbox": row[1:5], "area": row[3] * row[4], "iscrowd": row[5]}
            for n, row in enumerate(truth, 1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        results = coco.loadRes(
            [{"image_id": row[0], "category_id": 1, "bbox": row[1:5], "score": row[5]} for row in found]
        )
        run = COCOeval(coco, results, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    names = ["ap", "ap50", "ap75", "small", "medium", "large", None, None, "recall"]
    return {name: float(value) for name, value in zip(names, run.stats) if name}


if __name__ == "__main__":
    cases = []
    for seed in range(3):
        truth, found = boxes(random.Random(seed))
        cases.append({"truth": truth, "found": found, "expected": measure(truth, found)})
    with open(sys.argv[1], "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n")
