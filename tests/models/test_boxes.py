"""Default boxes, offsets, overlaps and detections, against loops written from the paper."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from pyconv_search.arch.heads.fpn import FPN
from pyconv_search.arch.presets import preset
from pyconv_search.errors import UserError
from pyconv_search.models.boxes import (
    centres,
    corners,
    decode,
    default_boxes,
    default_boxes_of,
    detect,
    encode,
    overlap,
    scales,
    suppress,
)

MAPS = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]
BOXES = [4, 6, 6, 6, 4, 4]
PIXELS = [21, 45, 99, 153, 207, 261, 315]
RATIOS = [[2], [2, 3], [2, 3], [2, 3], [2], [2]]


def listed(steps):
    """SSD-300's boxes for COCO one by one; ``steps`` in pixels, or None for the image's side through the map's."""
    found = []
    for k, (side, _) in enumerate(MAPS):
        step = steps[k] / 300 if steps else 1 / side
        s, between = PIXELS[k] / 300, math.sqrt(PIXELS[k] * PIXELS[k + 1]) / 300
        for row in range(side):
            for column in range(side):
                shapes = [(s, s), (between, between)]
                for a in RATIOS[k]:
                    shapes += [(s * math.sqrt(a), s / math.sqrt(a)), (s / math.sqrt(a), s * math.sqrt(a))]
                found += [((column + 0.5) * step, (row + 0.5) * step, *shape) for shape in shapes]
    return torch.tensor([[min(max(v, 0), 1) for v in box] for box in found])


@pytest.mark.parametrize("steps", [None, (8, 16, 32, 64, 100, 300)])
def test_the_boxes_of_ssd_300(steps):
    found = default_boxes(MAPS, BOXES, (300, 300), steps=steps)
    assert found.shape == (8732, 4)
    torch.testing.assert_close(found, listed(steps))


def test_scales_are_those_for_coco():
    assert [round(300 * s, 6) for s in scales(6)] == PIXELS
    # SSD-512's, as released: 4 percent, and from 10 towards 90 over seven maps.
    assert [round(512 * s, 2) for s in scales(7, 4, 10)] == [20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72]
    assert scales(1) == (0.07, 0.15)


