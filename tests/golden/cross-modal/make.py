#!/usr/bin/env python3
"""Golden values of the cross-modal autoencoders: whole training steps of both instances in PyTorch, in float64, out of PyTorch's own
layers, losses and optimisers.

    env/bin/python tests/golden/cross-modal/make.py [--check]    (../fixtures.py says of what environment, and what is rounded when)

Noise, hidden features and turned images are the engine's own, from its Philox streams.

A minibatch is BATCH cells of each modality, each modality in an order of its own, and after them ANCHORS known pairs, cells of the same
number, of one weight each. A stage is a number of steps, in each of which its phases step one after the other.

In a file
    x/NAME [CELLS, F]               data of all cells
    label/NAME [CELLS]              class numbers, NaN where there is none
    init/P                          of every parameter, scale and shift of norms included
    rows/T/NAME [BATCH + ANCHORS]   the cells of step T, from 1, all stages counted
    weight/T/A_B [ANCHORS]          the pairs' weights
    term/T/NAME                     every loss term of step T, before its weight
    grad/T/P                        gradients of the first step of each stage, of each phase those of what it moves
    after/S/P                       after stage S, from 0: parameters and running statistics
    eval/code.NAME, eval/A_to_B     codes of all cells, and what is made of them in A's place and B's, in evaluation
    eval/class.NAME                 logits of the class head, where there is one
    __metadata__.config             JSON: options as a user types them, names, sizes, classes, stages, seed
"""
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import fixtures
import networks
from fixtures import exact
from networks import ImageDecoder, ImageTrunk, Named
from philox import Random, stream_of

SEED = 0x5EED0002C0DE0004
RANDOM = Random(SEED)
CELLS, BATCH, ANCHORS = 13, 6, 4
FC = dict(latent=3, hidden=5, width=6, disc_width=4, lr=0.01, weight_decay=0.02, w_anch=2)
# The weight decay gives biases that a norm follows a gradient that is not rounding alone.
IMAGE = dict(latent=3, width=6, channels="4,6", disc_width=5, lr=0.01, pretrain_lr=0.02, weight_decay=0.02, w_rec=0.7, w_gan=0.6, w_kl=0.01)
IMAGE |= dict(pretrain_kl=0.02, pretrain_cls=0.4, w_cls=0.8)
# Features, or the size of images; classes; steps of each stage; options
CASES = {
    "published": dict(of=dict(a=7, b=9), classes=3, steps=[4], options=FC | {"halve_every": 2}),
    "three-conditional": dict(
        of=dict(a=7, b=9, c=4), classes=3, steps=[3],
        options=FC | {"gan": "log", "class": "conditional", "noise": "true", "recon.b": "l2", "anchor": "l2", "input_dropout.a": 0.3}),
    "images-frozen": dict(of=dict(a=[1, 16, 16], b=9), classes=2, steps=[3, 3], options=IMAGE | {"class": "conditional", "w_anch": 1.5}),
    "images-turned": dict(
        of=dict(a=9, b=[2, 8, 8]), classes=3, steps=[3, 3],
        options=IMAGE | {"class": "head", "class_weights": "4.5,0.5,1", "train_image": "true", "augment": "dihedral", "w_anch": 1.5,
                         "w_cross": 0.9, "recon.b": "l1", "anchor": "mse"}),
    "images-crossed": dict(
        of=dict(a=[1, 8, 8], b=9), classes=0, steps=[2, 3],
        options=IMAGE | {"class": "none", "gan": "lsgan", "w_cross": 0.9, "augment": "dihedral"}),
}


def turned(x, name):
    """Images [B, C, n, n] each under a symmetry: three random bits say rows turned over, columns turned over, both exchanged."""
    turns = RANDOM.words(len(x), stream_of(name)) >> np.uint64(29)

    def one(image, t):
        image = image.transpose(1, 2) if t & 4 else image
        return image.flip([d for d, bit in ((1, 2), (2, 1)) if t & bit])

    return torch.stack([one(image, int(t)) for image, t in zip(x, turns)])


# ---- networks (specification, sections 2.2 and 3.2) ----------------------------------------------------


