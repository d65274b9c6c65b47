#!/usr/bin/env python3
"""Golden values of the coupled autoencoder: a restatement in PyTorch, in float64, of the formulas at the head of src/models/coupled.rs.

    env/bin/python tests/golden/coupled/make.py [--check]    (../fixtures.py says of what environment, and what is rounded when)

Nothing is random: no input noise, no dropout.

The model, for arms i = 1..k, n rows, p latent dimensions
    hidden         h_0 = x with 0 for what is missing, h_l = act(h_{l-1} W_l' + b_l), l = 0..3;  code y_i = h W_4' + b_4
    batch norm     z = (y - mean) / sqrt(var + 1e-10), var biased, over all n rows; no scale, no shift; not for `plain` (z = y)
                   running <- 0.99 running + 0.01 batch, from mean 0 and variance 1
    decoder        four hidden layers alike, then out(h W_4' + b_4)
    recon.i        sum over observed entries of (D_i(z_i) - x_i)^2 / number of observed entries
    M_ij           sum_r w_r |z_ir - z_jr|^2 / sum_r w_r                   w = pair/i_j, 0 where row r is no pair; 0 if all are 0
    coupling.i_j   plain, batch-norm        M_ij
                   full-covariance          M_ij of the codes Zc S, Zc = Z - column means, S = (Zc'Zc/(n-1) + 1e-3 I)^(-1/2), symmetric
                   full-covariance-pair     half of the sum over both directions of sum_r w_r d_r (C_j + 1e-3 I)^-1 d_r' / sum_r w_r, d = z_i - z_j
                   min-singular-value       M_ij / max(min(l_i, l_j), floor), l the smallest eigenvalue of Zc'Zc/(n-1)
    cross.i_to_j   sum over rows and observed features of w_r (D_j(stop(z_i)) - x_j)^2 / sum over the same entries of w_r;
                   stop: z_i counts as a constant, only decoder j learns
    total          sum_i alpha_i recon.i + sum_{i<j} lambda_ij coupling.i_j + sum_{i != j} alpha_j cross.i_to_j
                   the last sum only if `cross_modal`, and only over the pairs with lambda_ij > 0

In a file (NAME a modality, L = 0..3 hidden, 4 the last linear; weights [out, in])
    x/NAME [n, F]                   a missing entry is NaN
    pair/A_B [n]                    weights of the pairs
    init/P grad/P after/P           P = enc.NAME.L.weight, enc.NAME.L.bias, dec.NAME.L.weight, dec.NAME.L.bias: start, gradient of
                                    the total, after ten steps of Adam; after/bn.NAME.var the running variance then
    code/NAME recon/NAME            z and D(z) before the first step
    first/bn.NAME.mean, .var        the running statistics after that one pass
    eval/code.NAME eval/recon.NAME  z and D(z) by those, with the weights of the start
    term/T                          every loss term and term/total, before the first step (float64)
    losses [10]                     the total before each of the ten steps (float64)
    __metadata__.config             JSON: the configuration, the smallest eigenvalues, and under `float32` how far the same program strays
                                    when PyTorch runs it in float32, a measure for tolerances: `gradient` is the largest
                                    |g32 - g| / (|g| + 1e-6 max |g|) of a parameter (norms), `losses` the largest relative error,
                                    `after` the largest absolute difference of a weight

The ten steps are Adam (1e-3, 0.9, 0.999, 1e-7 added to the root of the bias-corrected second moment) on the same batch.
Batch norm cancels whatever shifts all rows of a code alike: enc.NAME.4.bias, and enc.NAME.3.bias of a ReLU unit that is on in every
row. Their gradients are zero but for rounding, which Adam then divides by its own size: where they end is chance, and nothing
depends on it but the running mean. Such entries are 0 in grad/ and NaN in after/, and there is no after/bn.NAME.mean.
"""
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import fixtures

LAYERS = 5
BN_EPS, BN_MOMENTUM, FC_EPS = 1e-10, 0.99, 1e-3
ADAM = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-7)
STEPS = 10
FUNCTIONS = {"linear": lambda x: x, "relu": torch.relu, "elu": torch.nn.functional.elu, "sigmoid": torch.sigmoid}

TWO = dict(names=["a", "b"], features=[17, 11], hidden=[7, 6], latent=3, rows=13, floor=1e-2, cross_modal=False, missing=0,
           paired=9, activation="relu", output=["linear", "linear"], alpha=[1, 1])
