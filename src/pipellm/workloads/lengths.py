"""How long prompts and answers are: the shapes of two published data sets.

The means are those of figure 11 of the vLLM paper (Kwon et al., SOSP 2023, arXiv 2309.06180), which
shows the lengths of ShareGPT's and Alpaca's texts in tokens. The spreads are read off the same
histograms, about (I): ShareGPT's fall slowly over two thousand tokens, Alpaca's prompts are nearly
all alike. Lengths are drawn from the log-normal distribution with that mean and spread, and cut off
where the model's context ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, log
from random import Random

from pipellm.errors import choice
from pipellm.workloads.models import POSITIONS


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Lengths whose logarithm is normal."""

    mean: float
    sigma: float
    """Standard deviation of the logarithm."""

    @property
    def median(self) -> float:
        return exp(self._mu)

    @property
    def _mu(self) -> float:
        return log(self.mean) - self.sigma**2 / 2

    def draw(self, random: Random) -> int:
        """One length, at least 1."""
        return max(1, round(random.lognormvariate(self._mu, self.sigma)))


@dataclass(frozen=True, slots=True)
class Lengths:
    """The prompts and answers of one data set."""

    name: str
    prompt: LogNormal
    answer: LogNormal

    @staticmethod
    def named(name: str) -> Lengths:
        """The data set called `name`; raises UserError if there is none."""
        return choice("data set", name, LENGTHS)

    def requests(self, seed: int) -> Iterator[tuple[int, int]]:
        """Prompt and answer of one request after the other, the same for the same seed."""
        random = Random(seed)
        while True:
            prompt = min(self.prompt.draw(random), POSITIONS // 2)
            yield prompt, min(self.answer.draw(random), POSITIONS - prompt)


LENGTHS = {
    lengths.name: lengths
    for lengths in (
        Lengths("sharegpt", LogNormal(161.31, 1.2), LogNormal(337.99, 0.9)),
        Lengths("alpaca", LogNormal(19.31, 0.4), LogNormal(58.45, 0.9)),
    )
}