def leaky():
    return nn.LeakyReLU(0.2)


class Linears(Named):
    """Linear layers NAME.0, NAME.1, ... of these widths, or one NAME; an activation after each, another kind after the last."""

    def __init__(self, name, widths, hidden=leaky, last=leaky):
        super().__init__()
        n, layers = len(widths) - 1, []
        for l, (a, b) in enumerate(zip(widths, widths[1:])):
            layers += [self.add(f"{name}.{l}" if n > 1 else name, nn.Linear(a, b)), hidden() if l + 1 < n else last()]
        self.net = nn.Sequential(*layers)

    def forward(self, x):
        return self.net(x)


class Trunk(Named):
    def __init__(self, name, n, width, out):
        super().__init__()
        layers = [self.add(f"{name}.0", nn.Linear(n, width)), nn.ReLU(), self.add(f"{name}.0.norm", nn.BatchNorm1d(width))]
        for l in range(1, 4):
            layers += [self.add(f"{name}.{l}", nn.Linear(width, width)), self.add(f"{name}.{l}.norm", nn.BatchNorm1d(width)), nn.ReLU()]
        self.net = nn.Sequential(*layers, self.add(f"{name}.4", nn.Linear(width, out)))

    def forward(self, x):
        return self.net(x)


class FeatureVae(Named):
    def __init__(self, name, n, width, latent):
        super().__init__()
        self.enc, self.dec = self.include(Trunk(f"enc.{name}", n, width, width)), self.include(Trunk(f"dec.{name}", latent, width, n))
        self.mu, self.logvar = [self.add(f"enc.{name}.{part}", nn.Linear(width, latent)) for part in ("mu", "logvar")]

    def encode(self, x):
        h = self.enc(x)
        return self.mu(h), self.logvar(h)


class ImageVae(Named):
    def __init__(self, name, image, channels, latent):
        super().__init__()
        self.enc, self.dec = self.include(ImageTrunk(f"enc.{name}", image, channels)), self.include(ImageDecoder(f"dec.{name}", latent, image, channels))
        flat = int(np.prod(self.enc.small))
        self.mu = nn.Sequential(self.add(f"enc.{name}.mu", nn.Linear(flat, latent)), self.add(f"enc.{name}.mu.norm", nn.BatchNorm1d(latent)))
        self.logvar = self.add(f"enc.{name}.logvar", nn.Linear(flat, latent))

    def encode(self, x):
        h = self.enc(x).flatten(1)
        return self.mu(h), self.logvar(h)


# ---- both instances --------------------------------------------------------------------------------------