def test_boxes_of_oblong_images_keep_their_shape():
    found = default_boxes([(2, 4)], [4], (100, 200), shares=(0.1, 0.4))
    pixels = found.double() * torch.tensor([200, 100, 200, 100])
    root = math.sqrt(2)
    wanted = [[10, 10], [20, 20], [10 * root, 10 / root], [10 / root, 10 * root]]
    torch.testing.assert_close(pixels[:4, 2:], torch.tensor(wanted, dtype=torch.float64))
    assert pixels[4 * 5, :2].tolist() == [75, 75]  # second row, second column


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((MAPS, BOXES[:5], (300, 300)), "boxes must have 6 entries for 6 feature maps, but got 5"),
        ((MAPS, BOXES, (300, 300), [0.5]), "shares must have 7 entries for 6 feature maps, but got 1"),
        ((MAPS, BOXES, (300, 300), None, [8]), "steps must have 6 entries for 6 feature maps, but got 1"),
        (([(1, 1)], [5], (30, 30)), "boxes must hold 2, 4 or 6, but got 5; nearest: 4, 6"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        default_boxes(*arguments)


def test_only_an_ssd_has_default_boxes():
    for head, kind in ((None, "none"), (FPN(), "fpn")):
        with pytest.raises(UserError, match=f"head must be ssd, which has default boxes, but got {kind}"):
            default_boxes_of(replace(preset("resnet-18"), head=head))


def some_boxes(*shape, seed=0):
    torch.manual_seed(seed)
    low = torch.rand(*shape, 2, dtype=torch.float64)
    return torch.cat([low, low + 0.05 + 0.4 * torch.rand(*shape, 2, dtype=torch.float64)], -1)


def test_decode_inverts_encode():
    defaults = default_boxes(MAPS, BOXES, (300, 300)).double()
    boxes = some_boxes(2, 8732)
    torch.testing.assert_close(decode(encode(boxes, defaults), defaults), boxes)
    torch.testing.assert_close(corners(centres(boxes)), boxes)
    assert encode(corners(defaults), defaults).abs().max() < 1e-12


def test_an_offset_by_hand():
    """Half a width to the right and twice as high: 0.5/0.1 and ln 2/0.2."""
    default = torch.tensor([[0.5, 0.5, 0.2, 0.1]])
    found = encode(corners(torch.tensor([[0.6, 0.5, 0.2, 0.2]])), default)
    torch.testing.assert_close(found, torch.tensor([[5, 0, 0, math.log(2) / 0.2]]), atol=1e-5, rtol=0)


def jaccard(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / both if both else 0.0


def test_overlap():
    boxes, others = some_boxes(12), some_boxes(9, seed=1)
    others[0], others[1] = boxes[3], torch.tensor([0.5, 0.5, 0.5, 0.5])
    wanted = torch.tensor([[jaccard(a, b) for b in others.tolist()] for a in boxes.tolist()], dtype=torch.float64)
    torch.testing.assert_close(overlap(boxes, others), wanted)
    assert overlap(boxes, others)[3, 0] == 1


def greedy(boxes, most):
    """The indices that stay, best first."""
    stays = []
    for i, box in enumerate(boxes):
        if all(jaccard(box, boxes[j]) <= most for j in stays):
            stays.append(i)
    return stays


@pytest.mark.parametrize("most", [0.05, 0.2, 0.45, 0.9])
def test_suppression_is_the_greedy_one(most):
    boxes = some_boxes(3, 60)
    candidates = torch.ones(3, 60, dtype=torch.bool)
    candidates[1, 40:] = candidates[2] = False
    found = suppress(boxes, candidates, most)
    for n, (own, count) in enumerate(zip(boxes.tolist(), (60, 40, 0), strict=True)):
        assert found[n].nonzero().flatten().tolist() == greedy(own[:count], most)


def test_a_long_chain_of_suppressions():
    """Each box covers the next one only: every second one stays."""
    left = torch.arange(200, dtype=torch.float64) * 0.5
    chain = torch.stack([left, 0 * left, left + 1, 0 * left + 1], -1)
    stays = suppress(chain, torch.ones(200, dtype=torch.bool), 0.3)
    assert stays.tolist() == [True, False] * 100


@pytest.mark.parametrize(("candidates", "most"), [(400, 200), (15, 200), (400, 7)])
def test_detections_against_loops(candidates, most):
    torch.manual_seed(1)
    defaults = default_boxes([(4, 4), (2, 2)], [4, 6], (64, 64)).double()
    locations = torch.randn(3, len(defaults), 4, dtype=torch.float64)
    scores = 3 * torch.randn(3, len(defaults), 5, dtype=torch.float64)
    scores[2, :, 0] = 50  # nothing but background
    found = detect(locations, scores, defaults, 0.05, 0.3, candidates, most)
    for n, image in enumerate(found):
        wanted = []
        boxes = decode(locations, defaults)[n].tolist()
        for label in range(1, 5):
            chances = scores[n].softmax(-1)[:, label].tolist()
            order = sorted(range(len(boxes)), key=lambda i, c=chances: -c[i])[:candidates]
            order = [i for i in order if chances[i] > 0.05]
            stays = greedy([boxes[i] for i in order], 0.3)
            wanted += [(chances[order[j]], label, boxes[order[j]]) for j in stays]
        wanted = sorted(wanted, key=lambda one: -one[0])[:most]
        assert image.labels.tolist() == [label for _, label, _ in wanted]
        assert image.scores.tolist() == pytest.approx([chance for chance, _, _ in wanted])
        assert image.boxes.shape == (len(wanted), 4)
        assert image.boxes.flatten().tolist() == pytest.approx([v for _, _, box in wanted for v in box])
    assert len(found[2].labels) == 0


def test_detect_wants_as_many_boxes():
    with pytest.raises(UserError, match="must hold as many boxes, but got 3, 3 and 4"):
        detect(torch.zeros(1, 3, 4), torch.zeros(1, 3, 2), torch.zeros(4, 4))
