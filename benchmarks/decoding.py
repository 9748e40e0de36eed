"""What ranking by beam search costs: users a second, with key/value cache and trie and without.

    python benchmarks/decoding.py

A catalogue of 12,000 random IDs of 3 codes, an untrained T5 of two sizes, random histories. Ways:
`cached`, the beams of `mmrec.nn.beam` on the cached steps of `mmrec.nn.t5`; `uncached`, the same
beams, the decoder run over the whole prefixes of all beams at each position; `greedy`, a loop over
users, the likeliest of all tokens at each position, without cache or trie: one ID a user, and it
need not be an item's. All ways in turns within one process, so that ratios hold on a busy machine.

Letters in names: I items, T positions of an ID, B users, S source tokens, K beams a user, P
positions so far.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmrec.nn.beam import Step, Trie, beam_search
from mmrec.nn.t5 import T5, T5Shape
from mmrec.study.provenance import hardware, now, versions

ITEMS, CODES, POSITIONS, BEAMS = 12_000, 256, 3, 20
BEGIN, FIRST = 0, 1
"""The token that begins, and that of code 0 at position 0."""


class Size(NamedTuple):
    """A model, the length of its histories, and how many users each way ranks in a round."""

    shape: T5Shape
    history: int
    users: dict[str, int]


SIZES = {
    "grid": Size(T5Shape(128, 6, 64, 1024, 4, 4), 20, {"cached": 64, "uncached": 32, "greedy": 16}),
    "reduced": Size(
        T5Shape(64, 4, 16, 256, 2, 2), 5, {"cached": 512, "uncached": 256, "greedy": 64}
    ),
}
"""GRID's T5, and the reduced size of the studies."""
BATCH = 256


class Decoder:
    """A model, a catalogue and users' histories."""

    def __init__(self, size: Size) -> None:
        draws = torch.Generator().manual_seed(0)
        code_IT = distinct_ids()
        self.code_IT = torch.from_numpy(code_IT)
        self.trie = Trie.of(code_IT, [CODES] * POSITIONS)
        self.net = T5(FIRST + CODES * POSITIONS, size.shape, 0.0, draws).eval()
        history = torch.randint(ITEMS, (max(size.users.values()), size.history), generator=draws)
        offset_T = FIRST + CODES * torch.arange(POSITIONS)
        self.source = (self.code_IT[history] + offset_T).flatten(1)
        self.ids = set(map(tuple, code_IT.tolist()))

    def cached(self, users: int) -> Tensor:
        """(users, K) items."""
        return torch.cat([self._beams(at, self._cached_step) for at in batches(users)])

    def uncached(self, users: int) -> Tensor:
        """(users, K) items."""
        return torch.cat([self._beams(at, self._uncached_step) for at in batches(users)])

    def greedy(self, users: int) -> Tensor:
        """(users, T) codes, or numbers outside where a token is none of its position."""
        return torch.stack([self._greedy(self.source[user : user + 1]) for user in range(users)])

    def _beams(self, at: slice, way: Callable[[Tensor, Tensor], Step]) -> Tensor:
        source_BS = self.source[at]
        real_BS = torch.ones_like(source_BS, dtype=torch.bool)
        allowed_BI = torch.ones(len(source_BS), ITEMS, dtype=torch.bool)
        step = way(self.net.encode(source_BS, real_BS), real_BS)
        return beam_search(step, self.trie, allowed_BI, BEAMS)[0]

    def _cached_step(self, state_BSD: Tensor, real_BS: Tensor) -> Step:
        decoding = self.net.start(state_BSD, real_BS)

        def step(position: int, code_BK: Tensor | None, parent_BK: Tensor | None) -> Tensor:
            token_BK = as_token(position, code_BK, len(state_BSD))
            return self._logp(self.net.step(token_BK, decoding, parent_BK), position)

        return step

    def _uncached_step(self, state_BSD: Tensor, real_BS: Tensor) -> Step:
        prefix_BKP = torch.empty(len(state_BSD), 1, 0, dtype=torch.int64)

        def step(position: int, code_BK: Tensor | None, parent_BK: Tensor | None) -> Tensor:
            nonlocal prefix_BKP
            token_BK = as_token(position, code_BK, len(state_BSD))
            if parent_BK is not None:
                known = parent_BK[..., None].expand(-1, -1, prefix_BKP.shape[2])
                prefix_BKP = prefix_BKP.gather(1, known)
            prefix_BKP = torch.cat((prefix_BKP, token_BK[..., None]), 2)
            beams = token_BK.shape[1]
            source, real = (x.repeat_interleave(beams, 0) for x in (state_BSD, real_BS))
            state = self.net.decode(prefix_BKP.flatten(0, 1), source, real)[:, -1]
            return self._logp(state.unflatten(0, token_BK.shape), position)

        return step

    def _logp(self, state_BKD: Tensor, position: int) -> Tensor:
        first = FIRST + CODES * position
        return self.net.logits(state_BKD, first, first + CODES).log_softmax(-1)

    def _greedy(self, source_1S: Tensor) -> Tensor:
        real_1S = torch.ones_like(source_1S, dtype=torch.bool)
        state_1SD = self.net.encode(source_1S, real_1S)
        token_1P = torch.full((1, 1), BEGIN)
        for _ in range(POSITIONS):
            state_1D = self.net.decode(token_1P, state_1SD, real_1S)[:, -1]
            token_1P = torch.cat((token_1P, self.net.logits(state_1D).argmax(-1)[:, None]), 1)
        return token_1P[0, 1:] - FIRST - CODES * torch.arange(POSITIONS)


