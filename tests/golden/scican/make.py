#!/usr/bin/env python3
"""Golden values of sciCAN: a restatement in PyTorch, in float64, of whole training steps as the head of src/models/scican.rs has them.

    env/bin/python tests/golden/scican/make.py [--check]    (../fixtures.py says of what environment, and what is rounded when)

What is computed is stored in float64. Noise, dropout and lambda are the engine's own, from its Philox streams.

In a file
    x/NAME [n, F], y [n]            data; the first modality's classes, NaN where there is none
    init/P                          of every parameter
    term/T/NAME                     every loss term of step T, from 1
    grad/PHASE/P                    gradients of the first step, of the parameters that its phase moves
    after/P, after/S                parameters and states (running statistics, averages) after the last step
    eval/code.NAME, eval/atac       codes by the running statistics after the last step, and what is generated of the first's
    __metadata__.config             JSON: the options as a user types them, class counts, seed, steps
"""
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import fixtures
from fixtures import exact
from layers import batch_norm, linear
from philox import Random

STEPS = 3
SEED = 0x5EED0001C0DE0002
LAMBDAS = 0x62657461
NAMES, F, N, K = ["rna", "atac"], 6, 9, 3
COUNTS = [50, 20, 4]
BASE = dict(hidden=7, latent=4, disc_code=5, disc_profile=6, embed_bn="running", ramp=40, epochs=60, lr=0.02)
LABELLED = dict(w_class=2, w_nce=[0, 0.25], w_cluster=[0, 0], w_ict=1, w_center=0, w_adv=2, w_back=3, w_gen=4, w_cycle=4, adv="bce", contrast=0)
UNLABELLED = dict(w_class=0, w_nce=[2, 0.5], w_cluster=[2, 0.5], w_ict=0, w_center=0, w_adv=1.5, w_back=2.5, w_gen=3, w_cycle=3, adv="mean", contrast=32)
CASES = {
    "labelled": dict(mode="labelled"),
    "joint": dict(mode="labelled", bn="joint", latent_act="tanh", tau=0.4),
    "classes-and-codes": dict(mode="labelled", w_nce=0, w_ict=0, w_back=0, w_gen=0, w_cycle=0),
    "centres": dict(mode="labelled", w_center=0.3, adv="mean", noise=0.5, w_adv=0, w_gen=0),
    "both-contrasted": dict(mode="labelled", bn="joint", w_nce=0.5, contrast=3, w_class=0, w_gen=0, w_back=0, w_adv=0, weight_decay=0.05),
    "unlabelled": dict(mode="unlabelled", contrast=5, clusters=4),
    "unlabelled-joint": dict(mode="unlabelled", bn="joint", contrast=5, clusters=4, cluster_tau=1),
}


def beta(random, a=0.2):
    """Johnk's method on 53-bit uniforms, two words each."""
    w = [int(v) for v in random.words(400, LAMBDAS)]
    u = [((high << 32 | low) >> 11) / 2.0**53 for high, low in zip(w[0::2], w[1::2])]
    for x, y in zip(u[0::2], u[1::2]):
        x, y = x ** (1 / a), y ** (1 / a)
        if 0 < x + y <= 1:
            return x / (x + y)


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, c):
        ctx.c = c
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -ctx.c * g, None


