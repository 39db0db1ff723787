"""Training pictures: reading the sets once into a cache, and composing them into varied canvases.

A canvas is one picture or a mosaic of 3x2 or 5x3 pieces. Mosaics show people as high as village cameras see them
(20 to 150 pixels), and several scenes for the price of one pass through the network.

Truth that comes with a canvas:
- targets: boxes to find, each with a weight: 1 for labels, the teacher's score for what only the teacher saw;
- ignores: places where one class earns neither praise nor blame: the teacher is unsure, or it contradicts a set's
  own labels, or only a sliver of the object is inside.
"""

import argparse
import glob
import json
import os

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter
from torch.utils.data import IterableDataset

# The order of the network's outputs. Dogs, horses, sheep and cows have too few pictures to be learned.
LABELS = ("person", "bicycle", "motorcycle", "car", "bus", "truck", "fire", "smoke")
COCO_TO_LABEL = {0: 0, 1: 1, 2: 3, 3: 2, 5: 4, 7: 5}  # COCO's class number to ours

# How often a piece comes from each set, beside the others. People first, then fire and smoke, then vehicles.
SHARES = {
    "capston2-people": 0.27,
    "highway-id": 0.24,
    "coco256": 0.05,
    "traffic-vn-cctv": 0.10,
    "openimages-vehicles": 0.06,
    "vehicles-utebm": 0.03,
    "motorbikes-vn": 0.03,
    "fire-smoke-gjn7t": 0.10,
    "forest-fire": 0.08,
    "fire979": 0.09,
}

TEACHER_SURE, TEACHER_SURER = 0.5, 0.6
# Mosaics: columns and rows, how often, how often a piece shows its whole picture, and how far it may zoom in otherwise.
# A small piece may zoom in further: what matters is how large things are on the canvas.
GRIDS = (((1, 1), 0.35, 0.30, 1.5), ((3, 2), 0.45, 0.15, 1.8), ((5, 3), 0.20, 0.10, 2.2))
SMALLEST = 6  # pixels; shorter boxes are ignored, a cell of stride 8 can hardly see them
PADDING = 114


def list_pictures(folder, split=None):
    """One entry for each picture of the sets, with the split that its manifest names."""
    entries = []
    for name in SHARES:
        with open(os.path.join(folder, name, "manifest.json")) as file:
            manifest = json.load(file)
        for path in sorted(glob.glob(os.path.join(folder, name, "images", "*.webp"))):
            stem = os.path.splitext(os.path.basename(path))[0]
            part = manifest["files"][stem]["split"]
            if split in (None, part):
                entries.append({
                    "set": name,
                    "split": part,
                    "path": f"{name}/images/{stem}.webp",
                    "labelled": [LABELS.index(c) for c in manifest["labelled_classes"] if c in LABELS],
                    "classes": manifest["class_names"],
                })
    return entries


def read_labels(folder, entry, width, height, kind="labels"):
    """Rows of class, x1, y1, x2, y2 in pixels; classes that the model does not know are left out."""
    path = os.path.join(folder, entry["path"].replace("/images/", f"/{kind}/").replace(".webp", ".txt"))
    rows = []
    if os.path.exists(path):
        for line in open(path):
            number, cx, cy, w, h = (float(v) for v in line.split()[:5])
            name = entry["classes"][int(number)]
            if name in LABELS:
                rows.append([LABELS.index(name), (cx - w / 2) * width, (cy - h / 2) * height,
                             (cx + w / 2) * width, (cy + h / 2) * height])
    return np.array(rows, np.float32).reshape(-1, 5)


