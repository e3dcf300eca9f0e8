"""placeholder"""
from mathlete.answers.answer import parse
from mathlete.answers.extract import Kind

def extraction_kind(gold: str) -> Kind:
    """What kind of answer the gold shows that the task asks for."""
    node = parse(gold).node
    if node is not None and node.op == "letter" and gold.strip().strip("()").isupper():
        return "choice"
    return "list" if node is not None and node.op in ("set", "tuple") else "value"
