"""Where tokens near consensus pass from one formula to another, known without Numba."""

__all__ = ["DIRECT", "LARGE", "NOTHING", "SERIES", "SHORT"]

#: Deviations above so many times the first token, and tokens whose square is below this share of
#: its square, are normalised as tokens.
LARGE, SHORT = 1e6, 0.05
#: Tokens with a smaller log mu count as equal.
NOTHING = -1e100
#: Scores between deviations above which attention, not its difference to a common row, is computed.
DIRECT = 0.3
#: (e^b - 1) / b = 1 + b / 2 (1 + b / 3 (1 + ...)), to the last bit for |b| <= DIRECT: the inverses.
SERIES = tuple(1.0 / n for n in range(13, 1, -1))