class Both:
    """What they share: data, minibatches, the discriminators, the anchors."""

    def __init__(self, case):
        self.o, self.names, self.classes = case["options"], list(case["of"]), case["classes"]
        self.sizes, self.steps = case["of"], case["steps"]
        self.kind = self.o.get("class", "head")
        self.pairs = list(combinations(self.names, 2))
        self.rng = np.random.default_rng(23)
        self.x, self.y = {}, {}
        for name, f in self.sizes.items():
            # An image without symmetry of its own, in [0, 1]; features of both signs.
            values = self.rng.uniform(size=(CELLS, int(np.prod(f)))) if isinstance(f, list) else self.rng.normal(size=(CELLS, f))
            y = self.rng.integers(0, max(self.classes, 1), CELLS).astype(np.float64)
            y[[2, 7]] = np.nan
            self.x[name], self.y[name] = exact(values), exact(y)

    def absolute(self, name, default):
        return self.o.get(f"recon.{name}", default) == "l1"

    def adam(self, nets, rate):
        parameters = [p for net in nets for p in net.parameters()]
        betas = (self.o.get("beta1", 0.5 if isinstance(self, Fc) else 0.9), 0.999)
        return torch.optim.Adam(parameters, lr=rate, betas=betas, eps=1e-8, weight_decay=self.o["weight_decay"])

    def discriminators(self, width, hidden, last):
        self.log = self.o.get("gan", "lsgan" if isinstance(self, Fc) else "log") == "log"
        seen = self.o["latent"] + (0 if self.kind != "conditional" else 10 if self.classes == 2 else 10 * self.classes)
        said = nn.Identity if self.log or not isinstance(self, Fc) else last
        widths = [seen, *width, 2 if self.log else 1]
        self.f = {(a, b): Linears(f"disc.{a}_{b}", widths, hidden, said) for a, b in self.pairs}

    def heads(self):
        """The class head, where there is one."""
        if self.kind != "head":
            return []
        self.head = Linears("class", [self.o["latent"], self.classes], last=nn.Identity)
        return [self.head]

    def seen(self, h, y):
        """A class is 0 or 1, or one-hot; written ten times; nothing where it is not known."""
        if self.kind != "conditional":
            return h
        known = torch.nan_to_num(y)[:, None]
        if self.classes > 2:
            known = functional.one_hot(known[:, 0].long(), self.classes) * (~y.isnan())[:, None]
        return torch.cat([h, known.repeat(1, 10).double()], 1)

    def verdicts(self, prefix, z, y, true):
        """Of every discriminator on both its sides; `true`: what it is to say, else the contrary."""
        terms, weight = {}, self.o.get("w_gan", 10) * (0.5 if self.log else 1)
        for (a, b), f in self.f.items():
            for side, name in enumerate((a, b)):
                said, wanted = f(self.seen(z[name], y[name])), side if true else 1 - side
                loss = functional.cross_entropy(said, torch.full((len(said),), wanted)) if self.log else ((said - wanted) ** 2).mean()
                terms[f"{prefix}.{a}_{b}.{name}"] = weight, loss
        return terms

    def class_loss(self, z, y, weights=None):
        known = ~y.isnan()
        return functional.cross_entropy(self.head(z)[known], y[known].long(), weight=weights)

    def anchors(self, codes, w):
        terms = {}
        for a, b in self.pairs:
            d, how = codes[a] - codes[b], self.o.get("anchor", "l1")
            each = torch.linalg.vector_norm(d, dim=1) if how == "l2" else (d**2 if how == "mse" else d.abs()).mean(1)
            terms[f"anchor.{a}_{b}"] = self.o["w_anch"], (w[a, b] * each).sum() / w[a, b].sum()
        return terms

    def error(self, name, made, x, default, w=None):
        d = made - x
        each = d.abs() if self.absolute(name, default) else d**2
        w = torch.ones(len(d), dtype=torch.float64) if w is None else w
        return (w[:, None] * each).sum() / (w.sum() * d.shape[1])

    def training(self, on):
        for layer in self.layers.values():
            layer.train(on)