def distinct_ids() -> np.ndarray:
    """(I, T) random codes, no two items' the same."""
    rng = np.random.default_rng(0)
    code_IT = np.unique(rng.integers(0, CODES, (ITEMS + ITEMS // 10, POSITIONS)), axis=0)
    return rng.permutation(code_IT)[:ITEMS]


def as_token(position: int, code_BK: Tensor | None, users: int) -> Tensor:
    """(B, K) the tokens of the codes of the position before; at first the one that begins."""
    if code_BK is None:
        return torch.full((users, 1), BEGIN)
    return code_BK + FIRST + CODES * (position - 1)


def batches(users: int) -> list[slice]:
    return [slice(start, min(start + BATCH, users)) for start in range(0, users, BATCH)]


def seconds_a_user(way: Callable[[int], Tensor], users: int) -> float:
    start = time.perf_counter()
    way(users)
    return (time.perf_counter() - start) / users


def compared(name: str, rounds: int) -> dict[str, Any]:
    """Medians over rounds of users a second, and of how many times as fast cached beams are."""
    size = SIZES[name]
    decoder = Decoder(size)
    ways = {"cached": decoder.cached, "uncached": decoder.uncached, "greedy": decoder.greedy}
    fewest = min(size.users["cached"], size.users["uncached"])
    same = decoder.cached(fewest) == decoder.uncached(fewest)  # also loads code
    ids = decoder.greedy(size.users["greedy"]).tolist()
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, ranked in ways.items():
            seconds[way].append(seconds_a_user(ranked, size.users[way]))
    ratios = {
        way: [slow / fast for slow, fast in zip(seconds[way], seconds["cached"], strict=True)]
        for way in ("uncached", "greedy")
    }
    return {
        "size": name,
        **size._asdict(),
        "shape": size.shape._asdict(),
        "users_per_second": {w: round(1 / statistics.median(s), 2) for w, s in seconds.items()},
        "times_as_fast": {w: round(statistics.median(r), 2) for w, r in ratios.items()},
        "times_as_fast_range": {w: [round(min(r), 2), round(max(r), 2)] for w, r in ratios.items()},
        "uncached_finds_the_same": round(float(same.double().mean()), 4),
        "greedy_no_items_id": sum(tuple(code) not in decoder.ids for code in ids) / len(ids),
    }


def line(found: dict[str, Any]) -> str:
    """What is printed of a size."""
    speeds = ", ".join(f"{way} {speed}" for way, speed in found["users_per_second"].items())
    ratios = ", ".join(f"{times} times {way}" for way, times in found["times_as_fast"].items())
    return (
        f"{found['size']}: users a second: {speeds}; cached is {ratios};"
        f" {found['greedy_no_items_id']:.1%} of greedy IDs are no item's"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sizes = []
    with torch.no_grad():
        for name in SIZES:
            sizes.append(compared(name, arguments.rounds))
            print(line(sizes[-1]), flush=True)
    result = {
        "date": now(),
        "hardware": hardware(),
        "versions": versions(),
        "threads": arguments.threads,
        "items": ITEMS,
        "beams": BEAMS,
        "sizes": sizes,
    }
    (arguments.out / "decoding.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
