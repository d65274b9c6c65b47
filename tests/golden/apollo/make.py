#!/usr/bin/env python3
"""Golden values of APOLLO: whole training steps of both stages in PyTorch, in float64, out of PyTorch's own layers, losses and optimisers.

    env/bin/python tests/golden/apollo/make.py [--check]    (../fixtures.py says of what environment, and what is rounded when)

Noise and dropout are the engine's own, from its Philox streams.

Stage 1 takes two minibatches an epoch, each epoch in an order of its own that leaves some of the training cells out, and stage 2 goes on
with two more epochs; held-out cells are in no minibatch. Adam (dense) or SparseAdam (lazy) is PyTorch's, over the whole table.

In a file
    x/NAME [N, F]                   data of all cells, the HELD last ones held out
    condition [N]                   the cells' conditions, NaN where none is known; only where cells have them
    init/P                          of every parameter, scale and shift of norms and tables included
    order/E [slots]                 the cells of epoch E, from 0, both stages counted
    term/T/NAME                     every loss term of step T, from 1, both stages counted
    grad/P, grad/table.SPACE [N, d] gradients of the first step
    one/P, two/P                    after stage 1 what it moves, tables and running statistics included; after stage 2 the same
    held/NAME                       the held-out terms, after stage 2
    eval/code.NAME [HELD, d]        the held-out cells' codes: the shared space, and beside it the modality's own
    eval/self.NAME [HELD, F]        each modality's features decoded of its own code
    eval/cross.NAME [HELD, F]       and of the code of the modality before it (the last for the first)
    __metadata__.config             JSON: options as a user types them, names, features, images, sizes, seed
"""
import sys
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
from philox import Random

SEED = 0x5EED0002C0DE0003
RANDOM = Random(SEED)
EPOCHS = (4, 2)  # of the stages
HELD = 3
DENSE = dict(width=8, latent=3, latent_specific=2, dropout=0.2, noise=0.7, penalty=0.3, lr_tables=0.02, lr=0.01, lr_encoders=0.005)
IMAGES = dict(latent=3, latent_specific=2, channels="4,6", channels_specific=2, noise=0.7, penalty=0.3, lr_tables=0.02, lr=0.01)
# Names, and features or sizes of images; losses, and the weight of what is there; cells in training and of a minibatch; options
TWO = dict(rna=9, atac=12)
THREE = dict(rna=9, atac=12, protein=7)
LOSSES = dict(rna=("bce", 3.5), atac=("mse", None), protein=("bce", 0.4))
PICTURES = dict(dapi=[1, 16, 16], h2ax=[2, 8, 4])
PICTURE_LOSSES = dict(dapi=("bce", 1.0), h2ax=("mse", None))
CONDITIONS = ["CD4", "CD8", "lamin"]
CASES = {
    "two": dict(of=TWO, cells=15, batch=6, options={}),
    "three-redundancy": dict(of=THREE, cells=15, batch=7, options=dict(norm="squared", redundancy=0.5)),
    "three-shared-alone": dict(of=THREE, cells=15, batch=6, options=dict(specific="false", norm="squared", redundancy=0.5)),
    "no-shared-decoders-lazy": dict(of=TWO, cells=15, batch=6, options=dict(shared_decoders="false", untouched="lazy", dropout=0)),
    "images": dict(of=PICTURES, cells=9, batch=4, options={}),
    "images-shared-alone": dict(of=PICTURES, cells=9, batch=4, options=dict(specific="false", noise=0)),
    "conditions-of-encoders": dict(of=TWO, cells=15, batch=6, options=dict(condition="stain", condition_width=4, encoder_ids="own")),
    "images-conditions": dict(of=PICTURES, cells=9, batch=4, options=dict(condition="stain", condition_width=4)),
}


# ---- the networks (specification, sections 3 and 5) ---------------------------------------------------


class Dropout(nn.Module):
    def __init__(self, name, p):
        super().__init__()
        self.name, self.p = f"dropout.{name}", p

    def forward(self, x):
        if not self.training or self.p == 0:
            return x
        keep = RANDOM.uniforms(tuple(x.shape), self.name) >= float(np.float32(self.p))
        return x * keep / (1 - self.p)


