"""Starts from an exported model instead of from random weights: more training, or training on more pictures.

The exported file has its normalisation folded into the convolutions. It is unfolded with the statistics of some
canvases, so that the network answers as the file does, and training goes on with normalisation in its place.
"""

import numpy as np
import onnx
import torch

from data import LABELS
from network import ConvNormRelu, Detector


@torch.no_grad()
def unfolded(path, batches):
    """The network of an exported file. `batches`: pictures [B,3,H,W] that the statistics are taken from."""
    file = onnx.load(path)
    stored = {tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).astype(np.float32))
              for tensor in file.graph.initializer}
    labels = {entry.key: entry.value for entry in file.metadata_props}["sharp_eyes.labels"].split(",")
    rows = [LABELS.index(label) for label in labels]

    network = Detector(len(LABELS)).eval()
    layers = {name: module for name, module in network.named_modules() if isinstance(module, ConvNormRelu)}
    for name, layer in layers.items():
        layer.conv.weight.copy_(stored[f"network.{name}.conv.weight"])
        layer.norm.running_mean.zero_()
        layer.norm.running_var.fill_(1 - layer.norm.eps)
        layer.norm.bias.copy_(stored[f"network.{name}.conv.bias"])
    for number, head in enumerate(network.heads):
        stem = f"network.heads.{number}"
        head.classes.weight[rows] = stored[f"{stem}.classes.weight"]
        head.classes.bias[rows] = stored[f"{stem}.classes.bias"]
        head.distances.weight.copy_(stored[f"{stem}.distances.weight"])
        head.distances.bias.copy_(stored[f"{stem}.distances.bias"])
    network.stem[0].conv.weight.div_(network.pixel_scale)

    sums = {name: [0, 0.0, 0.0] for name in layers}

    def gather(name):
        def hook(_, __, output):
            sums[name][0] += output.numel() // output.shape[1]
            sums[name][1] += output.double().sum((0, 2, 3))
            sums[name][2] += output.double().square().sum((0, 2, 3))
        return hook

    hooks = [layer.conv.register_forward_hook(gather(name)) for name, layer in layers.items()]
    for pictures in batches:
        network(pictures.float())
    for hook in hooks:
        hook.remove()
    for name, layer in layers.items():
        count, total, squares = sums[name]
        mean, variance = total / count, squares / count - (total / count).square()
        layer.norm.running_mean.copy_(mean)
        layer.norm.running_var.copy_(variance)
        layer.norm.weight.copy_((variance + layer.norm.eps).sqrt())
        layer.norm.bias.add_(mean)
    return network
