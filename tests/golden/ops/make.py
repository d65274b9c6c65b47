#!/usr/bin/env python3
"""Golden values of single operations, in float64 from PyTorch.

    env/bin/python tests/golden/ops/make.py [--check]    (../fixtures.py says of what environment, and what is rounded when)

Everywhere `dy` is a random upstream gradient of `y` and dNAME the gradient of sum(y * dy) with respect to NAME, and every one of
them was checked against central differences before it was written.

    linear.ACT/        x [5, 4], w [3, 4], b [3] -> y = act(x w' + b); ACT linear relu elu leaky_relu_0.01 leaky_relu_0.2 sigmoid tanh
    batch_norm.MODE/   x [7, 5] -> y; MODE train, eval, train_affine, eval_affine (gamma, beta [5]); eps 1e-5. Column 4 of x is nearly constant.
                       mean, var: the running statistics before; mean_after, var_after: after a training pass,
                       running <- 0.9 running + 0.1 batch with the biased variance, var_after_unbiased with the other one
    mse.masked/        y = sum over observed (x - target)^2 / count; NaN in the target is missing
    mse.weighted/      y = sum over observed w_r (x - target)^2 / sum over observed of w_r; w [6] one weight a row, some 0
    adam.plain/        p_0 .. p_5 [9] under gradients g_1 .. g_5, lr 1e-3, betas 0.9 0.999, eps 1e-7
    adam.decay/        the same with lr 1e-2, betas 0.5 0.999, eps 1e-8 and decoupled decay 0.1 (AdamW)
    smallest.CASE/     z [9, 3] -> y the smallest eigenvalue of Zc'Zc/(n-1); CASE random, collapsed (two columns equal but for 1e-3)
    whiten.CASE/       z [9, 3] -> y = Zc (Zc'Zc/(n-1) + 1e-3 I)^(-1/2); CASE random, collapsed as above, repeated (z [8, 3] of orthogonal
                       columns, two of the same length: two equal eigenvalues)
"""
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import fixtures

ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": torch.relu,
    "elu": F.elu,
    "leaky_relu_0.01": lambda x: F.leaky_relu(x, 0.01),
    "leaky_relu_0.2": lambda x: F.leaky_relu(x, 0.2),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
rng = np.random.default_rng(2019)
out = {}


def normal(*shape, scale=1.0, shift=0.0):
    """Normal numbers that float32 holds exactly."""
    return fixtures.exact(shift + scale * rng.standard_normal(shape))


def put(room, **tensors):
    out.update(fixtures.under(f"{room}/", tensors))


def golden(room, f, constants={}, **inputs):
    """Stores y = f(**inputs, **constants) and the gradients of sum(y * dy), once differences agree with them."""
    for t in inputs.values():
        t.requires_grad_()
    y = f(**inputs, **constants)
    dy = normal(*y.shape)
    grads = torch.autograd.grad((y * dy).sum(), list(inputs.values()))
    with torch.no_grad():
        for (name, t), g in zip(inputs.items(), grads):
            d = torch.from_numpy(rng.standard_normal(tuple(t.shape)))
            h = 1e-6
            at = [(f(**(inputs | {name: t + s * d}), **constants) * dy).sum().item() for s in (h, -h)]
            slope, expected = (at[0] - at[1]) / (2 * h), (g * d).sum().item()
            assert abs(slope - expected) <= 1e-6 * (abs(expected) + g.norm() * d.norm()), f"{room}: d{name}: {slope} {expected}"
    put(room, **inputs, **constants, y=y, dy=dy, **{f"d{name}": g for name, g in zip(inputs, grads)})


def batch_norm(mode):
    x = normal(7, 5, scale=2.0, shift=1.0)
    x[:, 4] = 3 + 2.0**-12 * x[:, 4].round()
    mean, var = normal(5), normal(5).abs() + 0.5
    inputs = dict(x=x) | (dict(gamma=normal(5, shift=1.0), beta=normal(5)) if "affine" in mode else {})
    normalise = lambda x, gamma=None, beta=None: F.batch_norm(x, mean.clone(), var.clone(), gamma, beta, "train" in mode, 0.1, 1e-5)
    room = f"batch_norm.{mode}"
    golden(room, normalise, **inputs)
    put(room, mean=mean, var=var)
    if "train" in mode:
        after = {f"var_after{n}": 0.9 * var + 0.1 * x.var(0, correction=c) for n, c in (("", 0), ("_unbiased", 1))}
        put(room, mean_after=0.9 * mean + 0.1 * x.mean(0), **after)


