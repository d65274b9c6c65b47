"""The engine's random numbers (src/engine/rng.rs): Philox4x32-10 (Salmon et al. 2011), keyed by a seed, counted by element, step and stream."""
import numpy as np
import torch


def philox(counter, key):
    """Four words [4, n] of counters [4, n] and keys [2, n]."""
    c, k, low = [[np.uint64(v) for v in a] for a in (counter, key)] + [np.uint64(0xFFFFFFFF)]
    for _ in range(10):
        a, b = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(b >> np.uint64(32)) ^ c[1] ^ k[0], b & low, (a >> np.uint64(32)) ^ c[3] ^ k[1], a & low]
        k = [(k[0] + np.uint64(0x9E3779B9)) & low, (k[1] + np.uint64(0xBB67AE85)) & low]
    return np.array(c)


# The known answers that its authors publish.
for _counter, _key, _answer in [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0], [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
]:
    assert philox([[v] for v in _counter], [[v] for v in _key])[:, 0].tolist() == _answer


def stream_of(name):
    """A stream's number: FNV-1a of its name, 32 bits, the top one set."""
    h = 0x811C9DC5
    for b in name.encode():
        h = (h ^ b) * 0x01000193 & 0xFFFFFFFF
    return h | 0x80000000


class Random:
    """What the engine draws under a seed in the step under way, which the maker counts."""

    def __init__(self, seed):
        self.seed, self.step = seed, 0

    def words(self, n, stream):
        """The first n words [n] of the stream of this number, as 64-bit integers; a counter gives four in a row."""
        counter = np.arange((n + 3) // 4)
        fixed = lambda v: np.full_like(counter, v)
        key = [fixed(self.seed & 0xFFFFFFFF), fixed(self.seed >> 32)]
        return philox([counter, fixed(0), fixed(self.step), fixed(stream)], key).T.reshape(-1)[:n]

    def uniforms(self, shape, name):
        """In [0, 1), of 24 bits."""
        words = self.words(int(np.prod(shape)), stream_of(name))
        return torch.from_numpy(((words >> np.uint64(8)).astype(np.float64) / 2.0**24).reshape(shape))

    def normals(self, shape, name):
        """Box-Muller on the words (0, 1) and (2, 3) of every counter: radius from 30 bits, rounded to float32 as the engine has it, angle
        from 32."""
        n = int(np.prod(shape))
        words = self.words((n + 3) // 4 * 4, stream_of(name)).reshape(-1, 2)
        u = ((words[:, 0] >> np.uint64(1)) | np.uint64(1)).astype(np.float32).astype(np.float64) / 2.0**31
        radius, angle = np.sqrt(-2 * np.log(u)), 2 * np.pi * words[:, 1].astype(np.float64) / 2.0**32
        pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
        return torch.from_numpy(pairs.reshape(-1)[:n].reshape(shape))
