"""Lets a detector trained on COCO say what it sees in every training picture.

Most sets label some classes only. Without a second opinion, a person in a set that labels cars would be taught as
"nothing". The answers are kept in `teacher.json` beside the cache; `data.py` decides what to do with them.

The teacher is YOLOX-Nano (Apache-2.0): input [1,3,S,S] in BGR, output [1,N,85] as raw grid values.
"""

import argparse
import json
import os

import numpy as np
import onnxruntime
from PIL import Image

from data import COCO_TO_LABEL, list_pictures

SCORE = 0.1
OVERLAP = 0.6


def grid(size):
    cells, strides = [], []
    for stride in (8, 16, 32):
        y, x = np.mgrid[: size // stride, : size // stride]
        cells.append(np.stack((x.ravel(), y.ravel()), 1))
        strides.append(np.full((x.size, 1), stride))
    return np.concatenate(cells), np.concatenate(strides)


def letterbox(picture, size):
    scale = min(size / picture.width, size / picture.height)
    width, height = round(picture.width * scale), round(picture.height * scale)
    canvas = np.full((size, size, 3), 114, np.uint8)
    canvas[:height, :width] = np.asarray(picture.resize((width, height), Image.BILINEAR))
    return canvas[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32), scale


def suppress(boxes, scores, overlap):
    """Greedy non-maximum suppression; answers the kept indices, best first."""
    kept, order = [], np.argsort(-scores)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[order, :2])
        high = np.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = np.prod(np.clip(high - low, 0, None), 1)
        order = order[shared / (area[best] + area[order] - shared + 1e-9) <= overlap]
    return kept


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of the training sets")
    parser.add_argument("--model", required=True, help="YOLOX-Nano as ONNX")
    parser.add_argument("--cache", required=True, help="folder for teacher.json")
    args = parser.parse_args()

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])
    size = session.get_inputs()[0].shape[2]
    cells, strides = grid(size)

    found = {}
    pictures = list_pictures(args.data)
    for count, entry in enumerate(pictures):
        picture = Image.open(os.path.join(args.data, entry["path"])).convert("RGB")
        tensor, scale = letterbox(picture, size)
        output = session.run(None, {session.get_inputs()[0].name: tensor})[0][0]
        centre = (output[:, :2] + cells) * strides / scale
        half = np.exp(output[:, 2:4]) * strides / scale / 2
        boxes = np.concatenate((centre - half, centre + half), 1)
        answer = []
        for coco, label in COCO_TO_LABEL.items():
            scores = output[:, 4] * output[:, 5 + coco]
            likely = scores > SCORE
            if likely.any():
                b, s = boxes[likely], scores[likely]
                answer += [[label, *np.round(b[k], 1).tolist(), round(float(s[k]), 3)] for k in suppress(b, s, OVERLAP)]
        found[entry["path"]] = answer
        if count % 500 == 0:
            print(f"{count} of {len(pictures)} pictures", flush=True)

    os.makedirs(args.cache, exist_ok=True)
    with open(os.path.join(args.cache, "teacher.json"), "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