class Model:
    def __init__(self, options):
        labelled = options["mode"] == "labelled"
        o = BASE | dict(bn="per-modality", latent_act="relu", tau=0.15, cluster_tau=0.5, clusters=25, noise=1, teacher=0.99, momentum=0.9,
                        weight_decay=1e-3, lr_disc=10) | (LABELLED if labelled else UNLABELLED) | options
        for key in ("w_nce", "w_cluster"):
            o[key] = o[key] if isinstance(o[key], list) else [o[key]] * 2
        self.o, self.labelled = o, labelled
        rng = np.random.default_rng(3)
        self.w, self.s, self.group = {}, {}, {}

        def draw_linear(name, group, a, b):
            for part, shape in (("weight", (b, a)), ("bias", (1, b))):
                self.w[f"{name}.{part}"] = exact(rng.uniform(-1, 1, shape) / np.sqrt(a)).requires_grad_()
                self.group[f"{name}.{part}"] = group

        def draw_norm(name, group, width, learned=True):
            if learned:
                for part, low in (("weight", 0.5), ("bias", -0.3)):
                    self.w[f"{name}.{part}"] = exact(rng.uniform(low, low + 0.6, (1, width))).requires_grad_()
                    self.group[f"{name}.{part}"] = group
            self.s[f"{name}.mean"], self.s[f"{name}.var"] = torch.zeros(1, width, dtype=torch.float64), torch.ones(1, width, dtype=torch.float64)

        h, l = o["hidden"], o["latent"]
        for i, (a, b) in enumerate([(F, h), (h, l)]):
            draw_linear(f"enc.{i}.linear", 0, a, b)
            draw_norm(f"enc.{i}.norm", 0, b)
        self.represents = any([o["w_class"], o["w_ict"], o["w_center"], *o["w_nce"], *o["w_cluster"]])
        if labelled:
            draw_linear("class", 1, l, K)
            if o["w_center"]:
                self.w["class.weight"].data *= 6  # sure of some cells
        if o["contrast"] and any(o["w_nce"]):
            draw_linear("contrast", 1, l, o["contrast"])
        if any(o["w_cluster"]):
            draw_linear("cluster", 1, l, o["clusters"])
        if o["w_center"]:
            self.w["centres"], self.group["centres"] = exact(rng.normal(size=(K, l))).requires_grad_(), 1
        self.generates = o["w_back"] or o["w_gen"] or o["w_cycle"]
        if self.generates:
            draw_linear("gen.0.linear", 2, l, h)
            draw_norm("gen.0.norm", 2, h)
            draw_linear("gen.1", 2, h, F)
        for name, group, there, a, b in [("disc.code", 3, o["w_adv"] or o["w_back"], l, o["disc_code"]), ("disc.profile", 4, o["w_gen"], F, o["disc_profile"])]:
            if there:
                for i in range(2):
                    draw_linear(f"{name}.{i}.linear", group, b if i else a, b)
                    draw_norm(f"{name}.{i}.norm", group, b)
                draw_linear(f"{name}.2.linear", group, b, 1)
        if o["w_ict"]:
            for i, width in enumerate([h, l]):
                draw_norm(f"teacher.{i}.norm", 0, width, learned=False)
            self.average = {name: w.detach().clone() for name, w in self.w.items() if self.group[name] < 2}
        self.x = [exact(rng.normal(size=(N, F))), exact(rng.normal(size=(N, F)) * 0.8 + 0.3)]
        self.y = torch.from_numpy(rng.integers(0, K, N))
        self.known = torch.ones(N, dtype=torch.bool)
        self.known[4] = False
        self.training, self.buffers, self.random = True, {}, Random(SEED)

    def block(self, name, x, act, w=None, states=None):
        w = w or self.w
        return act(batch_norm(w, self.s, f"{name}.norm", linear(w, f"{name}.linear", x), self.training, states))

    def encode(self, x, averaged=False):
        w, states = (self.average, "teacher.{}.norm") if averaged else (self.w, "enc.{}.norm")
        act = [torch.relu, torch.tanh if self.o["latent_act"] == "tanh" else torch.relu]
        for i in range(2):
            x = self.block(f"enc.{i}", x, act[i], w, states.format(i))
        return x

    def generate(self, z):
        return linear(self.w, "gen.1", self.block("gen.0", z, torch.relu))

    def discriminate(self, name, x, number):
        for i in range(2):
            x = self.block(f"{name}.{i}", x, torch.relu)
            keep = self.random.uniforms(tuple(x.shape), f"{name}.{i}.dropout.{number}") >= 0.5
            x = x * keep * 2
        return linear(self.w, f"{name}.2.linear", x)

    def passes(self, inputs, net):
        if self.o["bn"] == "joint" and len(inputs) > 1:
            return list(net(torch.cat(inputs), 0).split([len(x) for x in inputs]))
        return [net(x, i) for i, x in enumerate(inputs)]

    def nce(self, a, b, tau):
        u = torch.nn.functional.normalize(torch.cat([a, b]), dim=1)
        n = len(u)
        s = (u @ u.T / tau).masked_fill(torch.eye(n, dtype=torch.bool), -np.inf)
        partner = torch.arange(n).roll(n // 2)
        return (torch.logsumexp(s, 1) - s[torch.arange(n), partner]).mean()

    def represent(self):
        o, terms = self.o, {}
        copied = [o["w_nce"][m] or o["w_cluster"][m] or (m == 1 and self.labelled) for m in range(2)]
        inputs = [("clean", self.x[0])] if self.labelled else []
        for m in range(2):
            if copied[m]:
                for c in range(2):
                    e = self.random.normals((N, F), f"noise.{NAMES[m]}.{c}")
                    inputs.append(((m, c), self.x[m] + np.float64(np.float32(o["noise"])) * e))
        h = dict(zip([k for k, _ in inputs], self.passes([x for _, x in inputs], lambda x, _: self.encode(x))))
        if o["w_class"]:
            v = np.array([(1 - 0.9999) / (1 - 0.9999**n) if n else 0 for n in COUNTS])
            weight = torch.from_numpy(K * v / v.sum())
            terms["class.rna"] = o["w_class"], torch.nn.functional.cross_entropy(
                linear(self.w, "class", h["clean"])[self.known], self.y[self.known], weight=weight)
        for m, name in enumerate(NAMES):
            if o["w_nce"][m]:
                head = (lambda v: linear(self.w, "contrast", v)) if o["contrast"] else lambda v: v
                terms[f"contrast.{name}"] = o["w_nce"][m], self.nce(head(h[m, 0]), head(h[m, 1]), o["tau"])
            if o["w_cluster"][m]:
                q = lambda v: torch.softmax(linear(self.w, "cluster", v), 1).T
                terms[f"cluster.{name}"] = o["w_cluster"][m], self.nce(q(h[m, 0]), q(h[m, 1]), o["cluster_tau"])
        if o["w_ict"]:
            lam = np.float64(np.float32(beta(self.random)))
            with torch.no_grad():
                ends = self.passes(self.x, lambda x, _: self.encode(x, averaged=True))
                p = [torch.softmax(linear(self.average, "class", e), 1) for e in ends]
                q = lam * p[0] + (1 - lam) * p[1]
            said = torch.softmax(linear(self.w, "class", self.encode(lam * self.x[0] + (1 - lam) * self.x[1])), 1)
            terms["consistency"] = o["w_ict"], ((said - q) ** 2).sum(1).mean()
        if o["w_center"]:
            z = h[1, 1]
            p, k = torch.softmax(linear(self.w, "class", z).detach(), 1).max(1)
            sure = p > 0.8
            d = ((z - self.w["centres"][k]) ** 2).sum(1)
            self.sure = int(sure.sum())
            terms["centre"] = o["w_center"], d[sure].mean() if sure.any() else d.sum() * 0
        return terms

    def align(self):
        o, terms = self.o, {}
        bce = torch.nn.functional.binary_cross_entropy_with_logits
        before = self.random.step - 1
        reverse = lambda x, calls: Reverse.apply(x, np.float64(np.float32(2 / (1 + np.exp(-10 * calls / o["ramp"])) - 1)))

        def tell(name, logits, label, weight):
            if o["adv"] == "mean":
                terms[name] = weight * (1 - 2 * label), torch.sigmoid(logits).mean()
            else:
                terms[name] = weight, bce(logits, torch.full_like(logits, label))

        z, a = self.passes(self.x, lambda x, _: self.encode(x))
        g = self.generate(z) if self.generates else None
        back = self.encode(g) if o["w_back"] or o["w_cycle"] else None
        if o["w_adv"] or o["w_back"]:
            calls = 3 if o["w_back"] else 2
            codes = [z, a] + ([back] if o["w_back"] else [])
            codes = [reverse(h, calls * before + i) for i, h in enumerate(codes)]
            d = self.passes(codes, lambda x, i: self.discriminate("disc.code", x, i))
            tell("tell.first", d[0], 1.0, o["w_adv"])
            tell("tell.second", d[1], 0.0, o["w_adv"] + o["w_back"])
            if o["w_back"]:
                tell("tell.cycled", d[2], 1.0, o["w_back"])
        if o["w_gen"]:
            d = self.passes([self.x[1], reverse(g, 2 * before + 1)], lambda x, i: self.discriminate("disc.profile", x, i))
            tell("tell.measured", d[0], 1.0, o["w_gen"])
            tell("tell.generated", d[1], 0.0, o["w_gen"])
        if o["w_cycle"]:
            terms["cycle"] = o["w_cycle"], ((back - z) ** 2).mean()
        return terms

    def move(self, phase, groups):
        o = self.o
        rate = o["lr"] * (1 + 0.001 * o["epochs"]) ** -0.75
        with torch.no_grad():
            for name, w in self.w.items():
                if self.group[name] not in groups:
                    continue
                g = (torch.zeros_like(w) if w.grad is None else w.grad) + o["weight_decay"] * w
                v = o["momentum"] * self.buffers.get((phase, name), torch.zeros_like(w)) + g
                self.buffers[phase, name] = v
                w -= rate * (o["lr_disc"] if self.group[name] > 2 else 1) * (g + o["momentum"] * v)

    def step(self, t):
        """Terms, and the gradients by phase."""
        self.random.step = t
        all_terms, grads, o = {}, {}, self.o
        aligns = o["w_adv"] or self.generates
        groups2 = [0] + [2] * bool(self.generates) + [3] * bool(o["w_adv"] or o["w_back"]) + [4] * bool(o["w_gen"])
        phases = [(self.represent, [0, 1])] * bool(self.represents) + [(self.align, groups2)] * bool(aligns)
        for phase, (terms, groups) in enumerate(phases):
            for w in self.w.values():
                w.grad = None
            found = terms()
            sum(weight * value for weight, value in found.values()).backward()
            all_terms |= {name: value.detach() for name, (_, value) in found.items()}
            for name, w in self.w.items():
                if self.group[name] in groups:
                    grads[f"{phase}/{name}"] = torch.zeros_like(w) if w.grad is None else w.grad.clone()
            self.move(phase, groups)
            if phase == 0 and o["w_ict"]:
                for name, a in self.average.items():
                    self.average[name] = o["teacher"] * a + (1 - o["teacher"]) * self.w[name].detach()
        return all_terms, grads


def make(_, options):
    m = Model(options)
    y = m.y.double()
    y[~m.known] = torch.nan
    out = fixtures.under("x/", dict(zip(NAMES, m.x))) | {"y": fixtures.stored(y)} | fixtures.under("init/", m.w)
    put = lambda prefix, tensors: out.update(fixtures.under(prefix, tensors, np.float64))
    for t in range(1, STEPS + 1):
        terms, grads = m.step(t)
        put(f"term/{t}/", terms)
        if t == 1:
            put("grad/", grads)
            first = terms
        if options.get("w_center"):
            assert 0 < m.sure < N, "centres: some cells, and not all, must be sure"
    put("after/", m.w | m.s)
    if m.o["w_ict"]:
        put("average/", m.average)
    m.training = False
    codes = [m.encode(x) for x in m.x]
    unit = (lambda z: z) if m.labelled else (lambda z: torch.nn.functional.normalize(z, dim=1))
    put("eval/code.", {name: unit(z) for name, z in zip(NAMES, codes)})
    if m.generates:
        put("eval/", {"atac": m.generate(codes[0])})
    config = dict(flags=fixtures.flags(BASE | options), class_counts=COUNTS if m.labelled else [], seed=SEED, steps=STEPS, features=F, rows=N)
    return fixtures.packed(out, config=config), fixtures.numbers(first)


if __name__ == "__main__":
    fixtures.main(__file__, CASES, make)
