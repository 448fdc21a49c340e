"""Paged KV cache: blocks of a memory, counted by reference, as vLLM's block manager keeps them."""

from __future__ import annotations


class Blocks:
    """The blocks of one memory. The one freed last is given out first, as in vLLM's free list."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count - 1, -1, -1))
        self._references = [0] * count

    @property
    def free(self) -> int:
        """How many nobody refers to."""
        return len(self._free)

    def take(self) -> int:
        """A block with one reference. Raises IndexError if none is free."""
        block = self._free.pop()
        self._references[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more refers to it."""
        self._references[block] += 1

    def shared(self, block: int) -> bool:
        """Whether more than one refer to it."""
        return self._references[block] > 1

    def drop(self, block: int) -> None:
        """One less refers to it."""
        self._references[block] -= 1
        if not self._references[block]:
            self._free.append(block)


class Request:
    """One prompt with `parallel` answers, whose block tables share what they have in common."""

    def __init__(self, number: int, prompt: int, answer: int, parallel: int) -> None:
        self.number = number
        """In the order of arrival."""
        self.prompt = prompt
        self.answer = answer
        """Tokens of each answer; all end at the same time, as with a fixed length."""
        self.parallel = parallel
        self.generated = 0
        self.tables: list[list[int]] = []
        """The blocks of each answer, on the device or, swapped out, on the host."""

    @property
    def context(self) -> int:
        """Tokens that one answer has so far."""
        return self.prompt + self.generated

    @property
    def _cached(self) -> int:
        # The last token generated has no place in the cache before it is used.
        return self.context - 1

    @property
    def finished(self) -> bool:
        return self.generated >= self.answer

    @property
    def distinct(self) -> list[int]:
        """Its blocks, each once, in the order of its tables."""
        return list(dict.fromkeys(block for table in self.tables for block in table))

    def admit(self, blocks: Blocks, size: int) -> None:
        """Take the blocks of the prompt; all answers share them."""
        taken = [blocks.take() for _ in range(-(-self.prompt // size))]
        for _ in range(self.parallel - 1):
            for block in taken:
                blocks.share(block)
        self.tables = [list(taken) for _ in range(self.parallel)]

    def room_needed(self, blocks: Blocks, size: int) -> int:
        """How many blocks one more token of each answer takes at most."""
        if self._cached % size == 0:
            return self.parallel
        return self.parallel - 1 if blocks.shared(self.tables[0][-1]) else 0

    def grow(self, blocks: Blocks, size: int) -> None:
        """Make room for one more token of each answer: a new block, or a copy of a shared one."""
        for table in self.tables:
            if self._cached % size == 0:
                table.append(blocks.take())
            elif blocks.shared(table[-1]):
                blocks.drop(table[-1])
                table[-1] = blocks.take()

    def move(self, source: Blocks, target: Blocks) -> list[tuple[int, int]]:
        """Move its tables from one memory to the other; which block goes where."""
        mapping: dict[int, int] = {}
        for table in self.tables:
            for i, block in enumerate(table):
                if block in mapping:
                    target.share(mapping[block])
                else:
                    mapping[block] = target.take()
                source.drop(block)
                table[i] = mapping[block]
        return list(mapping.items())

    def release(self, blocks: Blocks) -> None:
        """Give its blocks back."""
        for table in self.tables:
            for block in table:
                blocks.drop(block)
        self.tables = []
