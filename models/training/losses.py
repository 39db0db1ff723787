"""Which cells answer for which box, and what a wrong answer costs.

Assignment follows TOOD: of the cells whose centre lies inside a box, those that already see it best (class score and
overlap together) are asked to find it, and their target score says how well they fit. Nothing has to be tuned by the
size of objects or by stride.
"""

import torch
import torch.nn.functional as F

CANDIDATES = 10
SCORE_POWER, OVERLAP_POWER = 1.0, 6.0
BOX_WEIGHT = 2.5


def aligned_iou(a, b):
    """IoU and generalised IoU of boxes paired by broadcasting."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    joint = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared + 1e-6
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1) + 1e-6
    iou = shared / joint
    return iou, iou - (hull - joint) / hull


def centres_inside(boxes, points):
    """For each box and each cell: does the cell's centre lie inside? [T,N]"""
    x, y = points[:, 0], points[:, 1]
    x1, y1, x2, y2 = boxes[:, :, None].unbind(1)
    return (x > x1) & (x < x2) & (y > y1) & (y < y2)


@torch.no_grad()
def assign(scores, boxes, points, truth):
    """For a batch: target scores [B,N,C], target boxes [B,N,4] and where class loss counts [B,N,C].

    scores [B,N,C] and boxes [B,N,4] are the network's present answers; truth [B,K,6] as `data.merge` makes it.
    The boxes of all pictures go in one flat list of length T: far less work than padding each picture to K.
    """
    batch, cells, _ = scores.shape
    targets, target_boxes = torch.zeros_like(scores), torch.zeros_like(boxes)
    counts = torch.ones_like(scores)
    real = truth[..., 0] >= 0

    picture, row = (real & (truth[..., 5] == 0)).nonzero(as_tuple=True)
    box, cell = centres_inside(truth[picture, row, 1:5], points).nonzero(as_tuple=True)
    counts[picture[box], cell, truth[picture, row, 0].long()[box]] = 0

    picture, row = (real & (truth[..., 5] > 0)).nonzero(as_tuple=True)
    if not len(picture):
        return targets, target_boxes, counts
    number, wanted, weight = truth[picture, row, 0].long(), truth[picture, row, 1:5], truth[picture, row, 5]

    # Everything below is [T,N], and mostly zero.
    inside = centres_inside(wanted, points)
    box, cell = inside.nonzero(as_tuple=True)
    near = aligned_iou(wanted[box], boxes[picture[box], cell])[0].clamp(min=0)
    seen = scores[picture[box], cell, number[box]]
    iou = torch.zeros(inside.shape, device=boxes.device)
    fit = torch.zeros_like(iou)
    iou[box, cell] = near + 1e-6
    # The small number lets cells in a box compete even at the start, when nothing overlaps yet.
    fit[box, cell] = seen.pow(SCORE_POWER) * near.pow(OVERLAP_POWER) + 1e-12

    best, cell = fit.topk(CANDIDATES, -1)
    chosen = torch.zeros_like(inside).scatter_(1, cell, best > 0)

    # The best cell of a box is asked for the overlap that it reaches, the others for less, each in its share.
    # A cell that several boxes want goes to the one that it overlaps most.
    quality = fit / best[:, :1].clamp(min=1e-12) * (iou * chosen).amax(1, keepdim=True) * weight[:, None]
    box, cell = chosen.nonzero(as_tuple=True)
    slot = picture[box] * cells + cell
    strongest = torch.zeros(batch * cells, device=boxes.device).scatter_reduce_(0, slot, iou[box, cell], "amax")
    owns = iou[box, cell] == strongest[slot]
    box, cell = box[owns], cell[owns]
    targets[picture[box], cell, number[box]] = quality[box, cell].clamp(max=1)
    target_boxes[picture[box], cell] = wanted[box]
    counts[picture[box], cell, number[box]] = 1
    return targets, target_boxes, counts


def loss(distances_as_boxes, logits, points, truth):
    """Class and box loss of a batch, as one number to minimise and two to print."""
    targets, target_boxes, counts = assign(logits.sigmoid(), distances_as_boxes, points, truth)
    total = targets.sum().clamp(min=1)
    class_loss = (F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * counts).sum() / total

    weight = targets.amax(-1)
    positive = weight > 0
    _, giou = aligned_iou(distances_as_boxes[positive], target_boxes[positive])
    box_loss = ((1 - giou) * weight[positive]).sum() / total
    return class_loss + BOX_WEIGHT * box_loss, class_loss.item(), box_loss.item()