THREE = TWO | dict(names=["a", "b", "c"], features=[17, 11, 5], hidden=[7, 6, 8], output=["linear"] * 3, alpha=[1, 0.5, 2])
MSV = dict(coupling="min-singular-value")
# lambda: one number for all pairs, or the upper triangle row by row
CASES = {
    "plain": TWO | dict(seed=88, coupling="plain", lam=[1], output=["linear", "relu"]),
    "batch-norm": TWO | dict(seed=1, coupling="batch-norm", lam=[10], activation="elu", output=["elu", "linear"], alpha=[1, 0.1], cross_modal=True),
    "full-covariance": TWO | dict(seed=3, coupling="full-covariance", lam=[1], output=["relu", "linear"]),
    "full-covariance-pair": TWO
    | dict(seed=1, coupling="full-covariance-pair", lam=[0.5], activation="elu", output=["sigmoid", "linear"], cross_modal=True),
    "min-singular-value": TWO | MSV | dict(seed=1, lam=[1], activation="elu", output=["elu", "linear"], alpha=[1, 0.1]),
    "floor-active": TWO | MSV | dict(seed=3, lam=[10], floor=2.0, cross_modal=True),
    "missing": TWO | MSV | dict(seed=3, lam=[10], missing=0.2, output=["relu", "linear"], alpha=[0.5, 2], cross_modal=True),
    "sigmoid-and-elu": TWO | MSV | dict(seed=2, lam=[1], missing=0.1, activation="elu", output=["sigmoid", "elu"], cross_modal=True),
    "lambda-0": TWO | MSV | dict(seed=2, lam=[0], alpha=[1, 0.1], cross_modal=True),
    "no-pairs": TWO | MSV | dict(seed=2, lam=[1], paired=0, cross_modal=True),
    "three": THREE | MSV | dict(seed=2, lam=[1, 0.3, 2.5], cross_modal=True),
    "three-chain": THREE | dict(seed=1, coupling="full-covariance", lam=[1, 0, 2], activation="elu", cross_modal=True),
}


def pairs(c):
    k = len(c["names"])
    return [(i, j) for i in range(k) for j in range(i + 1, k)]


def lambdas(c):
    lam = c["lam"] if len(c["lam"]) > 1 else c["lam"] * len(pairs(c))
    return dict(zip(pairs(c), lam, strict=True))


def make_inputs(c):
    """Weights, data and pair weights, as float32 arrays."""
    rng = np.random.default_rng(c["seed"])
    n, k = c["rows"], len(c["names"])
    shared = rng.standard_normal((n, 4))  # what the arms have in common, so that the codes correlate
    weights, data, pair = {}, [], {}
    for name, f, h, out in zip(c["names"], c["features"], c["hidden"], c["output"]):
        for part, widths in (("enc", [f] + [h] * 4 + [c["latent"]]), ("dec", [c["latent"]] + [h] * 4 + [f])):
            for layer, (fan_in, fan_out) in enumerate(zip(widths, widths[1:])):
                bound = 1.5 * np.sqrt(6 / (fan_in + fan_out))
                weights[f"{part}.{name}.{layer}.weight"] = rng.uniform(-bound, bound, (fan_out, fan_in))
                weights[f"{part}.{name}.{layer}.bias"] = rng.uniform(-0.3, 0.3, fan_out)
        x = np.tanh(shared @ rng.standard_normal((4, f))) + 0.3 * rng.standard_normal((n, f))
        if out == "sigmoid":
            x = 1 / (1 + np.exp(-x))
        elif out == "relu":
            x = np.log1p(np.exp(x))
        x[rng.random((n, f)) < c["missing"]] = np.nan
        data.append(x.astype(np.float32))
    for i, j in pairs(c):
        w = rng.random(n)
        w[0] = 1
        # k > 2: another set of paired rows for every pair
        w[(np.arange(n) + 3 * (i + j - 1)) % n >= c["paired"]] = 0
        pair[i, j] = w.astype(np.float32)
    return {p: w.astype(np.float32) for p, w in weights.items()}, data, pair


