#!/usr/bin/env python3
"""Golden values of JAMIE: a restatement in PyTorch, in float64, of a whole training step as the head of src/models/jamie.rs has it.

    env/bin/python tests/golden/jamie/make.py [--check]    (../fixtures.py says of what environment, and what is rounded when)

Pair weights and F are rounded as data and initial weights are. e is the engine's own, from its Philox streams; no dropout.

The model, for k arms, n rows, p latent dimensions; W_IJ, F_IJ [n, n] with I's cells as rows and J's as columns
    block          leaky_0.01(gamma (u - mean)/sqrt(var + 1e-5) + beta), u = x W' + b, var biased, over all n rows
                   running <- 0.9 running + 0.1 batch, from mean 0 and variance 1, of the variance n/(n-1) var
    encoder        blocks F -> 2F -> F, then mu and logvar by a linear map each
    decoder        blocks p -> F -> 2F, then linear to F
    z              mu + (exp(logvar/2) + 1e-7) e, e standard normal: number row p + column of the stream sample.NAME in step t
    F_AB, F_BA     F and F' with every row divided by its sum, F = inferred/A_B; rows of zeros stay
    W_AB           r diag(w) + (1 - r) F_AB, w = pair/A_B, r = pf_ratio; W_BA likewise of F_BA
    c_I            (s_I z_I + sum_J s_J W_IJ z_J) / (s_I + sum_J s_J W_IJ 1), J all other arms; z_I where all W_IJ 1 are 0
    kl.NAME        mean of -(1 + logvar - mu^2 - exp(logvar))/2
    recon.NAME     mean of (decoder(c) - x)^2
    comb.NAME      mean of (z - c)^2
    align.I        mean of (c_I - F_IJ c_J)^2; of more than two arms align.I_J
    total          kl/(1 + exp(-5 (t - 1 - h)/h)) sum kl.* + recon sum recon.* + comb sum comb.* + align/2/(k - 1) sum align.*,
                   or one-sided align/(k - 1) the sum of those of I before J; h = min_epochs/2, and every step is an epoch
    step           the whole gradient times min(1, clip/(its norm + 1e-6)), Adam (1e-3, 0.9, 0.999, 1e-8 added to the root of the
                   bias-corrected second moment), then every sigma below 1e-4 becomes 1e-4

In a file (parameters P and states S in alphabetical order, laid end to end; their shapes stand in the configuration)
    x/NAME [n, F]                   data
    pair/A_B [n]                    w; absent where every row is a pair
    inferred/A_B [n, n]             F; absent where none is inferred
    init, grad, after               of P: start, gradient of the total before it is clipped, after ten steps
    first                           of S: running statistics after one training pass
    after_states                    of S: the running variances after ten steps
    eval/code.NAME                  mu by those of `first`, with the weights of the start
    eval/A_to_B                     the decoder of B of that mu of A, also to itself
    term/T                          every loss term and term/total, before the first step (float64)
    losses, norms [10]              the total, and the norm of its gradient, before each of the ten steps (float64)
    __metadata__.config             JSON: options, shapes, and under `float32` how far the same program strays when PyTorch runs it in
                                    float32, a measure for tolerances: `gradient` is the largest |g32 - g| / (|g| + 1e-6 max |g|) of a
                                    parameter (norms), `losses` and `norms` the largest relative error, `after` the largest absolute
                                    difference of a weight

Batch norm cancels what shifts all rows alike: the bias of the linear map before it. Its gradient is zero but for rounding, which
Adam then divides by its own size: where it ends is chance, and nothing depends on it but the running mean. Both are NaN in after and
after_states, and the gradient is 0 in grad.
"""
import itertools
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import fixtures
from layers import batch_norm, linear
from philox import Random

STEPS = 10
SLOPE, LEAST_SIGMA = 0.01, 1e-4
SEED = 0x5EED0001C0DE0002  # of the engine: both halves of Philox's key

