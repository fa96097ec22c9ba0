"""What a Python file does as soon as it is loaded, read from its source: whether it trains."""

import ast
from collections.abc import Iterator, Sequence

TRAINING = ("train_model", "train_epoch", "lr_find")
"""The methods of trainers and populations that train."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def training_call(source: bytes | str, file: str = "<source>") -> tuple[int, str] | None:
    r"""The first call by which a file trains as it is loaded: its line and text; None for none.

    What stands under ``if __name__ == "__main__":`` does not run then. Functions of the same file
    are followed, methods and other files are not.

    Raises:
        SyntaxError: when it is no Python.

    Example:
        >>> training_call("def main():\n    trainer.train_model(data)\n\nmain()\n")
        (4, 'main()')
        >>> training_call('if __name__ == "__main__":\n    trainer.train_model(data)\n')
    """
    tree = ast.parse(source, file)
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, Function)}
    for call in _calls(tree.body):
        if _trains(call, functions, frozenset()):
            return call.lineno, ast.unparse(call.func) + ("(...)" if _has_arguments(call) else "()")
    return None


def _trains(call: ast.Call, functions: dict[str, Function], seen: frozenset[str]) -> bool:
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr in TRAINING
    if not isinstance(function, ast.Name) or function.id in seen or function.id not in functions:
        return False
    inside = _calls(functions[function.id].body)
    return any(_trains(each, functions, seen | {function.id}) for each in inside)


def _calls(nodes: Sequence[ast.AST]) -> Iterator[ast.Call]:
    """The calls that run when these statements do, those of functions that they define left out."""
    for node in nodes:
        if isinstance(node, Function | ast.Lambda):
            continue
        if isinstance(node, ast.If) and _is_main_guard(node.test):
            yield from _calls(node.orelse)
            continue
        if isinstance(node, ast.Call):
            yield node
        yield from _calls([*ast.iter_child_nodes(node)])


def _is_main_guard(test: ast.expr) -> bool:
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return any(map(_is_main_guard, test.values))
    if not isinstance(test, ast.Compare) or not isinstance(test.ops[0], ast.Eq):
        return False
    return {ast.unparse(test.left), ast.unparse(test.comparators[0])} == {"__name__", "'__main__'"}


def _has_arguments(call: ast.Call) -> bool:
    return bool(call.args or call.keywords)
