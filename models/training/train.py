"""Trains the detector for a given number of minutes, on a CPU or a GPU.

The learning rate follows the share of the time that has passed, so a run always ends annealed, however busy the
machine was. Stopped runs go on from their checkpoint, with the time already spent counted.
"""

import argparse
import copy
import itertools
import math
import os
import time

import torch
from torch.utils.data import DataLoader

from continued import unfolded
from data import LABELS, Canvases, collate
from losses import loss
from network import Detector, anchor_points, boxes_from_distances


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", required=True, help="folder that data.py filled")
    parser.add_argument("--checkpoint", required=True, help="file to write, and to go on from if it exists")
    parser.add_argument("--start", help="exported model.onnx to start from instead of from random weights")
    parser.add_argument("--minutes", type=float, default=90, help="length of the whole schedule")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 320), help="width and height of the canvases")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--save-every", type=float, default=180, help="seconds between checkpoints")
    return parser.parse_args()


def rate_at(share, peak):
    """Warm-up over the first 2 %, then half a cosine down to 1 % of the peak."""
    if share < 0.02:
        return peak * (0.05 + 0.95 * share / 0.02)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1, (share - 0.02) / 0.98))))


def optimiser_for(model):
    """Weight decay for convolution kernels only, not for biases and normalisation."""
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": 0.03}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.99))


@torch.no_grad()
def follow(average, model, step):
    """Moves the averaged weights, which are the ones exported, a little towards the present ones."""
    keep = min(0.9985, (1 + step) / (20 + step))
    for mine, new in zip(average.state_dict().values(), model.state_dict().values()):
        if mine.dtype.is_floating_point:
            mine.lerp_(new, 1 - keep)
        else:
            mine.copy_(new)


def save(path, **state):
    """Written beside and renamed, so that a stop in the middle never costs the previous checkpoint."""
    torch.save(state, path + ".new")
    os.replace(path + ".new", path)


def main():
    args = parse()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    goes_on = os.path.exists(args.checkpoint)
    if args.start and not goes_on:
        sample = DataLoader(Canvases(args.cache, *args.size, args.seed), args.batch, collate_fn=collate)
        model = unfolded(args.start, (pictures for pictures, _ in itertools.islice(sample, 20))).train()
    else:
        model = Detector(len(LABELS))
    model.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(model)
    optimiser = optimiser_for(model)
    step, spent = 0, 0.0
    if goes_on:
        state = torch.load(args.checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
        print(f"goes on at step {step}, {spent / 60:.1f} minutes spent", flush=True)

    # A run that goes on draws other canvases than the ones that it has seen.
    canvases = Canvases(args.cache, *args.size, args.seed + 1000 * step)
    loader = DataLoader(canvases, args.batch, num_workers=1, collate_fn=collate, prefetch_factor=8)
    points, strides = anchor_points(args.size[1], args.size[0], device)

    began, saved, printed = time.time() - spent, time.time(), time.time()
    shown = torch.zeros(3)
    for images, truth in loader:
        spent = time.time() - began
        share = spent / (args.minutes * 60)
        if share >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = rate_at(share, args.rate)

        images = images.to(device, memory_format=torch.channels_last).float()
        # bfloat16 convolutions are several times faster on CPUs with AVX512-BF16 or AMX, and on GPUs.
        with torch.autocast(device, torch.bfloat16):
            distances, logits = model(images)
        cost, class_loss, box_loss = loss(
            boxes_from_distances(distances, points, strides), logits, points, truth.to(device)
        )
        optimiser.zero_grad(set_to_none=True)
        cost.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        step += 1
        follow(average, model, step)

        shown += torch.tensor([class_loss, box_loss, 1.0])
        if step % 50 == 0:
            pace = (time.time() - printed) / shown[2] / args.batch * 1000
            print(f"step {step} minute {spent / 60:.1f} rate {rate_at(share, args.rate):.5f} "
                  f"class {shown[0] / shown[2]:.3f} box {shown[1] / shown[2]:.3f} {pace:.1f} ms/canvas", flush=True)
            shown.zero_()
            printed = time.time()
        if time.time() - saved > args.save_every:
            save(args.checkpoint, model=model.state_dict(), average=average.state_dict(),
                 optimiser=optimiser.state_dict(), step=step, spent=spent)
            saved = time.time()

    save(args.checkpoint, model=model.state_dict(), average=average.state_dict(),
         optimiser=optimiser.state_dict(), step=step, spent=spent)
    print(f"done after {step} steps", flush=True)


if __name__ == "__main__":
    main()