# options: as the command line has them; the model's defaults but for what a case says
OPTIONS = dict(kl=0.032, comb=32, recon=1, align=1, align_sides="both", pf_ratio=1, clip=1, lr=1e-3, min_epochs=6)
# pairs: confidence of the rows in turn, or None where every row is a pair; every pair of modalities begins two rows later
CASE = dict(names=["a", "b"], features=[7, 4], latent=3, rows=13, pairs=None, options={}, sigma=None)
SOME = [1, 0.35, 0, 1, 0.8, 0, 0]
CASES = {
    "paired": CASE | dict(seed=1),
    "partly-paired": CASE | dict(seed=1, pairs=SOME, options=dict(pf_ratio=0.6, kl=0.5)),
    "no-pairs": CASE | dict(seed=1, pairs=[0], options=dict(kl=0.5)),
    "inferred-only": CASE | dict(seed=1, pairs=[0], options=dict(pf_ratio=0, clip=0)),
    "one-sided": CASE | dict(seed=1, pairs=SOME, options=dict(align_sides="one", kl=0.02, recon=0.02, comb=0.03, align=0.1)),
    "no-align": CASE | dict(seed=1, pairs=SOME, options=dict(align=0)),
    "three": CASE | dict(seed=1, names=["a", "b", "c"], features=[7, 4, 5], pairs=SOME, options=dict(pf_ratio=0.6, kl=0.5)),
    "three-one-sided": CASE | dict(seed=2, names=["a", "b", "c"], features=[4, 6, 5], options=dict(align_sides="one", kl=0.5)),
    "sigma-clamped": CASE | dict(seed=1, sigma=[0.0005, 0.0003], options=dict(comb=0.05)),
}


def make_inputs(c):
    """Weights, data, pair weights and F, as float32 arrays."""
    rng = np.random.default_rng(c["seed"])
    n, p = c["rows"], c["latent"]
    shared = rng.standard_normal((n, 3))  # what the arms have in common
    weights, data = {}, []

    def draw_linear(name, fan_in, fan_out, size=1.0):
        bound = size * np.sqrt(6 / (fan_in + fan_out))
        weights[f"{name}.weight"] = rng.uniform(-bound, bound, (fan_out, fan_in))
        weights[f"{name}.bias"] = rng.uniform(-0.3, 0.3, (1, fan_out))

    def draw_block(name, fan_in, fan_out):
        draw_linear(f"{name}.linear", fan_in, fan_out)
        weights[f"{name}.norm.weight"] = rng.uniform(0.5, 1.5, (1, fan_out))
        weights[f"{name}.norm.bias"] = rng.uniform(-0.3, 0.3, (1, fan_out))

    for i, (name, f) in enumerate(zip(c["names"], c["features"])):
        draw_block(f"enc.{name}.0", f, 2 * f)
        draw_block(f"enc.{name}.1", 2 * f, f)
        draw_linear(f"enc.{name}.mu", f, p)
        draw_linear(f"enc.{name}.logvar", f, p, 0.5)
        draw_block(f"dec.{name}.0", p, f)
        draw_block(f"dec.{name}.1", f, 2 * f)
        draw_linear(f"dec.{name}.2", 2 * f, f)
        weights[f"sigma.{name}"] = rng.uniform(0.2, 1, (1, 1)) if c["sigma"] is None else np.full((1, 1), c["sigma"][i])
        data.append(shared @ rng.standard_normal((3, f)) + 0.5 * rng.standard_normal((n, f)))
    option = OPTIONS | c["options"]
    f32, pair, inferred = lambda a: a.astype(np.float32), {}, {}
    for at, (i, j) in enumerate(itertools.combinations(range(len(c["names"])), 2)):
        if c["pairs"] is not None:
            pair[i, j] = f32(np.roll(np.resize(np.array(c["pairs"], float), n), -2 * at))
        # cells that correspond to nothing on either side; row sums that are not 1
        f = rng.random((n, n)) ** 3 * (rng.random((n, n)) < 0.6) + 0.3 * np.eye(n)
        f[4], f[:, 9] = 0, 0
        if option["align"] > 0 or option["pf_ratio"] < 1:
            inferred[i, j] = f32(f)
    return {name: f32(w) for name, w in weights.items()}, [f32(a) for a in data], pair, inferred