def mse(x, target, w=torch.ones(6, dtype=torch.float64)):
    w = w[:, None] * ~target.isnan()
    return (w * (x - target.nan_to_num()) ** 2).sum() / w.sum()


def adam(room, kind, **options):
    p = normal(9).requires_grad_()
    optimiser = kind([p], foreach=False, **options)
    put(room, p_0=p)
    for t in range(1, 6):
        # sizes from 1e-6 up, so that eps shows, and a zero that must not become NaN
        p.grad = normal(9) * 10.0 ** torch.arange(-6, 3).double()
        p.grad[4] = 0
        p.grad = p.grad.float().double()
        g = p.grad.clone()
        optimiser.step()
        put(room, **{f"g_{t}": g, f"p_{t}": p})


def covariance(z):
    zc = z - z.mean(0)
    return zc.T @ zc / (len(z) - 1)


class InverseRoot(torch.autograd.Function):
    """S = c^(-1/2). From S c S = I: dS (cS) + (Sc) dS = -S dc S, a linear system in dS that does not ask for distinct eigenvalues."""

    @staticmethod
    def forward(ctx, c):
        l, q = np.linalg.eigh(c.detach().numpy())
        s = (q * l**-0.5) @ q.T
        ctx.matrices = c.detach().numpy(), s
        return torch.from_numpy(s)

    @staticmethod
    def backward(ctx, dy):
        c, s = ctx.matrices
        eye = np.eye(len(c))
        system = np.kron(eye, s @ c) + np.kron((c @ s).T, eye)  # columns stacked
        u = np.linalg.solve(system.T, dy.numpy().T.ravel()).reshape(c.shape).T
        dc = -s @ u @ s
        return torch.from_numpy((dc + dc.T) / 2)


def make(*_):
    for name, act in ACTIVATIONS.items():
        golden(f"linear.{name}", lambda x, w, b: act(x @ w.T + b), x=normal(5, 4), w=normal(3, 4), b=normal(3))
    for mode in ("train", "eval", "train_affine", "eval_affine"):
        batch_norm(mode)
    target = normal(6, 4)
    target[rng.random((6, 4)) < 0.25] = torch.nan
    assert 0 < target.isnan().sum() < 12
    golden("mse.masked", mse, dict(target=target), x=normal(6, 4))
    golden("mse.weighted", mse, dict(target=target, w=torch.tensor([1, 0.25, 0, 0.5, 0.75, 0]).double()), x=normal(6, 4))
    adam("adam.plain", torch.optim.Adam, lr=1e-3, betas=(0.9, 0.999), eps=1e-7)
    adam("adam.decay", torch.optim.AdamW, lr=1e-2, betas=(0.5, 0.999), eps=1e-8, weight_decay=0.1)
    z = normal(9, 3)
    collapsed = z.clone()
    collapsed[:, 2] = z[:, 0] + 2.0**-10 * z[:, 2]
    collapsed = collapsed.float().double()
    smallest = lambda z: torch.linalg.eigvalsh(covariance(z))[:1]
    golden("smallest.random", smallest, z=z)
    golden("smallest.collapsed", smallest, z=collapsed)
    i = torch.arange(8)
    repeated = torch.stack([(-1.0) ** (i // 4), (-1.0) ** (i // 2), 2 * (-1.0) ** i], 1).double()
    for name, code in (("random", z), ("collapsed", collapsed), ("repeated", repeated)):
        golden(f"whiten.{name}", lambda z: (z - z.mean(0)) @ InverseRoot.apply(covariance(z) + 1e-3 * torch.eye(3)), z=code.detach().clone())
    return fixtures.packed(out), f"{len(out)} tensors"


if __name__ == "__main__":
    fixtures.main(__file__, {"ops": None}, make)