class Dense(Named):
    """Layers NAME.PART, each behind its dropout."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def last(self, part, inputs, outputs, p):
        name = f"{self.name}.{part}"
        return nn.Sequential(Dropout(name, p), self.add(name, nn.Linear(inputs, outputs, bias=False)))

    def block(self, part, inputs, outputs, p):
        norm = self.add(f"{self.name}.{part}.norm", nn.BatchNorm1d(outputs, eps=1e-5, momentum=0.1))
        return nn.Sequential(*self.last(part, inputs, outputs, p), norm, nn.LeakyReLU(0.01))


class DenseDecoder(Dense):
    def __init__(self, name, latent, features, width, p):
        super().__init__(name)
        blocks = [self.block(str(l), latent if l == 0 else width, width, p) for l in range(3)]
        self.net = nn.Sequential(*blocks, self.last("3", width, features, p))

    def forward(self, z):
        return self.net(z)


class DenseEncoder(Dense):
    def __init__(self, name, features, spaces, width, p, told):
        super().__init__(name)
        self.trunk = nn.Sequential(self.block("0", features, width, p), self.block("1", width, width, p))
        self.heads = nn.ModuleList(
            nn.Sequential(self.block(f"{space}.0", width + told, d, p), self.last(f"{space}.1", d, d, p)) for space, d in spaces)

    def forward(self, x, told):
        h = torch.cat([self.trunk(x), *told], 1)
        return [head(h) for head in self.heads]


class ImageEncoder(Named):
    def __init__(self, name, image, spaces, channels, own, told):
        super().__init__()
        self.trunk = self.include(ImageTrunk(name, image, channels))
        maps, *sides = self.trunk.small
        self.split = [maps - own, own] if len(spaces) > 1 else [maps]
        inputs = [c * int(np.prod(sides)) + told for c in self.split]
        self.heads = nn.ModuleList(self.add(f"{name}.{space}", nn.Linear(n, d)) for (space, d), n in zip(spaces, inputs))

    def forward(self, x, told):
        maps = self.trunk(x).split(self.split, 1)
        return [head(torch.cat([m.flatten(1), *told], 1)) for head, m in zip(self.heads, maps)]


# ---- the model (sections 1, 2 and 4) ------------------------------------------------------------------


class Apollo:
    def __init__(self, case):
        of, images = case["of"], isinstance(next(iter(case["of"].values())), list)
        self.o = o = (IMAGES if images else DENSE) | case["options"]
        self.names, self.losses = list(of), PICTURE_LOSSES if images else LOSSES
        self.n, self.batch = case["cells"] + HELD, case["batch"]
        self.specific = o.get("specific") != "false"
        rng = np.random.default_rng(17)
        shared, own = (o["latent"], o["latent_specific"]) if self.specific else (o["latent"] + o["latent_specific"], 0)
        spaces = [("shared", shared)] + [("specific", own)] * self.specific
        sparse = o.get("untouched") == "lazy"
        table = lambda d: nn.Embedding(self.n, d, sparse=sparse).double()
        self.tables = {"shared": table(shared)} | {name: table(own) for name in self.names if self.specific}
        self.x, self.full, self.cross, self.encoders = {}, {}, {}, {}
        told = o.get("condition_width", 0)
        for name, f in of.items():
            bce = self.losses[name][0] == "bce"
            if images:
                channels = [int(c) for c in o["channels"].split(",")]
                decoder = lambda part, d: ImageDecoder(part, d, f, channels, sigmoid=not bce)
                encoder = ImageEncoder(f"enc.{name}", f, spaces, channels, o["channels_specific"], told)
            else:
                decoder = lambda part, d: DenseDecoder(part, d, f, o["width"], o["dropout"])
                encoder = DenseEncoder(f"enc.{name}", f, spaces, o["width"], o["dropout"], told)
            self.encoders[name] = encoder
            if self.specific:
                self.full[name] = decoder(f"dec.{name}", shared + own + told)
            if o.get("shared_decoders") != "false" or not self.specific:
                self.cross[name] = decoder(f"dec.{name}.shared", shared + told)
            size = (self.n, int(np.prod(f)))
            unit = rng.uniform(0, 1, size)
            # In [0, 1], exact zeros and ones among them, where cross-entropy wants it; images of values between.
            cells = np.clip(2 * unit - 0.6, 0, 1) if bce else unit if images else 0.4 + 1.3 * rng.normal(size=size)
            self.x[name] = exact(cells)
        self.decoders = [*self.full.values(), *self.cross.values()]
        self.layers = networks.layers_of([*self.decoders, *self.encoders.values()], rng)
        for name, t in self.tables.items():
            t.weight.data = exact(rng.normal(size=tuple(t.weight.shape)))
        self.orders = [rng.permutation(case["cells"]) for _ in range(sum(EPOCHS))]
        # Of the decoders, or of all; and the encoders' own. Some cells are of no known condition.
        self.condition, self.conditions = None, {}
        if told:
            self.condition = rng.integers(-1, len(CONDITIONS), self.n)
            for name in ["condition", *(f"enc.{name}.condition" for name in self.names if o.get("encoder_ids") == "own")]:
                self.conditions[name] = nn.Parameter(exact(rng.normal(size=(len(CONDITIONS), told))))
        make = torch.optim.SparseAdam if sparse else torch.optim.Adam
        adam = dict(betas=(0.9, 0.999), eps=1e-8)
        table_weights = [t.weight for t in self.tables.values()]
        of_nets = lambda nets: [p for net in nets for p in net.parameters()]
        self.adams = [
            [make(table_weights, lr=o["lr_tables"], **adam), torch.optim.Adam(of_nets(self.decoders), lr=o["lr"], **adam)],
            [torch.optim.Adam(of_nets(self.encoders.values()), lr=o.get("lr_encoders", 1e-3), **adam)],
        ]
        if told:
            of_encoders = [p for name, p in self.conditions.items() if name != "condition"]
            self.adams[0].append(torch.optim.Adam([self.conditions["condition"]], lr=o["lr_tables"], **adam))
            if of_encoders:
                self.adams[1].append(torch.optim.Adam(of_encoders, lr=o.get("lr_encoders", 1e-3), **adam))

    def told(self, rows, of="condition"):
        """The rows' conditions' vectors, zeros where none is known; nothing without conditions."""
        if self.condition is None:
            return []
        which = torch.from_numpy(self.condition[rows])
        table = self.conditions.get(of, self.conditions["condition"])
        return [torch.where((which >= 0)[:, None], table[which.clamp(min=0)], 0.0)]

    def likelihood(self, name, y, x):
        kind, weight = self.losses[name]
        if kind == "mse":
            return functional.mse_loss(y, x)
        # PyTorch's weight multiplies y ln σ, as w does in section 4.
        return functional.binary_cross_entropy_with_logits(y, x, pos_weight=torch.tensor(weight, dtype=torch.float64))

    def reconstructions(self, codes, rows):
        """Of (shared, specific or None) a modality."""
        terms, told = {}, self.told(rows)
        for name, (s, a) in codes.items():
            x = self.x[name][rows]
            if name in self.full:
                terms[f"recon.{name}"] = self.likelihood(name, self.full[name](torch.cat([s, a, *told], 1)), x)
            if name in self.cross:
                terms[f"recon.{name}.shared"] = self.likelihood(name, self.cross[name](torch.cat([s, *told], 1)), x)
        return terms

    def first(self, rows):
        """Terms with their weights."""
        o = self.o
        vectors = {name: t(rows) for name, t in self.tables.items()}
        noisy = {name: z + o["noise"] * RANDOM.normals(tuple(z.shape), f"noise.table.{name}") for name, z in vectors.items()}
        codes = {name: (noisy["shared"], noisy.get(name)) for name in self.names}
        terms = {k: (1.0, v) for k, v in self.reconstructions(codes, rows).items()}
        for name, z in vectors.items():
            length = torch.linalg.vector_norm(z, dim=1)
            length = length**2 if o.get("norm") == "squared" else length
            terms[f"penalty.{name}"] = o["penalty"], length.mean() / z.shape[1]
        if o.get("redundancy") and self.specific:
            spaces = list(vectors)
            # The engine adds 1e-5 to the variances, which takes up to 8e-5 off a term.
            for i, a in enumerate(spaces):
                for b in spaces[i + 1:]:
                    r = torch.corrcoef(torch.cat([vectors[a], vectors[b]], 1).T)[: vectors[a].shape[1], vectors[a].shape[1]:]
                    terms[f"redundancy.{a}_{b}"] = o["redundancy"], (r**2).mean()
        return terms

    def second(self, rows):
        terms = {}
        for name, encoder in self.encoders.items():
            targets = [self.tables["shared"], self.tables.get(name)]
            told = self.told(rows, f"enc.{name}.condition")
            told = told if self.o.get("encoder_ids") == "own" else [t.detach() for t in told]
            for space, code, table in zip(("shared", "specific"), encoder(self.x[name][rows], told), targets):
                terms[f"match.{name}.{space}"] = 1.0, functional.mse_loss(code, table(rows).detach())
        return terms

    def training(self, on):
        for net in [*self.decoders, *self.encoders.values()]:
            net.train(on)

    def values(self, after):
        """Parameters and, `after` training, running statistics, under the engine's names."""
        # The engine keeps a condition a column.
        out = {f"table.{name}": t.weight for name, t in self.tables.items()} | {name: p.T for name, p in self.conditions.items()}
        return out | networks.values(self.layers, after)

    def gradients(self):
        """Of the first stage's parameters."""
        moved = networks.gradients(self.values(False), self.adams[0])
        return moved | ({"condition": self.conditions["condition"].grad.T} if self.conditions else {})