class Model:
    def __init__(self, c, dtype):
        self.c, self.option, self.dtype = c, OPTIONS | c["options"], dtype
        weights, data, pair, inferred = make_inputs(c)
        t = lambda a: torch.from_numpy(a).to(dtype)
        self.w = {name: t(a).requires_grad_() for name, a in weights.items()}
        self.x = [t(a) for a in data]
        self.pair = {ij: t(w) for ij, w in pair.items()}
        self.f = {ij: t(f) for ij, f in inferred.items()}
        self.running, self.random = {}, Random(SEED)
        for name in self.w:
            if name.endswith(".norm.weight"):
                first = lambda v: torch.full((1, self.w[name].numel()), float(v), dtype=dtype)
                self.running[name.replace("weight", "mean")], self.running[name.replace("weight", "var")] = first(0), first(1)

    def block(self, name, x, training):
        y = batch_norm(self.w, self.running, f"{name}.norm", linear(self.w, f"{name}.linear", x), training)
        return torch.where(y > 0, y, SLOPE * y)

    def encode(self, i, training):
        name = f"enc.{self.c['names'][i]}"
        h = self.block(f"{name}.1", self.block(f"{name}.0", self.x[i], training), training)
        return linear(self.w, f"{name}.mu", h), linear(self.w, f"{name}.logvar", h)

    def decode(self, i, c, training):
        name = f"dec.{self.c['names'][i]}"
        return linear(self.w, f"{name}.2", self.block(f"{name}.1", self.block(f"{name}.0", c, training), training))

    def run(self, step):
        """Loss terms of a training pass; the running statistics follow."""
        option, names, terms, self.random.step = self.option, self.c["names"], {}, step
        z, c = [], []
        for i, name in enumerate(names):
            mu, logvar = self.encode(i, True)
            e = self.random.normals(tuple(mu.shape), f"sample.{name}")
            z.append(mu + (torch.exp(logvar / 2) + 1e-7) * e.to(self.dtype))
            terms[f"kl.{name}"] = (-(1 + logvar - mu**2 - torch.exp(logvar)) / 2).mean()
        r, k = option["pf_ratio"], len(names)
        normal = lambda f: f / torch.where(f.sum(1, keepdim=True) > 0, f.sum(1, keepdim=True), 1)
        f = {ij: normal(f) for ij, f in self.f.items()} | {(j, i): normal(f.T) for (i, j), f in self.f.items()}
        ones = torch.ones(self.c["rows"], dtype=self.dtype)
        sigma = [self.w[f"sigma.{name}"] for name in names]
        for i in range(k):
            above, below, partners = sigma[i] * z[i], sigma[i], 0
            for j in (j for j in range(k) if j != i):
                w = torch.diag(self.pair.get((min(i, j), max(i, j)), ones))
                across = r * w + (1 - r) * f[i, j] if r < 1 else w
                sums = across.sum(1, keepdim=True)
                above, below, partners = above + sigma[j] * (across @ z[j]), below + sigma[j] * sums, partners + sums
            c.append(torch.where(partners > 0, above / below, z[i]))
        for i, name in enumerate(names):
            terms[f"recon.{name}"] = ((self.decode(i, c[i], True) - self.x[i]) ** 2).mean()
            terms[f"comb.{name}"] = ((z[i] - c[i]) ** 2).mean()
        both = option["align_sides"] == "both"
        for i, j in itertools.permutations(range(k), 2):
            if option["align"] > 0 and (both or i < j):
                terms[f"align.{names[i]}" + (f"_{names[j]}" if k > 2 else "")] = ((c[i] - f[i, j] @ c[j]) ** 2).mean()
        half = option["min_epochs"] / 2
        weight = {kind: option[kind] for kind in ("recon", "comb")}
        weight["kl"] = option["kl"] / (1 + np.exp(-5 * (step - 1 - half) / half))
        weight["align"] = option["align"] / (2 if both else 1) / (k - 1)
        terms["total"] = sum(weight[term.split(".")[0]] * v for term, v in terms.items())
        return terms


def chance(name):
    return name.endswith(".linear.bias")