class Fc(Both):
    def __init__(self, case):
        super().__init__(case)
        o = self.o
        widths = lambda name: [self.sizes[name]] + 3 * [o["width"]] + [o["hidden"]]
        self.enc = {name: Linears(f"enc.{name}", widths(name)) for name in self.names}
        self.dec = {name: Linears(f"dec.{name}", widths(name)[::-1]) for name in self.names}
        self.outer, self.inner = Linears("enc.shared", [o["hidden"], o["latent"]]), Linears("dec.shared", [o["latent"], o["hidden"]])
        nets = [*self.enc.values(), *self.dec.values(), self.outer, self.inner, *self.heads()]
        self.discriminators([o["latent"], o["disc_width"]], leaky, leaky)
        self.layers = networks.layers_of([*nets, *self.f.values()], self.rng)
        self.stages = [[(self.first, self.adam(self.f.values(), o["lr"])), (self.second, self.adam(nets, o["lr"]))]]

    def rate(self, step):
        return 0.5 ** ((step - 1) // self.o["halve_every"]) if "halve_every" in self.o else 1.0

    def encode(self, name, x):
        return self.outer(self.enc[name](x))

    def decode(self, name, z):
        return self.dec[name](self.inner(z))

    def begin(self, stage, rows, w):
        self.own = {name: self.x[name][r[:BATCH]] for name, r in rows.items()}
        self.labels = {name: self.y[name][r[:BATCH]] for name, r in rows.items()}
        self.w, self.h, self.s = w, {}, {}
        for name, r in rows.items():
            x, p = self.x[name][r], float(np.float32(self.o.get(f"input_dropout.{name}", 0)))
            if p > 0:
                x = x * (RANDOM.uniforms(tuple(x.shape), f"hidden.{name}") >= p) / (1 - p)
            h = self.encode(name, x)
            self.h[name], self.s[name] = h[:BATCH], h[BATCH:]

    def first(self):
        return self.verdicts("disc", {name: h.detach() for name, h in self.h.items()}, self.labels, True)

    def second(self):
        terms = {}
        for name, h in self.h.items():
            noise = RANDOM.normals(tuple(h.shape), f"noise.{name}") if "noise" in self.o else 0
            terms[f"recon.{name}"] = 10, self.error(name, self.decode(name, h + noise), self.own[name], "l1")
        terms |= self.verdicts("fool", self.h, self.labels, False)
        if self.kind == "head":
            terms |= {f"class.{name}": (10, self.class_loss(h, self.labels[name])) for name, h in self.h.items()}
        return terms | self.anchors(self.s, self.w)


class Image(Both):
    def __init__(self, case):
        super().__init__(case)
        o = self.o
        channels = [int(c) for c in o["channels"].split(",")]
        is_image = {name: isinstance(f, list) for name, f in self.sizes.items()}
        make = lambda name, f: ImageVae(name, f, channels, o["latent"]) if is_image[name] else FeatureVae(name, f, o["width"], o["latent"])
        self.net = {name: make(name, f) for name, f in self.sizes.items()}
        self.moves = {name: not is_image[name] or o.get("train_image") == "true" for name in self.names}
        self.picture = next(name for name in self.names if is_image[name])
        heads = self.heads()
        self.discriminators(3 * [o["disc_width"]], nn.ReLU, nn.Identity)
        self.layers = networks.layers_of([*self.net.values(), *heads, *self.f.values()], self.rng)
        moving = [net for name, net in self.net.items() if self.moves[name]] + heads
        early = self.adam([self.net[self.picture], *heads], o["pretrain_lr"])
        late = [(self.autoencoders, self.adam(moving, o["lr"])), (self.discriminate, self.adam(self.f.values(), o["lr"]))]
        self.stages = [[(self.pretrain, early)], late]

    def rate(self, step):
        return 1.0

    def encode(self, name, x):
        return self.net[name].encode(x)[0]

    def decode(self, name, z):
        return self.net[name].dec(z)

    def begin(self, stage, rows, w):
        self.w, self.given = w, {name: self.x[name][r] for name, r in rows.items()}
        if "augment" in self.o:
            x = self.given[self.picture]
            self.given[self.picture] = turned(x.reshape(-1, *self.sizes[self.picture]), f"turned.{self.picture}").flatten(1)
        self.labels = {name: self.y[name][r[:BATCH]] for name, r in rows.items()}

    def draw(self, name, code, what):
        """Ten to the minus seventh is the engine's own."""
        mu, logvar = code[0][:BATCH], code[1][:BATCH]
        return mu + (torch.exp(logvar / 2) + 1e-7) * RANDOM.normals(tuple(mu.shape), f"{what}.{name}")

    def divergence(self, code, weight):
        """Its weight is of the sum, the column of the history a mean."""
        mu, logvar = code[0][:BATCH], code[1][:BATCH]
        return weight * mu.numel(), (-0.5 * (1 + logvar - mu**2 - logvar.exp())).mean()

    def pretrain(self):
        name, o = self.picture, self.o
        x = self.given[name][:BATCH]
        code = self.net[name].encode(x)
        z = self.draw(name, code, "first")
        terms = {f"pretrain.recon.{name}": (1, self.error(name, self.decode(name, z), x, "l2"))}
        terms[f"pretrain.kl.{name}"] = self.divergence(code, o["pretrain_kl"])
        if self.kind == "head":
            weights = torch.tensor([float(w) for w in o["class_weights"].split(",")], dtype=torch.float64)
            terms[f"pretrain.class.{name}"] = o["pretrain_cls"], self.class_loss(z, self.labels[name], weights)
        return terms

    def autoencoders(self):
        o, terms, codes = self.o, {}, {}
        for name, net in self.net.items():
            net.train(self.moves[name])
            codes[name] = net.encode(self.given[name])
            codes[name] = codes[name] if self.moves[name] else [v.detach() for v in codes[name]]
        z = {name: self.draw(name, code, "first") for name, code in codes.items()}
        moving = [name for name in self.names if self.moves[name]]
        for name in moving:
            terms[f"recon.{name}"] = o["w_rec"], self.error(name, self.decode(name, z[name]), self.given[name][:BATCH], "l2")
        terms |= {f"kl.{name}": self.divergence(codes[name], o["w_kl"]) for name in moving}
        terms |= self.verdicts("fool", z, self.labels, False)
        if self.kind == "head":
            terms |= {f"class.{name}": (0.5 * o["w_cls"], self.class_loss(z[name], self.labels[name])) for name in self.names}
        if "w_anch" in o:
            terms |= self.anchors({name: code[0][BATCH:] for name, code in codes.items()}, self.w)
        for a, b in self.pairs if "w_cross" in o else []:
            for start, end in ((a, b), (b, a)):
                made, x = self.decode(end, codes[start][0][BATCH:]), self.given[end][BATCH:]
                terms[f"cross.{start}_to_{end}"] = o["w_cross"], self.error(end, made, x, "l2", self.w[a, b])
        return terms

    def discriminate(self):
        with torch.no_grad():
            for net in self.net.values():
                net.eval()
            z = {name: self.draw(name, net.encode(self.given[name][:BATCH]), "again") for name, net in self.net.items()}
        return self.verdicts("disc", z, self.labels, True)


def make(_, case):
    images = any(isinstance(f, list) for f in case["of"].values())
    m, out, said = (Image if images else Fc)(case), {}, {}
    put = lambda prefix, tensors: out.update(fixtures.under(prefix, tensors))
    put("x/", m.x)
    put("label/", m.y if m.kind != "none" else {})
    put("init/", networks.values(m.layers, False))
    t = 0
    for s, (phases, steps) in enumerate(zip(m.stages, m.steps)):
        m.training(True)
        for step in range(1, steps + 1):
            RANDOM.step = t = t + 1
            pairs = m.rng.permutation(CELLS)[:ANCHORS]
            rows = {name: torch.from_numpy(np.concatenate([m.rng.permutation(CELLS)[:BATCH], pairs])) for name in m.names}
            w = {p: exact(m.rng.uniform(0.2, 1, ANCHORS)) for p in m.pairs}
            put(f"rows/{t}/", rows)
            put(f"weight/{t}/", {f"{a}_{b}": v for (a, b), v in w.items()})
            m.begin(s, rows, w)
            for phase, adam in phases:
                for group in adam.param_groups:
                    group.setdefault("whole", group["lr"])
                    group["lr"] = group["whole"] * m.rate(step)
                terms = phase()
                adam.zero_grad()
                # A discriminator's gradient in the other phase, and what an encoder had from the phase before, belong to nobody.
                sum(weight * v for weight, v in terms.values()).backward(retain_graph=True)
                put(f"term/{t}/", {name: v for name, (_, v) in terms.items()})
                if step == 1:
                    put(f"grad/{t}/", networks.gradients(networks.values(m.layers, False), [adam]))
                if t == 1:
                    said |= {name: v for name, (_, v) in terms.items()}
                adam.step()
        put(f"after/{s}/", networks.values(m.layers, True))
    m.training(False)
    with torch.no_grad():
        codes = {name: m.encode(name, m.x[name]) for name in m.names}
        put("eval/code.", codes)
        put("eval/", {f"{a}_to_{b}": m.decode(b, codes[a]) for a in m.names for b in m.names})
        put("eval/class.", {name: m.head(z) for name, z in codes.items()} if m.kind == "head" else {})
    config = dict(flags=fixtures.flags(m.o), names=m.names, sizes=fixtures.sizes(case["of"]), classes=m.classes, steps=m.steps, seed=SEED)
    return fixtures.packed(out, config=config | dict(cells=CELLS, batch=BATCH, anchors=ANCHORS)), fixtures.numbers(said)


if __name__ == "__main__":
    fixtures.main(__file__, CASES, make)