def overlaps(a, b):
    """IoU of each box in a with each box in b."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), 2)
    area = lambda x: np.prod(x[:, 2:] - x[:, :2], 1)
    return shared / (area(a)[:, None] + area(b)[None] - shared + 1e-9)


def merge(labels, teacher, labelled):
    """Joins a set's labels with the teacher's answers. Rows: class, x1, y1, x2, y2, weight; weight 0 is ignored."""
    rows = [[*row, 1.0] for row in labels]
    for number, x1, y1, x2, y2, score in teacher:
        same = labels[labels[:, 0] == number, 1:]
        near = overlaps(np.array([[x1, y1, x2, y2]]), same).max() if len(same) else 0
        if near > 0.4:
            continue
        if number not in labelled:
            trusted = score >= TEACHER_SURE
        else:
            # Sets forget people in the distance (football, crowds); vehicles they only call by another name.
            trusted = number == 0 and score >= TEACHER_SURER and near < 0.2
        rows.append([number, x1, y1, x2, y2, score if trusted else 0.0])
    return np.array(rows, np.float32).reshape(-1, 6)


def build_cache(folder, cache):
    """Decodes every training picture once: `pixels.u8` and `index.json`. Pictures of split `val` stay out."""
    os.makedirs(cache, exist_ok=True)
    with open(os.path.join(cache, "teacher.json")) as file:
        teacher = json.load(file)
    index, offset = [], 0
    with open(os.path.join(cache, "pixels.u8"), "wb") as pixels:
        for entry in list_pictures(folder, "train"):
            picture = np.asarray(Image.open(os.path.join(folder, entry["path"])).convert("RGB"))
            height, width = picture.shape[:2]
            boxes = merge(read_labels(folder, entry, width, height), teacher[entry["path"]], entry["labelled"])
            masked = read_labels(folder, entry, width, height, "labels_ignore")
            masked = np.concatenate((masked, np.zeros((len(masked), 1), np.float32)), 1)
            index.append({"set": entry["set"], "offset": offset, "width": width, "height": height,
                          "boxes": np.concatenate((boxes, masked)).round(1).tolist()})
            pixels.write(picture.tobytes())
            offset += picture.size
    with open(os.path.join(cache, "index.json"), "w") as file:
        json.dump(index, file)
    print(f"{len(index)} pictures, {offset / 1e9:.2f} GB")


class Canvases(IterableDataset):
    """An endless stream of composed canvases: picture [3,H,W] uint8 and boxes [K,6] as `merge` makes them."""

    def __init__(self, cache, width, height, seed=1):
        with open(os.path.join(cache, "index.json")) as file:
            index = json.load(file)
        self.pixels = np.memmap(os.path.join(cache, "pixels.u8"), np.uint8, "r")
        self.width, self.height, self.seed = width, height, seed
        self.by_set = {name: [e for e in index if e["set"] == name] for name in SHARES}
        for entry in index:
            entry["boxes"] = np.array(entry["boxes"], np.float32).reshape(-1, 6)
        self.names = [name for name in SHARES if self.by_set[name]]
        shares = np.array([SHARES[name] for name in self.names])
        self.shares = shares / shares.sum()

    def __iter__(self):
        self.random = np.random.default_rng(self.seed)
        while True:
            yield self.compose()

    def compose(self):
        canvas = np.full((self.height, self.width, 3), PADDING, np.uint8)
        (columns, rows), _, *habits = GRIDS[self.random.choice(len(GRIDS), p=[grid[1] for grid in GRIDS])]
        across, down = self.cuts(self.width, columns), self.cuts(self.height, rows)
        boxes = []
        for y1, y2 in zip(down, down[1:]):
            for x1, x2 in zip(across, across[1:]):
                piece, found = self.piece(x2 - x1, y2 - y1, *habits)
                canvas[y1 : y1 + piece.shape[0], x1 : x1 + piece.shape[1]] = piece
                found[:, 1:5] += (x1, y1, x1, y1)
                boxes.append(found)
        return canvas.transpose(2, 0, 1).copy(), np.concatenate(boxes)

    def cuts(self, length, parts):
        """Where the pieces of a mosaic meet: even, with some play."""
        edges = np.linspace(0, length, parts + 1)
        edges[1:-1] += self.random.uniform(-0.25, 0.25, parts - 1) * length / parts
        return edges.astype(int)

    def piece(self, width, height, whole, zoom):
        """A random crop of a random picture, scaled to cover width x height (or, sometimes, to fit inside)."""
        random = self.random
        candidates = self.by_set[self.names[random.choice(len(self.names), p=self.shares)]]
        entry = candidates[random.integers(len(candidates))]
        w, h = entry["width"], entry["height"]
        source = self.pixels[entry["offset"] : entry["offset"] + w * h * 3].reshape(h, w, 3)

        cover, fit = max(width / w, height / h), min(width / w, height / h)
        if random.random() < whole:
            scale = fit * random.uniform(0.5, 1.0)
        else:
            scale = cover * np.exp(random.uniform(0, np.log(zoom)))
        stretch = np.exp(random.uniform(-0.12, 0.12))
        scale_x, scale_y = scale * stretch, scale / stretch
        crop_w, crop_h = min(w, width / scale_x), min(h, height / scale_y)
        left, top = random.uniform(0, w - crop_w + 1e-6), random.uniform(0, h - crop_h + 1e-6)
        out_w, out_h = min(width, max(1, round(crop_w * scale_x))), min(height, max(1, round(crop_h * scale_y)))

        kind = Image.BILINEAR if random.random() < 0.8 else Image.NEAREST
        area = (left, top, min(w, left + crop_w), min(h, top + crop_h))
        image = Image.fromarray(source).resize((out_w, out_h), kind, box=area)

        boxes = entry["boxes"].copy()
        boxes[:, 1:5] = (boxes[:, 1:5] - (left, top, left, top)) * (scale_x, scale_y, scale_x, scale_y)
        if random.random() < 0.5:
            image = image.transpose(Image.FLIP_LEFT_RIGHT)
            boxes[:, [1, 3]] = out_w - boxes[:, [3, 1]]
        return self.recolour(image), clip(boxes, out_w, out_h)

    def recolour(self, image):
        """Light, contrast, colour and noise differ between cameras far more than between these sets."""
        random = self.random
        gains = np.ones(3)
        if random.random() < 0.12:  # infrared at night
            image = image.convert("L").convert("RGB")
        elif random.random() < 0.6:
            image = ImageEnhance.Color(image).enhance(random.uniform(0.4, 1.5))
            gains = random.uniform(0.92, 1.08, 3)
        if random.random() < 0.8:
            contrast, light = random.uniform(0.6, 1.4), random.uniform(-35, 35)
            levels = (np.arange(256) - 114) * contrast + 114 + light
            image = image.point(np.clip(np.outer(gains, levels), 0, 255).astype(np.uint8).ravel().tolist())
        if random.random() < 0.15:  # soft lenses, low bit rates
            image = image.filter(ImageFilter.BoxBlur(random.uniform(0.3, 1.0)))
        pixels = np.asarray(image)
        if random.random() < 0.12:
            noise = random.normal(0, random.uniform(2, 10), pixels.shape[:2] + (1,)).astype(np.float32)
            pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
        return pixels


def clip(boxes, width, height):
    """Cuts boxes at the border. Slivers and specks become places to ignore; what is outside is dropped."""
    whole = np.prod(boxes[:, 3:5] - boxes[:, 1:3], 1)
    boxes[:, [1, 3]] = boxes[:, [1, 3]].clip(0, width)
    boxes[:, [2, 4]] = boxes[:, [2, 4]].clip(0, height)
    sides = boxes[:, 3:5] - boxes[:, 1:3]
    inside = np.prod(sides, 1)
    boxes[(inside < 0.35 * whole) | (sides.min(1) < SMALLEST), 5] = 0
    return boxes[sides.min(1) > 1]


def collate(items):
    """Pads the boxes of a batch to one length; padding has class -1."""
    import torch

    images = torch.from_numpy(np.stack([i for i, _ in items]))
    boxes = torch.full((len(items), max(1, max(len(b) for _, b in items)), 6), -1.0)
    for row, (_, found) in zip(boxes, items):
        row[: len(found)] = torch.from_numpy(found)
    return images, boxes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Decode the training pictures once, after teacher.py has run.")
    parser.add_argument("--data", required=True, help="folder of the training sets")
    parser.add_argument("--cache", required=True, help="folder with teacher.json; gets pixels.u8 and index.json")
    args = parser.parse_args()
    build_cache(args.data, args.cache)
