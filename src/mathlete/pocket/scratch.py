"""A scratchpad for traces: each operation writes its atomic steps and returns the value."""


class Scratch:
    """Collects steps, one per line. A trace is right by construction: every number in it was computed.

    >>> work = Scratch()
    >>> work.remainder(work.add(work.times(29, 4), 17), 9)
    7
    >>> work.text.splitlines()
    ['20*4=80', '9*4=36', '80+36=116', '116+17=133', '9*10=90', '133-90=43', '9*4=36', '43-36=7']
    """

    def __init__(self) -> None:
        self._steps: list[str] = []

    @property
    def text(self) -> str:
        """The steps so far, one a line."""
        return "\n".join(self._steps)

    def note(self, step: str) -> None:
        """Write a step verbatim."""
        self._steps.append(step)

    def add(self, a: int, b: int) -> int:
        """Return a + b, in one step."""
        self.note(f"{a}+{b}={a + b}")
        return a + b

    def subtract(self, a: int, b: int) -> int:
        """Return a - b, in one step."""
        self.note(f"{a}-{b}={a - b}")
        return a - b

    def total(self, terms: list[int]) -> int:
        """Return the sum of several terms, added from the left."""
        running = terms[0]
        for term in terms[1:]:
            running = self.add(running, term)
        return running

    def times(self, a: int, b: int) -> int:
        """Return a * b: the longer factor is split into its place values and the products are added."""
        a, b = max(a, b), min(a, b)
        parts = [place for place in _split_places(a) if place]
        if b in (0, 1, 2, 10) or not parts:
            self.note(f"{a}*{b}={a * b}")
            return a * b
        for part in parts:
            self.note(f"{part}*{b}={part * b}")
        return self.total([part * b for part in parts])

    def halve(self, a: int) -> int:
        """Return half of an even number, in one step."""
        self.note(f"{a}/2={a // 2}")
        return a // 2

    def remainder(self, a: int, m: int) -> int:
        """Return the remainder of a divided by m, by long division."""
        return self._divide(a, m, to_the_end=True)[1]

    def quotient(self, a: int, m: int) -> int:
        """Return the quotient of a and m, by long division without the last difference."""
        return self._write_sum(self._divide(a, m, to_the_end=False)[0])

    def divide(self, a: int, m: int) -> tuple[int, int]:
        """Return quotient and remainder, by long division."""
        quotient, left = self._divide(a, m, to_the_end=True)
        return self._write_sum(quotient), left

    def gcd(self, a: int, b: int) -> int:
        """Return the greatest common divisor by Euclid's algorithm with subtractions.

        A subtraction needs no guess of a quotient, which a small model gets wrong.
        """
        while a != b:
            a, b = min(a, b), self.subtract(max(a, b), min(a, b))
        return a

    def lcm(self, a: int, b: int) -> int:
        """Return the least common multiple: one number divided by the gcd, times the other."""
        a, b = max(a, b), min(a, b)
        divisor = self.gcd(a, b)
        factor = b // divisor
        self.note(f"{b}/{divisor}={factor}")
        return self.times(a, factor)

    def pairs(self, n: int) -> int:
        """Return C(n, 2); the even one of n and n-1 is halved first, which keeps the product small."""
        self.note(f"{n}-1={n - 1}")
        even, odd = (n, n - 1) if n % 2 == 0 else (n - 1, n)
        return self.times(odd, self.halve(even))

    def _write_sum(self, quotient: int) -> int:
        """Write the quotient as the sum of its place values, if it has several; return it."""
        parts = [part for part in _split_places(quotient) if part]
        if len(parts) > 1:
            self.note("+".join(map(str, parts)) + f"={quotient}")
        return quotient

    def _divide(self, a: int, m: int, *, to_the_end: bool) -> tuple[int, int]:
        parts = [part for part in _split_places(a // m) if part]
        if not parts:
            self.note(f"{a}<{m}")
        left = a
        for part in parts:
            self.note(f"{m}*{part}={m * part}")
            if to_the_end or part != parts[-1]:
                left = self.subtract(left, m * part)
        return a // m, left


def _split_places(a: int) -> list[int]:
    """Split a number into its places: 347 -> [300, 40, 7]."""
    digits = str(a)
    return [int(digit) * 10 ** (len(digits) - 1 - place) for place, digit in enumerate(digits)]
