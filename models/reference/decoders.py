"""Decoders of YOLOX, NanoDet and FastestDet that owe the agent nothing: written from the papers and reference code.

    python decoders.py boxes --models DATA/models --data DATA/train/coco256 --out ../../agent/vision/tests/reference-boxes.json
    python decoders.py ap    --models DATA/models --data DATA/train/coco256
    python decoders.py ap    --data DATA/train/coco256 --detections FILE

`boxes` writes what the three models see in a dozen pictures: the agent's tests compare their own decoding with it.
`ap` prints AP50 on the pictures of the split `val`: of these decoders, or of detections that the agent's test
`models_agree_with_an_independent_decoder` has written (DETECTIONS_OUT=FILE). Needs onnxruntime, numpy and pillow.
"""

import argparse
import json
import os

import numpy as np
import onnxruntime
from PIL import Image

# The agent's classes that COCO has: COCO's index of each, in the order of the set's labels.
CLASSES = {"person": 0, "bicycle": 1, "motorcycle": 3, "car": 2, "bus": 5, "truck": 7, "dog": 16, "horse": 17,
           "sheep": 18, "cow": 19}
COLUMNS = np.array(list(CLASSES.values()))
NAMES = list(CLASSES)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def grid(width, height, stride):
    """Column and row of each cell, row by row."""
    columns, rows = np.meshgrid(np.arange(-(-width // stride)), np.arange(-(-height // stride)))
    return np.stack((columns, rows), -1).reshape(-1, 2).astype(np.float32)


class Yolox:
    """Ge et al. 2021: letterbox at the top left, blue first, 0 to 255; strides 8, 16, 32."""
    file = "yolox_nano_bigisland.onnx"

    def prepare(self, picture, width, height):
        ratio = min(width / picture.width, height / picture.height)
        size = (round(picture.width * ratio), round(picture.height * ratio))
        canvas = np.full((height, width, 3), 114, np.float32)
        canvas[: size[1], : size[0]] = np.asarray(picture.resize(size, Image.BILINEAR))[..., ::-1]
        return canvas, (picture.width / size[0], picture.height / size[1])

    def decode(self, outputs, width, height):
        rows = outputs[0][0]
        cells = np.concatenate([grid(width, height, s) for s in (8, 16, 32)])
        strides = np.concatenate([np.full(len(grid(width, height, s)), s) for s in (8, 16, 32)])[:, None]
        centre, size = (rows[:, :2] + cells) * strides, np.exp(rows[:, 2:4]) * strides
        return np.concatenate((centre - size / 2, centre + size / 2), 1), rows[:, 4:5] * rows[:, 5:]


class Stretched:
    """A picture that is scaled to the input's size, whatever its proportions."""
    mean, deviation = np.zeros(3, np.float32), np.ones(3, np.float32)

    def prepare(self, picture, width, height):
        pixels = np.asarray(picture.resize((width, height), Image.BILINEAR), np.float32)[..., ::-1]
        return (pixels - self.mean) / self.deviation, (picture.width / width, picture.height / height)


class Nanodet(Stretched):
    """RangiLyu's NanoDet-m: each side is the mean of a distribution over 0 to 7 strides (Li et al. 2020)."""
    file = "nanodet_m.onnx"
    mean = np.array((103.53, 116.28, 123.675), np.float32)
    deviation = np.array((57.375, 57.12, 58.395), np.float32)

    def decode(self, outputs, width, height):
        boxes, scores = [], []
        for stride in (8, 16, 32):
            cells = grid(width, height, stride)
            of_level = [output[0] for output in outputs if output.shape[1] == len(cells)]
            distributions = next(output for output in of_level if output.shape[1] == 32)
            scores.append(next(output for output in of_level if output.shape[1] == 80))
            sides = softmax(distributions.reshape(-1, 4, 8)) @ np.arange(8) * stride
            centre = (cells + 0.5) * stride
            boxes.append(np.concatenate((centre - sides[:, :2], centre + sides[:, 2:]), 1))
        return np.concatenate(boxes), np.concatenate(scores)


class Fastestdet(Stretched):
    """dog-qiuqiu's FastestDet: one map of stride 16."""
    file = "fastestdet_352.onnx"
    deviation = np.full(3, 255, np.float32)

    def decode(self, outputs, width, height):
        rows = outputs[0][0].reshape(85, -1).T
        cells = grid(width, height, 16)
        centre = (cells + np.tanh(rows[:, 1:3])) * 16
        size = sigmoid(rows[:, 3:5]) * np.array((width, height))
        return np.concatenate((centre - size / 2, centre + size / 2), 1), rows[:, :1] ** 0.6 * rows[:, 5:] ** 0.4


DECODERS = {"yolox": Yolox(), "nanodet": Nanodet(), "fastestdet": Fastestdet()}


def overlaps(one, others):
    low = np.maximum(one[:2], others[:, :2])
    high = np.minimum(one[2:], others[:, 2:])
    both = (high - low).clip(0).prod(1)
    return both / ((one[2:] - one[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - both + 1e-9)


def detect(session, decoder, picture, lowest):
    """Rows of class, score, and left, top, right, bottom as fractions of the picture; best first."""
    height, width = session.get_inputs()[0].shape[2:]
    pixels, ratio = decoder.prepare(picture, width, height)
    tensor = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
    boxes, scores = decoder.decode(session.run(None, {session.get_inputs()[0].name: tensor}), width, height)
    boxes = (boxes * np.tile(ratio, 2) / np.tile(picture.size, 2)).clip(0, 1)
    scores = scores[:, COLUMNS]
    best = scores.argmax(1)
    found = []
    for number in range(len(NAMES)):
        likely = np.flatnonzero((best == number) & (scores[:, number] >= lowest))
        likely = likely[np.argsort(-scores[likely, number], kind="stable")]
        while len(likely):
            first, likely = likely[0], likely[1:]
            found.append((number, float(scores[first, number]), *map(float, boxes[first])))
            likely = likely[overlaps(boxes[first], boxes[likely]) <= 0.5]
    return sorted(found, key=lambda row: -row[1])


def val_pictures(data):
    with open(os.path.join(data, "manifest.json")) as file:
        files = json.load(file)["files"]
    return [name for name in sorted(files) if files[name]["split"] == "val"]


def open_picture(data, name):
    return Image.open(os.path.join(data, "images", f"{name}.webp")).convert("RGB")


def open_session(models, decoder):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # these old exports draw hundreds of warnings
    return onnxruntime.InferenceSession(os.path.join(models, decoder.file), options)


def boxes(args):
    # Pictures in which something of ours is labelled, spread over the split.
    labelled = [n for n in val_pictures(args.data) if os.path.getsize(os.path.join(args.data, "labels", f"{n}.txt"))]
    names = labelled[:: max(1, len(labelled) // 12)][:12]
    fixture = {}
    for key, decoder in DECODERS.items():
        session = open_session(args.models, decoder)
        fixture[key] = {"model": decoder.file, "pictures": {
            name: [[NAMES[row[0]], *(round(value, 4) for value in row[1:])]
                   for row in detect(session, decoder, open_picture(args.data, name), 0.3)]
            for name in names}}
    with open(args.out, "w") as file:
        # A detection a line: a diff of this file can be read.
        text = json.dumps(fixture, indent=1)
        file.write(text.replace("[\n     ", "[").replace(",\n     ", ", ").replace("\n    ]", "]") + "\n")


def read_labels(data, name):
    """Rows of class, centre and size, 0..1; none for a picture in which nothing is labelled."""
    with open(os.path.join(data, "labels", f"{name}.txt")) as file:
        return np.array([line.split() for line in file if line.strip()], float).reshape(-1, 5)


def average_precision(data, found_by_name):
    """AP50 for each class, area under the monotonous precision at every point, as COCO's but for the 101 points."""
    truth = {}
    for name in val_pictures(data):
        rows = read_labels(data, name)
        corners = np.concatenate((rows[:, 1:3] - rows[:, 3:5] / 2, rows[:, 1:3] + rows[:, 3:5] / 2), 1)
        truth[name] = (rows[:, 0].astype(int), corners)
    result = {}
    for number, label in enumerate(NAMES):
        positives = sum(int((classes == number).sum()) for classes, _ in truth.values())
        if not positives:
            continue
        verdicts = []
        for name, (classes, corners) in truth.items():
            free = corners[classes == number]
            for row in sorted((r for r in found_by_name.get(name, []) if r[0] == number), key=lambda r: -r[1]):
                overlap = overlaps(np.array(row[2:]), free) if len(free) else np.zeros(0)
                hit = len(overlap) and overlap.max() >= 0.5
                verdicts.append((row[1], bool(hit)))
                if hit:
                    free = np.delete(free, overlap.argmax(), 0)
        right = np.array([hit for _, hit in sorted(verdicts, key=lambda v: -v[0])], float)
        precision = right.cumsum() / np.arange(1, len(right) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        result[label] = float((precision * right).sum() / positives)
    return result


def report(key, result):
    classes = ", ".join(f"{label} {value:.3f}" for label, value in result.items())
    print(f"{key:<11} mAP50 {np.mean(list(result.values())):.3f}   {classes}")


def ap(args):
    if args.detections:
        with open(args.detections) as file:
            for key, pictures in json.load(file).items():
                rows = {n: [[NAMES.index(r[0]), *r[1:]] for r in rows if r[0] in NAMES] for n, rows in pictures.items()}
                report(key, average_precision(args.data, rows))
        return
    for key, decoder in DECODERS.items():
        session = open_session(args.models, decoder)
        found = {n: detect(session, decoder, open_picture(args.data, n), 0.01) for n in val_pictures(args.data)}
        report(key, average_precision(args.data, found))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, function in (("boxes", boxes), ("ap", ap)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--data", required=True, help="folder of the set coco256")
        command.add_argument("--models", help="folder of the three ONNX files")
        command.add_argument(*(("--out",) if name == "boxes" else ("--detections",)), required=name == "boxes")
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