class Model:
    def __init__(self, c, dtype):
        self.c, self.lam = c, lambdas(c)
        weights, data, pair = make_inputs(c)
        t = lambda a: torch.from_numpy(a).to(dtype)
        self.w = {p: t(a).requires_grad_() for p, a in weights.items()}
        self.x = [t(np.nan_to_num(a)) for a in data]
        self.observed = [t(~np.isnan(a)) for a in data]
        self.pair = {ij: t(a) for ij, a in pair.items()}
        self.running = [(torch.zeros(c["latent"], dtype=dtype), torch.ones(c["latent"], dtype=dtype)) for _ in c["names"]]

    def network(self, part, i, x, last):
        name, act = self.c["names"][i], FUNCTIONS[self.c["activation"]]
        for layer in range(LAYERS):
            x = x @ self.w[f"{part}.{name}.{layer}.weight"].T + self.w[f"{part}.{name}.{layer}.bias"]
            x = (act if layer < LAYERS - 1 else FUNCTIONS[last])(x)
        return x

    def decode(self, i, z):
        return self.network("dec", i, z, self.c["output"][i])

    def encode(self, i, training, update):
        y = self.network("enc", i, self.x[i], "linear")
        if self.c["coupling"] == "plain":
            return y
        mean, var = (y.mean(0), y.var(0, correction=0)) if training else self.running[i]
        if update:
            old = self.running[i]
            self.running[i] = tuple(BN_MOMENTUM * r + (1 - BN_MOMENTUM) * b.detach() for r, b in zip(old, (mean, var)))
        return (y - mean) / torch.sqrt(var + BN_EPS)

    def mean_square(self, error, rows):
        """sum_r rows_r error_r / sum_r rows_r, 0 without pairs."""
        return (rows * error).sum() / rows.sum() if rows.sum() > 0 else torch.zeros((), dtype=rows.dtype)

    def coupling(self, z, cov, i, j):
        w, kind, eye = self.pair[i, j], self.c["coupling"], torch.eye(self.c["latent"], dtype=z[0].dtype)
        distance = lambda a, b: self.mean_square(((a - b) ** 2).sum(1), w)
        if kind == "full-covariance":
            def white(v, c):
                l, q = torch.linalg.eigh(c + FC_EPS * eye)
                return (v - v.mean(0)) @ (q * l**-0.5) @ q.T
            return distance(white(z[i], cov[i]), white(z[j], cov[j]))
        if kind == "full-covariance-pair":
            d = z[i] - z[j]
            return sum(0.5 * self.mean_square((d @ torch.linalg.inv(c + FC_EPS * eye) * d).sum(1), w) for c in (cov[i], cov[j]))
        m = distance(z[i], z[j])
        if kind == "min-singular-value":
            smallest = torch.minimum(*(torch.linalg.eigvalsh(c)[0] for c in (cov[i], cov[j])))
            return m / torch.clamp(smallest, min=self.c["floor"])
        return m

    def run(self, constant_codes=None, update=False):
        """Codes, reconstructions and loss terms of a training pass. `constant_codes` stand in for the codes that the cross terms
        take as constants: with them the total is an ordinary function of the weights, whose differences can be checked."""
        c, k = self.c, len(self.c["names"])
        z = [self.encode(i, True, update) for i in range(k)]
        recon = [self.decode(i, z[i]) for i in range(k)]
        cov = [(v - v.mean(0)).T @ (v - v.mean(0)) / (c["rows"] - 1) for v in z]
        terms, total = {}, 0
        for i, name in enumerate(c["names"]):
            terms[f"recon.{name}"] = (self.observed[i] * (recon[i] - self.x[i]) ** 2).sum() / self.observed[i].sum()
            total = total + c["alpha"][i] * terms[f"recon.{name}"]
        for i, j in pairs(c):
            term = terms[f"coupling.{c['names'][i]}_{c['names'][j]}"] = self.coupling(z, cov, i, j)
            total = total + self.lam[i, j] * term
            if not c["cross_modal"] or self.lam[i, j] == 0:
                continue
            for src, dst in ((i, j), (j, i)):
                code = constant_codes[src] if constant_codes else z[src].detach()
                rows = self.pair[i, j][:, None] * self.observed[dst]
                term = self.mean_square((self.decode(dst, code) - self.x[dst]) ** 2, rows)
                terms[f"cross.{c['names'][src]}_to_{c['names'][dst]}"] = term
                total = total + c["alpha"][dst] * term
        terms["total"] = total
        return z, recon, cov, terms

    def gradients(self):
        terms = self.run(update=True)[3]
        grads = torch.autograd.grad(terms["total"], list(self.w.values()))
        return terms["total"].item(), dict(zip(self.w, grads))


