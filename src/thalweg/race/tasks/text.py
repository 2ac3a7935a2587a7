"""The next character of English prose: a small transformer, and a model that is all embeddings.

The text is what Python's ``help()`` prints about the language's topics, which every CPython
carries; its versions differ a little.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from thalweg import losses
from thalweg.race.task import Split, Task

TEST_SHARE = 0.1  # the end of the text
OTHER = 0  # stands for characters that the training part does not have

CONTEXT, WIDTH, LAYERS, HEADS = 64, 64, 2, 4
WINDOWS = 8  # of CONTEXT characters in a batch
TEST_WINDOWS = 48

ORDERS, BUCKETS = 4, 1024
POSITIONS = 256  # characters to predict in a batch
TEST_EVERY = 11
SCALE = 8.0


@dataclass(frozen=True, eq=False)
class Prose:
    """The text as numbers.

    Attributes:
        train: characters of the first nine tenths, int64.
        test: those of the rest.
        characters: how many there are, :data:`OTHER` included.
    """

    train: Tensor
    test: Tensor
    characters: int


@cache
def prose() -> Prose:
    """All topics, in the order of their names."""
    topics: dict[str, str] = import_module("pydoc_data.topics").topics
    text = "\n".join(topics[name] for name in sorted(topics))
    cut = round((1 - TEST_SHARE) * len(text))
    numbers = {c: i for i, c in enumerate(sorted(set(text[:cut])), start=OTHER + 1)}
    every = torch.tensor([numbers.get(c, OTHER) for c in text], device="cpu")
    return Prose(every[:cut], every[cut:], len(numbers) + 1)


def transformer() -> Task:
    """Every next character in windows of 64: two layers of width 64 with 4 heads.

    Layers normalise their input; the feed-forward width is 128 (GELU), positions are learned.
    Training windows begin anywhere; the 48 test windows are spread over the last tenth of the text.

    Source: A. Vaswani et al., "Attention Is All You Need", 2017; the order of normalisation is that
    of R. Xiong et al., "On Layer Normalization in the Transformer Architecture", 2020.
    """
    text = prose()

    def batches(split: Split, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        if split == "test":
            starts = torch.linspace(
                0, len(text.test) - CONTEXT - 1, TEST_WINDOWS, device="cpu"
            ).long()
            yield windows(text.test, starts)
            return
        for _ in range(len(text.train) // (WINDOWS * CONTEXT)):
            starts = torch.randint(
                len(text.train) - CONTEXT, (WINDOWS,), generator=generator, device="cpu"
            )
            yield windows(text.train, starts)

    def logits(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return model(batch[0]).flatten(0, 1), batch[1].flatten()

    return Task(
        name="transformer",
        model=lambda: Transformer(text.characters),
        batches=batches,
        loss=lambda model, batch: losses.cross_entropy(*logits(model, batch)),
        target=2.3,
        steps=500,
        description=f"next character of {len(text.train) // 1000} kB of prose, {WINDOWS} windows "
        f"of {CONTEXT} in a batch; a transformer of {LAYERS} layers of width {WIDTH}",
        torch_loss=lambda model, batch: cross_entropy(*logits(model, batch)),
        loss_name="cross_entropy",
    )


def windows(text: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """Windows of CONTEXT characters and, for each of these, the next one."""
    found = text[starts[:, None] + torch.arange(CONTEXT + 1, device="cpu")]
    return found[:, :-1], found[:, 1:]


class Transformer(nn.Module):
    """Logits of the next character after each of a window, shape (N, CONTEXT, characters)."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(characters, WIDTH)
        self.positions = nn.Parameter(0.02 * torch.randn(CONTEXT, WIDTH, device="cpu"))
        self.layers = nn.Sequential(*(Layer() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.output = nn.Linear(WIDTH, characters)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.output(self.norm(self.layers(self.characters(x) + self.positions)))
        return found


class Layer(nn.Module):
    """Attention to what came before, then two linear layers; each added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.heads = nn.Linear(WIDTH, 3 * WIDTH)
        self.joined = nn.Linear(WIDTH, WIDTH)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        split = self.heads(self.norm(x)).unflatten(-1, (3, HEADS, WIDTH // HEADS))
        query, key, value = split.permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.joined(seen.transpose(1, 2).flatten(2))
        added: Tensor = x + self.feed_forward(x)
        return added


def embedding() -> Task:
    """The next character from the 1, 2, 3 and 4 before it: a sum of rows of a table.

    Each of the four contexts is hashed to one of 1024 rows of its own, which hold a number for each
    character; logits are 8 times the sum of the four rows. The factor brings the learning rates
    that suit to where they usually are. All gradients are sparse: of 4096 rows a batch of 256
    touches 1024 at most.

    Source: T. Mikolov et al., "Strategies for Training Large Scale Neural Network Language Models",
    2011 (n-gram features by hashing, trained by gradient descent).
    """
    text = prose()
    train, test = contexts(text.train), contexts(text.test)

    def batches(split: Split, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        if split == "test":
            yield test[::TEST_EVERY], text.test[::TEST_EVERY]
            return
        order = torch.randperm(len(train), generator=generator, device="cpu")
        for rows in order[: len(order) // POSITIONS * POSITIONS].view(-1, POSITIONS):
            yield train[rows], text.train[rows]

    return Task(
        name="embedding",
        model=lambda: HashedContexts(text.characters),
        batches=batches,
        loss=lambda model, batch: losses.cross_entropy(model(batch[0]), batch[1]),
        target=1.6,
        steps=400,
        description=f"next character of {len(text.train) // 1000} kB of prose from the {ORDERS} "
        f"before it, {POSITIONS} in a batch; a sum of embeddings with sparse gradients",
        torch_loss=lambda model, batch: cross_entropy(model(batch[0]), batch[1]),
        loss_name="cross_entropy",
    )


def contexts(text: Tensor) -> Tensor:
    """The rows that the last 1, 2, ... characters before each one are hashed to, (N, ORDERS)."""
    state = torch.zeros_like(text)
    found = []
    for order in range(1, ORDERS + 1):
        before = torch.cat([text.new_zeros(order), text[:-order]])
        # A polynomial hash; the modulus, a prime below 2^31, keeps products within 64 bits.
        state = (state * 1_000_003 + before + order) % 2_147_483_647
        found.append(state % BUCKETS + (order - 1) * BUCKETS)
    return torch.stack(found, dim=1)


class HashedContexts(nn.Module):
    """Logits of the next character, shape (N, characters), from rows of shape (N, ORDERS)."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(ORDERS * BUCKETS, characters, mode="sum", sparse=True)
        nn.init.normal_(self.table.weight, std=0.01)

    def forward(self, rows: Tensor) -> Tensor:
        found: Tensor = SCALE * self.table(rows)
        return found
