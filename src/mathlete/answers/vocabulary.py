"""Words with a meaning in answers: units, currencies, number words, functions, text that is no answer.

The unit list is a whitelist on purpose: peers that strip any trailing letter read `2t` as 2 (see docs/answers.md).
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LENGTH = "mm cm dm km meter meters metre metres inch inches in ft foot feet yd yard yards mile miles mi"
_AREA = "acre acres hectare hectares ha sq square cubic"
_TIME = "sec second seconds min minute minutes hr hrs hour hours day days week weeks month months year years yr yrs ms"
_MASS = "mg kg gram grams kilogram kilograms lb lbs pound pounds oz ounce ounces ton tons tonne tonnes"
_VOLUME = "ml liter liters litre litres gallon gallons cup cups pint pints quart quarts"
_PHYSICS = (
    "mph kph kmh rpm hz khz mhz ghz joule joules watt watts kw kwh mw newton newtons volt volts amp amps pa kpa mpa "
    "mol ev kev mev gev ohm ohms kj um cal kcal"
)
_ANGLE = "deg degree degrees rad radian radians"
_COUNT = "unit units way ways time times point points"
COUNTED = _words("people students apples")
"""Nouns that are counted: no units, so that beside another noun they name what is counted."""
UNITS = _words(" ".join((_LENGTH, _AREA, _TIME, _MASS, _VOLUME, _PHYSICS, _ANGLE, _COUNT))) | COUNTED
"""Unit words that carry no value."""
LETTER_UNITS = frozenset({"m", "g", "s", "h", "L", "l", "J", "W", "N", "V", "A", "K", "C", "F", "T"})
"""One-letter units: read as units only inside \\text{...} or \\mathrm{...}, never glued to a number."""
CURRENCY = _words("dollar dollars usd euro euros eur pound pounds gbp yuan rmb yen rupees rupee")
PERCENT = frozenset({"percent", "percentage", "pct", "per cent"})
SCALES = {"cent": (1, 100), "cents": (1, 100), "thousand": (1000, 1), "million": (10**6, 1), "billion": (10**9, 1)}
"""Words that multiply the number before them."""
_ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety hundred"
NUMBER_WORDS = {
    **{word: i for i, word in enumerate((_ONES + " seventeen eighteen nineteen").split())},
    **{word: 10 * i for i, word in enumerate(_TENS.split(), start=2)},
}
TRIG = _words("sin cos tan cot sec csc")
INVERSE_TRIG = {f"{pre}{name}": f"arc{name}" for name in ("sin", "cos", "tan") for pre in ("arc", "a")}
HYPERBOLIC = _words("sinh cosh tanh")
RECIPROCALS = {"sech": "cosh", "csch": "sinh", "coth": "tanh"}
"""Functions that are one over another."""
_AREA_FUNCTIONS = _words("arcsinh arccosh arctanh")
FUNCTIONS = (
    TRIG
    | frozenset(INVERSE_TRIG)
    | HYPERBOLIC
    | _AREA_FUNCTIONS
    | frozenset(RECIPROCALS)
    | {"log", "ln", "lg", "exp", "arccot", "arcsec", "arccsc", "cis"}
)
MANY_ARGUMENTS = _words("gcd lcm min max")
FUNCTION_SPELLINGS = {
    "tg": "tan", "ctg": "cot", "cotg": "cot", "cosec": "csc", "arctg": "arctan", "arcctg": "arccot", "sh": "sinh",
    "ch": "cosh", "th": "tanh", "Arcsin": "arcsin", "Arccos": "arccos", "Arctan": "arctan", "Sin": "sin", "Cos": "cos",
    "Tan": "tan", "arsinh": "arcsinh", "arcosh": "arccosh", "artanh": "arctanh",
    "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh", "acot": "arccot", "asec": "arcsec", "acsc": "arccsc",
    "binomial": "binom", "ceiling": "ceil", "Abs": "abs",
    "hcf": "gcd", "GCD": "gcd", "LCM": "lcm", "Max": "max", "Min": "min",
}  # fmt: skip
"""Functions as other countries and programs write them."""
PLAIN_FUNCTIONS = frozenset({"sqrt", "cbrt", "abs", "floor", "ceil", "binom", "factorial", "det"})
OPERATORS = (
    FUNCTIONS
    | MANY_ARGUMENTS
    | _words(
        "Re Im arg sgn sign rank tr trace det dim ker deg ord cosh sech csch coth arcosh arsinh artanh arccosh arcsinh "
        "arctanh erf Li Si Ci im rk Tr Ker "
        "Var Cov lim sup inf floor ceil round card vol adj span diag conj curl div grad"
    )
)
"""Names of operators: in upright letters before a value they are no label that could be dropped."""
"""Names with an argument list in plain (non-LaTeX) notation."""
GREEK = _words(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell hbar"
)
MODIFIERS_BEFORE = _words(
    "at least most less more greater larger smaller fewer than not no neither nor never twice thrice half double "
    "triple quadruple quarter third minus negative plus multiple multiples except excluding without below above under "
    "over between beyond within root square cube factorial dozen hundred or sine cosine tangent logarithm inverse "
    "reciprocal opposite conjugate any every all odd even prime unless of by from to until "
    "north south east west"
)
"""Words that change the value behind them: in front of it they are no label that could be dropped."""
PREPOSITIONS = _words("on at in of than by from to with for between before after when where if")
"""Words at the end of a text that make the value behind it something else than what the text names."""
DIRECTIONS = _words(
    "north south east west down downward downwards below behind before decrease loss deficit clockwise younger early"
)
"""Words of a direction: 5 m east is not 5 m west. Of up and down, more and less only one has the value's own sign."""
MODIFIERS_BEHIND = DIRECTIONS | _words(
    "o squared cubed factorial dozen hundred hundreds trillion half halves third thirds quarter quarters choose plus "
    "fifths sixths sevenths eighths ninths tenths hundredths thousandths tens "
    "minus over to or more less greater fewer at and not modulo thousand million billion percent"
)
"""Words that change the value before them: behind it they begin no noun that could be dropped."""
NO_SOLUTION = frozenset(
    {"no solution", "no solutions", "no real solution", "no real solutions", "empty set", "the empty set", "none"}
)
ALL_REALS = frozenset({"all real numbers", "all reals", "all real"})