def check_gradients(name, m):
    """Central differences along random directions, one parameter at a time, against what PyTorch derived."""
    rng = np.random.default_rng(0)
    codes = [z.detach() for z in m.run()[0]]
    total = m.run(codes)[3]["total"]
    grads = dict(zip(m.w, torch.autograd.grad(total, list(m.w.values()))))
    scale = max(g.norm().item() for g in grads.values())
    with torch.no_grad():
        for p, g in grads.items():
            for _ in range(2):
                d = torch.from_numpy(rng.standard_normal(tuple(g.shape)))
                d /= d.norm()
                h, at = 1e-6, []
                for step in (h, -2 * h, h):  # ahead, behind, back
                    m.w[p] += step * d
                    at.append(m.run(codes)[3]["total"].item())
                slope, expected = (at[0] - at[1]) / (2 * h), (g * d).sum().item()
                assert abs(slope - expected) <= 1e-6 * abs(expected) + 1e-8 * scale, f"{name}: {p}: slope {slope}, gradient {expected}"
    # a case in which a layer is dead would prove nothing about it
    dead = [p for p, g in grads.items() if not p.endswith("4.bias") and g.norm() < 1e-5 * scale]
    assert not dead, f"{name}: no gradient reaches {dead}"
    off = sum((g == 0).sum().item() for g in grads.values()) / sum(g.numel() for g in grads.values())
    assert off < 0.25, f"{name}: {off:.0%} of the gradients are zero: take another seed"


def train(c, dtype):
    """The model after ten steps, losses and gradients on the way, and which weights a gradient of mere rounding has moved."""
    m = Model(c, dtype)
    adam = torch.optim.Adam(m.w.values(), foreach=False, **ADAM)
    losses, first, chance = [], None, {p: torch.zeros_like(w, dtype=torch.bool) for p, w in m.w.items()}
    for _ in range(STEPS):
        total, grads = m.gradients()
        losses.append(total)
        first = first or grads
        noise = 1e-13 * max(g.abs().max() for g in grads.values())
        for p, w in m.w.items():
            w.grad = grads[p]
            chance[p] |= (grads[p] != 0) & (grads[p].abs() < noise)
        adam.step()
    return m, dict(gradient=first, losses=losses, after=m.w), chance


def make(name, c):
    start = Model(c, torch.float64)
    check_gradients(name, Model(c, torch.float64))
    with torch.no_grad():
        z, recon, cov, terms = start.run(update=True)
        eval_codes = [start.encode(i, False, False) for i in range(len(z))]
        eval_recon = [start.decode(i, v) for i, v in enumerate(eval_codes)]
    smallest = [torch.linalg.eigvalsh(v)[0].item() for v in cov]
    if c["coupling"] == "min-singular-value":
        assert max(smallest) < c["floor"] if name == "floor-active" else min(smallest) > 5 * c["floor"], f"{name}: {smallest}: take another seed"

    end, run, chance = train(c, torch.float64)
    stray = fixtures.stray(name, run, train(c, torch.float32)[1], chance)
    by_name = lambda values: dict(zip(c["names"], values))
    by_pair = lambda values: {f"{c['names'][i]}_{c['names'][j]}": v for (i, j), v in values.items()}
    _, data, pair = make_inputs(c)
    out = {f"x/{n}": x for n, x in by_name(data).items()} | {f"pair/{ij}": w for ij, w in by_pair(pair).items()}
    out |= fixtures.under("init/", start.w)
    out |= fixtures.under("grad/", {p: torch.where(chance[p], 0, g) for p, g in run["gradient"].items()})
    out |= fixtures.under("after/", {p: torch.where(chance[p], torch.nan, w) for p, w in end.w.items()})
    out |= fixtures.under("code/", by_name(z)) | fixtures.under("recon/", by_name(recon))
    out |= fixtures.under("eval/code.", by_name(eval_codes)) | fixtures.under("eval/recon.", by_name(eval_recon))
    out |= fixtures.under("term/", terms, np.float64)
    out["losses"] = np.array(run["losses"])
    if c["coupling"] != "plain":
        for i, n in enumerate(c["names"]):
            out |= fixtures.under(f"first/bn.{n}.", dict(zip(("mean", "var"), start.running[i])))
            out[f"after/bn.{n}.var"] = fixtures.stored(end.running[i][1])
    config = {key: v for key, v in c.items() if key not in ("lam", "seed", "missing", "paired")}
    config |= {"lambda": by_pair(lambdas(c)), "adam": ADAM, "float32": stray}
    config |= dict(smallest_eigenvalue=smallest, bn_eps=BN_EPS, bn_momentum=BN_MOMENTUM, covariance_eps=FC_EPS)
    return fixtures.packed(out, sort_keys=True, config=config), fixtures.course(run["losses"], stray)


if __name__ == "__main__":
    fixtures.main(__file__, CASES, make)
