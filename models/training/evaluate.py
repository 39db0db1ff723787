"""Measures an exported model: people on the PETS09 clip, or AP50 of each class on the sets' `val` splits.

Both run the ONNX file itself, through an own decoder, so that what is measured is what is shipped.
"""

import argparse
import csv
import os
import subprocess
import time
from collections import defaultdict

import numpy as np
import onnxruntime
from PIL import Image

from data import LABELS, list_pictures, overlaps, read_labels
from network import anchor_points
from teacher import suppress

PETS_SIZE = (768, 576)
PETS_SMALLEST = 59  # pixels; the original truth marks lower boxes as "ignore"
PETS_OVERLAP = 0.4


class Model:
    def __init__(self, path, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        properties = self.session.get_modelmeta().custom_metadata_map
        self.labels = properties["sharp_eyes.labels"].split(",")
        self.height, self.width = self.session.get_inputs()[0].shape[2:]
        points, strides = anchor_points(self.height, self.width)
        self.points, self.strides = points.numpy(), strides.numpy()
        self.seconds, self.runs = 0.0, 0

    def detect(self, picture, lowest=0.05, overlap=0.6):
        """Rows of class, x1, y1, x2, y2, score in the picture's pixels."""
        scale = min(self.width / picture.width, self.height / picture.height)
        size = (round(picture.width * scale), round(picture.height * scale))
        canvas = np.full((self.height, self.width, 3), 114, np.uint8)
        canvas[: size[1], : size[0]] = np.asarray(picture.resize(size, Image.BILINEAR))
        tensor = canvas.transpose(2, 0, 1)[None].astype(np.float32)

        began = time.perf_counter()
        distances, scores = (output[0] for output in self.session.run(["distances", "scores"], {"images": tensor}))
        self.seconds += time.perf_counter() - began
        self.runs += 1

        reach = distances * self.strides
        boxes = np.concatenate((self.points - reach[:, :2], self.points + reach[:, 2:]), 1) / scale
        boxes[:, [0, 2]] = boxes[:, [0, 2]].clip(0, picture.width)
        boxes[:, [1, 3]] = boxes[:, [1, 3]].clip(0, picture.height)
        found = []
        for number in range(scores.shape[1]):
            likely = np.flatnonzero(scores[:, number] > lowest)
            kept = likely[suppress(boxes[likely], scores[likely, number], overlap)]
            found += [[number, *boxes[k], scores[k, number]] for k in kept]
        return np.array(found, np.float32).reshape(-1, 6)


def match(found, truth, ignored, overlap):
    """Greedy matching by score. For each row of `found` (boxes, best first): 1 right, 0 wrong, -1 does not count."""
    verdicts, free = [], np.ones(len(truth), bool)
    iou = overlaps(found, truth) if len(truth) else np.zeros((len(found), 0))
    iou_ignored = overlaps(found, ignored) if len(ignored) else np.zeros((len(found), 0))
    for row, row_ignored in zip(iou, iou_ignored):
        row = np.where(free, row, 0)
        if len(row) and row.max() >= overlap:
            free[row.argmax()] = False
            verdicts.append(1)
        else:
            verdicts.append(-1 if len(row_ignored) and row_ignored.max() >= overlap else 0)
    return verdicts


def pets(args):
    truth = defaultdict(list)
    for row in csv.DictReader(open(args.truth)):
        x, y, w, h = (float(row[key]) for key in ("left", "top", "width", "height"))
        truth[int(row["frame"])].append([x, y, x + w, y + h])

    model = Model(args.model, args.threads)
    person = model.labels.index("person")
    width, height = PETS_SIZE
    command = ["ffmpeg", "-v", "error", "-i", args.clip, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    video = subprocess.Popen(command, stdout=subprocess.PIPE)
    scores, verdicts, people, frame = [], [], 0, 0
    while pixels := video.stdout.read(width * height * 3):
        frame += 1
        if frame not in truth:
            continue
        picture = Image.fromarray(np.frombuffer(pixels, np.uint8).reshape(height, width, 3))
        found = model.detect(picture, overlap=args.nms)
        found = found[found[:, 0] == person]
        boxes = np.array(truth[frame], np.float32)
        low = boxes[:, 3] - boxes[:, 1] < PETS_SMALLEST
        people += (~low).sum()
        # The order is by score, so judging everything once serves every threshold.
        verdicts += match(found[:, 1:5], boxes[~low], boxes[low], PETS_OVERLAP)
        scores += found[:, 5].tolist()

    scores, verdicts = np.array(scores), np.array(verdicts)
    print(f"{people} people in {len(truth)} frames, {model.seconds / model.runs * 1000:.1f} ms a frame")
    for threshold in np.arange(0.10, 0.75, 0.05):
        kept = verdicts[scores >= threshold]
        right, wrong = (kept == 1).sum(), (kept == 0).sum()
        print(f"score {threshold:.2f}  recall {right / people:.3f}  precision {right / max(1, right + wrong):.3f}")


def average_precision(scores, verdicts, positives):
    """Area under the precision-recall curve, precision made monotonous (as in COCO, but at every point)."""
    order = np.argsort(-scores, kind="stable")
    verdicts = verdicts[order]
    verdicts = verdicts[verdicts >= 0]
    right = np.cumsum(verdicts)
    precision = right / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((precision * verdicts).sum() / positives)


def val(args):
    model = Model(args.model, args.threads)
    results = defaultdict(list)  # (class, set) to (scores, verdicts, positives)
    raised = defaultdict(lambda: [0, 0, 0, 0])  # pictures with the class, of these raised; without it, of these raised
    for entry in list_pictures(args.data, "val"):
        picture = Image.open(os.path.join(args.data, entry["path"])).convert("RGB")
        truth = read_labels(args.data, entry, picture.width, picture.height)
        found = model.detect(picture, lowest=0.01, overlap=args.nms)
        for number, label in enumerate(model.labels):
            known = LABELS.index(label)
            if known not in entry["labelled"]:
                continue
            mine = found[found[:, 0] == number]
            boxes = truth[truth[:, 0] == known, 1:]
            results[label, entry["set"]].append(
                (mine[:, 5], match(mine[:, 1:5], boxes, boxes[:0], 0.5), len(boxes)))
            kind = 0 if len(boxes) else 2
            raised[label][kind] += 1
            raised[label][kind + 1] += bool((mine[:, 5] >= args.score).any())

    def summarise(rows):
        scores = np.concatenate([r[0] for r in rows])
        verdicts = np.concatenate([np.array(r[1], int) for r in rows])
        positives = sum(r[2] for r in rows)
        return (average_precision(scores, verdicts, positives) if positives else float("nan")), positives

    for label in model.labels:
        sets = [key for key in results if key[0] == label]
        ap, boxes = summarise([row for key in sets for row in results[key]])
        shown, hit, empty, false = raised[label]
        print(f"{label:<11} AP50 {ap:.3f}  {boxes} boxes; at score {args.score} raised in {hit} of {shown} pictures "
              f"with it and {false} of {empty} without")
        for key in sets:
            ap, boxes = summarise(results[key])
            print(f"    {key[1]:<20} {ap:.3f}  {boxes} boxes")
    print(f"{model.seconds / model.runs * 1000:.1f} ms a picture")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for name, function in (("pets", pets), ("val", val)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--model", required=True, help="ONNX file")
        command.add_argument("--nms", type=float, default=0.6, help="overlap from which two boxes are the same thing")
        command.add_argument("--threads", type=int, default=1)
        if name == "pets":
            command.add_argument("--clip", required=True, help="vtest.avi")
            command.add_argument("--truth", required=True, help="gt_sampled.csv")
        else:
            command.add_argument("--data", required=True, help="folder of the training sets")
            command.add_argument("--score", type=float, default=0.35, help="for the count of pictures that raise a class")
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
