"""A competition's rules: what is handed in, what an answer may be, the clock, how it is asked and scored.

Each competition is one file of data, `data/competitions/NAME.toml`; a new one needs no line of Python. Every field of
`Competition` is a key of that file, and a field that is a dataclass is a table in it.

>>> rules = competition("aimo-3")
>>> rules.deliverable, rules.answer_type, rules.points, rules.notebook.gateway.package
('notebook', 'integer', (0.0, 0.5, 1.0), '0.9.0')
"""

from mathlete.competitions.comparing import compare_rules, describe_changes
from mathlete.competitions.files import competition, competition_names
from mathlete.competitions.rules import Competition
from mathlete.competitions.scorer import ScorerRules
from mathlete.competitions.tables import AdapterRules, GatewayRules, PromptRules, SamplingRules

__all__ = [
    "AdapterRules",
    "Competition",
    "GatewayRules",
    "PromptRules",
    "SamplingRules",
    "ScorerRules",
    "compare_rules",
    "competition",
    "competition_names",
    "describe_changes",
]