def train(c, dtype):
    """The model after ten steps, the terms of the first, gradients, losses and norms, and the least sigma that a step was clamped from."""
    m = Model(c, dtype)
    adam = torch.optim.Adam(m.w.values(), lr=m.option["lr"], betas=(0.9, 0.999), eps=1e-8, foreach=False)
    losses, norms, first, least = [], [], None, np.inf
    for step in range(1, STEPS + 1):
        terms = m.run(step)
        adam.zero_grad()
        terms["total"].backward()
        first = first or (terms, {p: w.grad.clone() for p, w in m.w.items()})
        losses.append(terms["total"].item())
        clip = m.option["clip"]
        norms.append(torch.nn.utils.clip_grad_norm_(m.w.values(), clip if clip > 0 else np.inf, foreach=False).item())
        adam.step()
        for name in c["names"]:
            sigma = m.w[f"sigma.{name}"].data
            least = min(least, sigma.item())
            sigma.clamp_(min=LEAST_SIGMA)
    terms, grads = first
    return m, terms, dict(gradient=grads, losses=losses, norms=norms, after=m.w), least


def check(name, c, grads, norms, least):
    """A case must show what it is there for."""
    largest = max(g.norm() for g in grads.values())
    for p, g in grads.items():
        if chance(p):
            assert g.norm() < 1e-12 * largest, f"{name}: {p} has a gradient"
        elif not (name == "no-pairs" and p.startswith("sigma")):
            assert g.norm() > 1e-5 * largest, f"{name}: no gradient reaches {p}"
    clip = (OPTIONS | c["options"])["clip"]
    if name == "one-sided":
        assert max(norms) < clip, f"{name}: {norms}: clipped"
    elif clip > 0:
        assert min(norms) > 1.5 * clip and max(norms) > 1.2 * min(norms), f"{name}: {norms}: clipping shows only where it varies"
    assert (least < LEAST_SIGMA) == (name == "sigma-clamped"), f"{name}: the least sigma was {least}"


def make(name, c):
    end, terms, run, least = train(c, torch.float64)
    grads, losses, norms = run["gradient"], run["losses"], run["norms"]
    stray = fixtures.stray(name, run, train(c, torch.float32)[2], {p: torch.full_like(w, chance(p), dtype=torch.bool) for p, w in end.w.items()})
    check(name, c, grads, norms, least)
    start = Model(c, torch.float64)
    with torch.no_grad():
        start.run(1)
        codes = [start.encode(i, False)[0] for i in range(len(c["names"]))]
        carried = {f"{a}_to_{b}": start.decode(j, codes[i], False) for i, a in enumerate(c["names"]) for j, b in enumerate(c["names"])}

    parameters, states = sorted(start.w), sorted(start.running)
    pack = lambda names, of: np.concatenate([fixtures.stored(of(name)).ravel() for name in names])
    nan = lambda cond, v: torch.full_like(v, torch.nan) if cond else v
    _, data, pair, inferred = make_inputs(c)
    out = {
        "init": pack(parameters, start.w.get),
        "grad": pack(parameters, lambda p: torch.zeros_like(grads[p]) if chance(p) else grads[p]),
        "after": pack(parameters, lambda p: nan(chance(p), end.w[p])),
        "first": pack(states, lambda s: start.running[s]),
        "after_states": pack(states, lambda s: nan(s.endswith(".mean"), end.running[s])),
        "losses": np.array(losses),
        "norms": np.array(norms),
    }
    out |= {f"x/{n}": a for n, a in zip(c["names"], data)}
    out |= {f"{key}/{c['names'][i]}_{c['names'][j]}": a for key, of in (("pair", pair), ("inferred", inferred)) for (i, j), a in of.items()}
    out |= fixtures.under("term/", terms, np.float64)
    out |= fixtures.under("eval/code.", dict(zip(c["names"], codes))) | fixtures.under("eval/", carried)
    config = {key: c[key] for key in ("names", "features", "rows")}
    config |= dict(options=OPTIONS | c["options"] | dict(latent=c["latent"]), seed=SEED, float32=stray)
    config |= dict(parameters={p: list(start.w[p].shape) for p in parameters}, states={s: list(start.running[s].shape) for s in states})
    return fixtures.packed(out, sort_keys=True, config=config), f"norm {min(norms):6.2f} to {max(norms):6.2f}  {fixtures.course(losses, stray)}"


if __name__ == "__main__":
    fixtures.main(__file__, CASES, make)
