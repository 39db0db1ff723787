"""Writes a checkpoint as the ONNX file that the agent runs, and the manifest beside it."""

import argparse
import hashlib
import os

import onnx
import torch
import torch.nn as nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from data import LABELS, PADDING
from network import STRIDES, ConvNormRelu, Detector

WIDTH, HEIGHT = 512, 320
TRAINING_DATA = (
    "highway-id (CC BY 4.0)",
    "capston2-people (CC BY 4.0)",
    "openimages-vehicles (boxes CC BY 4.0, pictures CC BY 2.0)",
    "vehicles-utebm (MIT)",
    "traffic-vn-cctv (CC BY 4.0)",
    "motorbikes-vn (CC BY 4.0)",
    "fire-smoke-gjn7t (CC BY 4.0)",
    "forest-fire (CC BY 4.0)",
    "fire979 (CC BY 4.0)",
    "coco256 train split (boxes CC BY 4.0, pictures Flickr terms)",
)


class Deployed(nn.Module):
    """The trained network with normalisation and pixel scale folded into the convolutions, for some classes only."""

    def __init__(self, network, labels):
        super().__init__()
        for module in network.modules():
            if isinstance(module, ConvNormRelu):
                module.conv = fuse_conv_bn_eval(module.conv, module.norm)
                module.norm = nn.Identity()
        keep = [LABELS.index(label) for label in labels]
        for head in network.heads:
            head.classes.weight = nn.Parameter(head.classes.weight[keep])
            head.classes.bias = nn.Parameter(head.classes.bias[keep])
        with torch.no_grad():
            network.stem[0].conv.weight.mul_(network.pixel_scale)
        network.pixel_scale = 1.0
        self.network = network

    def forward(self, images):
        distances, logits = self.network(images)
        return distances, logits.sigmoid()


def multiply_adds(network):
    total = 0

    def count(module, _, output):
        nonlocal total
        total += module.weight.numel() * output.shape[2] * output.shape[3]

    handles = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    network(torch.zeros(1, 3, HEIGHT, WIDTH))
    for handle in handles:
        handle.remove()
    return total


def manifest(version, labels, thresholds, digest):
    quoted = lambda items: "[" + ", ".join(f'"{item}"' for item in items) + "]"
    data = "".join(f'    "{entry}",\n' for entry in TRAINING_DATA)
    chosen = "".join(f"{label} = {value:.2f}\n" for label, value in thresholds.items())
    return f'''name = "village-detector"
version = "{version}"
layout = "ltrb"
labels = {quoted(labels)}
licence = "Apache-2.0"
training_data = [
{data}]
sha256 = "{digest}"

[input]
width = {WIDTH}
height = {HEIGHT}
colour = "rgb"
scale = 1.0           # tensor = (pixel - mean) * scale
mean = [0.0, 0.0, 0.0]
padding = {PADDING}

[thresholds]
default = 0.35
{chosen}'''


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--out", required=True, help="folder for model.onnx and manifest.toml")
    parser.add_argument("--version", default="1.0.0")
    parser.add_argument("--drop", nargs="*", default=[], choices=LABELS, help="labels too weak to ship")
    parser.add_argument("--threshold", nargs="*", default=[], help="label=score, as measured with evaluate.py")
    args = parser.parse_args()

    labels = [label for label in LABELS if label not in args.drop]
    network = Detector(len(LABELS)).eval()
    network.load_state_dict(torch.load(args.checkpoint, map_location="cpu")["average"])
    model = Deployed(network, labels).eval()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, "
          f"{2 * multiply_adds(model) / 1e9:.2f} GFLOPs at {WIDTH}x{HEIGHT}")

    os.makedirs(args.out, exist_ok=True)
    path = os.path.join(args.out, "model.onnx")
    torch.onnx.export(
        model, (torch.zeros(1, 3, HEIGHT, WIDTH),), path, opset_version=17, dynamo=False,
        input_names=["images"], output_names=["distances", "scores"],
    )
    file = onnx.load(path)
    properties = {"layout": "ltrb", "strides": ",".join(map(str, STRIDES)), "labels": ",".join(labels),
                  "version": args.version}
    onnx.helper.set_model_props(file, {f"sharp_eyes.{key}": value for key, value in properties.items()})
    onnx.checker.check_model(file, full_check=True)
    onnx.save(file, path)

    with open(path, "rb") as written:
        digest = hashlib.sha256(written.read()).hexdigest()
    thresholds = {label: float(value) for label, value in (pair.split("=") for pair in args.threshold)}
    with open(os.path.join(args.out, "manifest.toml"), "w") as written:
        written.write(manifest(args.version, labels, thresholds, digest))
    print(f"{path}: {os.path.getsize(path) / 1e6:.2f} MB, labels {', '.join(labels)}")


if __name__ == "__main__":
    main()
