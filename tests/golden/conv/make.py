#!/usr/bin/env python3
"""Golden values of convolutions and of batch norm over images: PyTorch's own, in float64.

    env/bin/python tests/golden/conv/make.py [--check]    (../fixtures.py says of what environment, and what is rounded when)

For every CASE (SIZES below; its numbers are in __metadata__.sizes)
    CASE/x [B, in*H*W]   CASE/w [rows, cols]   CASE/b [1, out]     operands; w and b as PyTorch has them, flattened
    CASE/y               f(conv2d) or f(conv_transpose2d), f leaky ReLU of slope 0.2
    CASE/dy              the upstream gradient;  CASE/dx dw db     the gradients
and for batch norm over 4 cells of 3 channels of 5x2 pixels, momentum 0.1, eps 1e-5, f leaky ReLU of slope 0.2
    norm/x gamma beta y dy dx dgamma dbeta mean var     training; mean and var: the running statistics afterwards, from 0 and 1
    norm/eval                                           of the same x by those
"""
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import fixtures

# transposed, B, in, out, H, W, kernel, stride, padding
SIZES = {
    "point": (0, 3, 5, 3, 3, 4, 1, 1, 0),
    "same": (0, 2, 3, 6, 5, 7, 3, 1, 1),
    "half": (0, 2, 3, 10, 8, 6, 4, 2, 1),
    "left-over": (0, 1, 2, 5, 12, 9, 5, 3, 2),
    "double": (1, 2, 10, 3, 4, 3, 4, 2, 1),
    "transposed-same": (1, 2, 3, 4, 5, 6, 3, 1, 1),
    "transposed-third": (1, 1, 3, 2, 3, 4, 5, 3, 2),
}


def make(_, sizes):
    rng = np.random.default_rng(11)
    draw = lambda *shape: fixtures.exact(rng.uniform(-1, 1, shape))
    out = {}

    def put(name, t):
        out[name] = fixtures.stored(t.reshape(t.shape[0] if t.dim() > 1 else 1, -1))

    for name, (transposed, B, inputs, outputs, H, W, k, s, p) in sizes.items():
        x, b = draw(B, inputs, H, W).requires_grad_(), draw(outputs).requires_grad_()
        w = draw(*((inputs, outputs) if transposed else (outputs, inputs)), k, k).requires_grad_()
        y = F.leaky_relu((F.conv_transpose2d if transposed else F.conv2d)(x, w, b, s, p), 0.2)
        dy = draw(*y.shape)
        dx, dw, db = torch.autograd.grad(y, [x, w, b], dy)
        for what, t in dict(x=x, w=w, b=b, y=y, dy=dy, dx=dx, dw=dw, db=db).items():
            put(f"{name}/{what}", t)

    norm = torch.nn.BatchNorm2d(3, eps=1e-5, momentum=0.1).double()
    x, gamma, beta = draw(4, 3, 5, 2).requires_grad_(), draw(3), draw(3)
    with torch.no_grad():
        norm.weight.copy_(gamma)
        norm.bias.copy_(beta)
    y = F.leaky_relu(norm(x), 0.2)
    dy = draw(*y.shape)
    dx, dgamma, dbeta = torch.autograd.grad(y, [x, norm.weight, norm.bias], dy)
    norm.eval()
    values = dict(x=x, gamma=gamma, beta=beta, y=y, dy=dy, dx=dx, dgamma=dgamma, dbeta=dbeta, mean=norm.running_mean, var=norm.running_var)
    for what, t in values.items():
        put(f"norm/{what}", t)
    put("norm/eval", F.leaky_relu(norm(x), 0.2))

    return fixtures.packed(out, sizes=sizes), f"{len(out)} tensors"


if __name__ == "__main__":
    fixtures.main(__file__, {"conv": SIZES}, make)
