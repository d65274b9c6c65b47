"""Networks of PyTorch's own layers that go by the engine's names: what cross-modal and apollo have in common."""
import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn

from fixtures import exact


class Named(nn.Module):
    """Remembers which of its layers has which of the engine's names."""

    def __init__(self):
        super().__init__()
        self.named = {}

    def add(self, name, layer):
        self.named[name] = layer
        self.add_module(name.replace(".", "_"), layer)
        return layer

    def include(self, part):
        self.named |= part.named
        return part


class ImageTrunk(Named):
    """Convolutions NAME.0, NAME.1, ..., each of which halves the sides: images [B, C * H * W] to maps [B, *small]."""

    def __init__(self, name, image, channels):
        super().__init__()
        self.image, self.small = image, small(image, channels)
        layers = []
        for l, (a, b) in enumerate(zip([image[0], *channels], channels)):
            layers.append(self.add(f"{name}.{l}", nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False)))
            layers += [self.add(f"{name}.{l}.norm", nn.BatchNorm2d(b))] if l > 0 else []
            layers.append(nn.LeakyReLU(0.2))
        self.net = nn.Sequential(*layers)

    def forward(self, x):
        return self.net(x.reshape(-1, *self.image))


class ImageDecoder(Named):
    """A linear map NAME.code and the way back: codes [B, latent] to images [B, C * H * W], in (0, 1) or as logits."""

    def __init__(self, name, latent, image, channels, sigmoid=True):
        super().__init__()
        self.small = small(image, channels)
        self.code = self.add(f"{name}.code", nn.Linear(latent, int(np.prod(self.small))))
        layers = []
        for l, (a, b) in enumerate(zip(reversed(channels), [*reversed(channels[:-1]), image[0]])):
            layers.append(self.add(f"{name}.{l}", nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False)))
            if l < len(channels) - 1:
                layers += [self.add(f"{name}.{l}.norm", nn.BatchNorm2d(b)), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers, *([nn.Sigmoid()] if sigmoid else []))

    def forward(self, z):
        return self.net(functional.relu(self.code(z)).reshape(-1, *self.small)).flatten(1)


def small(image, channels):
    """[C, H, W] of an image after every halving."""
    return [channels[-1], *(side >> len(channels) for side in image[1:])]


def layers_of(nets, rng):
    """The networks' layers by name, in float64, with initial values: scale and shift of norms that differ from 1 and 0, weights as large
    as PyTorch begins with."""
    layers = {}
    for net in nets:
        net.double()
        layers |= net.named
    for name, layer in sorted(layers.items()):
        for part, p in layer.named_parameters():
            bound = 1 / np.sqrt(p[0].numel()) if p.dim() > 1 else 0.3
            low, high = (0.6, 1.4) if "norm" in name and part == "weight" else (-bound, bound)
            p.data = exact(rng.uniform(low, high, tuple(p.shape)))
    return layers


def values(layers, after):
    """Parameters and, `after` training, running statistics, by name."""
    out = {}
    for name, layer in layers.items():
        out |= {f"{name}.{part}": p for part, p in layer.named_parameters()}
        if after and "norm" in name:
            out |= {f"{name}.mean": layer.running_mean, f"{name}.var": layer.running_var}
    return out


def gradients(parameters, adams):
    """Of those of the parameters by name that one of the optimisers moves."""
    moved = {id(p) for adam in adams for group in adam.param_groups for p in group["params"]}
    return {name: p.grad.to_dense() for name, p in parameters.items() if id(p) in moved}