def make(_, case):
    m, out, t, epoch = Apollo(case), {}, 0, 0
    put = lambda prefix, tensors: out.update(fixtures.under(prefix, tensors))
    put("x/", m.x)
    if m.condition is not None:
        out["condition"] = np.where(m.condition >= 0, m.condition, np.nan).astype(np.float32)
    put("init/", m.values(False))
    put("order/", {str(e): torch.from_numpy(order) for e, order in enumerate(m.orders)})
    m.training(True)
    for stage, epochs in enumerate(EPOCHS):
        for _ in range(epochs):
            for batch in range(2):
                RANDOM.step = t = t + 1
                rows = torch.from_numpy(m.orders[epoch][batch * m.batch : (batch + 1) * m.batch])
                terms = (m.first, m.second)[stage](rows)
                for adam in m.adams[stage]:
                    adam.zero_grad()
                sum(weight * v for weight, v in terms.values()).backward()
                put(f"term/{t}/", {name: v for name, (_, v) in terms.items()})
                if t == 1:
                    put("grad/", m.gradients())
                for adam in m.adams[stage]:
                    adam.step()
            epoch += 1
        put(("one/", "two/")[stage], {k: v for k, v in m.values(True).items() if k.startswith("enc.") == (stage == 1)})
    m.training(False)
    held = slice(m.n - HELD, m.n)
    with torch.no_grad():
        codes = {name: tuple(encoder(m.x[name][held], m.told(held, f"enc.{name}.condition"))) for name, encoder in m.encoders.items()}
        codes = {name: code if m.specific else (*code, None) for name, code in codes.items()}
        terms = m.reconstructions(codes, held)
        put("held/encoded.", terms)
        told = m.told(held)
        shown = lambda name, y: torch.sigmoid(y) if m.losses[name][0] == "bce" else y
        for i, name in enumerate(m.names):
            (s, a), other = codes[name], codes[m.names[i - 1]][0]
            put("eval/code.", {name: torch.cat([s, a], 1) if m.specific else s})
            y = m.full[name](torch.cat([s, a, *told], 1)) if name in m.full else m.cross[name](torch.cat([s, *told], 1))
            put("eval/self.", {name: shown(name, y)})
            # Without a decoder of the shared space alone: with zeros beside it.
            y = m.cross[name](torch.cat([other, *told], 1)) if name in m.cross else m.full[name](torch.cat([other, torch.zeros_like(a), *told], 1))
            put("eval/cross.", {name: shown(name, y)})
    flags = fixtures.flags(m.o) + [f"conditions={','.join(CONDITIONS)}"] * (m.condition is not None)
    for name in m.names:
        kind, weight = m.losses[name]
        flags += [f"preprocess.{name}={'minmax-cell' if kind == 'bce' else 'none'}", f"loss.{name}={kind}"]
        flags += [f"pos_weight.{name}={weight}"] if weight else []
    config = dict(flags=flags, names=m.names, sizes=fixtures.sizes(case["of"]), rows=m.n, held=HELD, batch=m.batch, epochs=EPOCHS, seed=SEED)
    return fixtures.packed(out, config=config), fixtures.numbers(terms)


if __name__ == "__main__":
    fixtures.main(__file__, CASES, make)
