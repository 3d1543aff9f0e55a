"""What a formula may hold: columns, numbers, arithmetic, comparisons and listed functions. All else is refused unread."""

from __future__ import annotations

import ast
from collections.abc import Iterable

LONGEST = 10_000  # characters of a formula
LARGEST = 2.0**53  # of a number, also of arithmetic on numbers alone
LARGEST_POWER = 100  # of a column; above it only overflows
LARGEST_ORDER = 100  # degree of a polynomial, degrees of freedom of a spline
LARGEST_INTERACTION = 5  # (a + b + ...)^5

NUMERIC = ("log", "log2", "log10", "log1p", "exp", "exp2", "expm1", "sqrt", "abs")  # also as np.log, ...
OF_NUMPY = (*NUMERIC, "absolute", "square", "sin", "cos")
BASES = ("poly", "bs", "cr", "cs", "cc")  # several columns of one
CONTRASTS = ("Treatment", "Sum", "Helmert", "Diff", "Poly")
CODINGS = ("treatment", "sum", "helmert", "diff", "poly", "SAS", "custom")  # contr.treatment, ...
FUNCTIONS = (*NUMERIC, "exp10", "C", "I", "center", "scale", "standardize", *BASES, *CONTRASTS)

ALLOWED = (
    "A formula may use columns of adata.obs, numbers, + - * / : ^, in I( ) or { } also arithmetic and comparisons, and the functions "
    f"{', '.join(FUNCTIONS)}, contr.{', contr.'.join(CODINGS)} and np.{', np.'.join(OF_NUMPY)}. Compute anything else "
    "first and make a column of it: adata.obs['x'] = ..., then design='~ x + condition'."
)

_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.BitAnd, ast.BitOr, ast.BitXor)
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_NOT_ALLOWED = {
    ast.Lambda: "a lambda",
    ast.Subscript: "square brackets behind a value",
    ast.ListComp: "a loop",
    ast.SetComp: "a loop",
    ast.DictComp: "a loop",
    ast.GeneratorExp: "a loop",
    ast.JoinedStr: "a format string",
    ast.NamedExpr: "an assignment",
    ast.IfExp: "a condition (if ... else)",
    ast.Starred: "a star before an argument",
    ast.BinOp: "an operator that formulas do not have",
    ast.Compare: "a comparison that formulas do not have",
    ast.Attribute: "an attribute",
    ast.List: "a list in arithmetic",
    ast.Tuple: "a list in arithmetic",
    ast.Dict: "a dictionary in arithmetic",
}


class NotAllowedError(ValueError):
    """A formula holds what no formula may hold; the text says what."""


def check_tokens(tokens: Iterable) -> None:
    """Refuse tokens of formulaic that are more than columns, numbers, operators and calls of the listed functions."""
    before = ""
    for token in tokens:
        kind, text = token.kind.value, token.token
        if kind == "python":
            check_expression(text)
        if before in ("**", "^") and not (
            kind == "value" and text.isdecimal() and 1 <= int(text) <= LARGEST_INTERACTION
        ):
            msg = (
                f"the power {before}{text}, but interactions are of order 1 to {LARGEST_INTERACTION}, such as (a + b)^2"
            )
            raise NotAllowedError(msg)
        before = text if kind == "operator" else ""
        if before not in ("**", "^") and ("^" in before or "**" in before):
            msg = f"the operator {before}"
            raise NotAllowedError(msg)


def check_expression(expression: str) -> None:
    """Refuse a piece of Python, as formulaic would evaluate it, that is more than arithmetic on columns; it is not run."""
    _check(expression_tree(expression)[0])


def expression_tree(expression: str, known: Iterable[str] = ()) -> tuple[ast.expr, dict[str, str]]:
    """The tree that formulaic evaluates, and which columns in backticks its names stand for."""
    from formulaic.utils.code import sanitize_variable_names

    aliases: dict[str, str] = {}
    try:
        plain = sanitize_variable_names(expression, dict.fromkeys(known), aliases)
        return ast.parse(plain, mode="eval").body, aliases
    except (IndexError, MemoryError, RecursionError, ValueError) as error:  # `` without a name; nested too deeply
        msg = f"{_short(expression)}, which cannot be read"
        raise NotAllowedError(msg) from error


def _check(node: ast.AST, *, argument: bool = False) -> None:
    """Walk down the tree; lists and text are allowed as arguments and within lists only, text also in comparisons."""
    match node:
        case ast.Name():
            if node.id.startswith("__"):
                _refuse(node, "a name with two underscores")
        case ast.Constant():
            _check_constant(node, text=argument)
        case ast.List() | ast.Tuple() if argument:
            for element in node.elts:
                _check(element, argument=True)
        case ast.Dict() if argument and None not in node.keys:
            for element in (*node.keys, *node.values):
                _check(element, argument=True)  # type: ignore[arg-type]
        case ast.UnaryOp():
            _check(node.operand)
        case ast.BinOp() if isinstance(node.op, _ARITHMETIC):
            _check(node.left)
            _check(node.right)
            _check_size(node)
        case ast.BoolOp():
            for value in node.values:
                _check(value)
        case ast.Compare() if all(isinstance(op, _COMPARISONS) for op in node.ops):
            for value in (node.left, *node.comparators):
                _check(value, argument=isinstance(value, ast.Constant))
        case ast.Attribute() if isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) != ("np", "pi") and not (argument and _is_listed(node)):
                _refuse(node, "an attribute (a column with a dot in its name is written in backticks)")
        case ast.Call():
            _check_call(node)
        case _:
            _refuse(node, _NOT_ALLOWED.get(type(node), "code"))


def _is_listed(function: ast.AST) -> bool:
    """Whether a function, or a contrast that is not significant, is one of the lists."""
    match function:
        case ast.Name(id=name):
            return name in FUNCTIONS
        case ast.Attribute(value=ast.Name(id="np"), attr=name):
            return name in OF_NUMPY
        case ast.Attribute(value=ast.Name(id="contr"), attr=name):
            return name in CODINGS
    return False


def _check_call(node: ast.Call) -> None:
    name = ast.unparse(node.func)
    if not _is_listed(node.func):
        _refuse(node, f"{_short(name)}( ), which is none of the functions of a formula")
    if any(keyword.arg is None or keyword.arg.startswith("_") for keyword in node.keywords):
        _refuse(node, "an argument that no function of a formula has")
    if name.removeprefix("np.") in (*OF_NUMPY, "exp10") and (len(node.args) != 1 or node.keywords):
        _refuse(node, f"{name}( ) with other than one argument")
    for value in (*node.args, *(keyword.value for keyword in node.keywords)):
        _check(value, argument=name.removeprefix("np.") not in (*OF_NUMPY, "exp10", "I"))
    orders = [keyword.value for keyword in node.keywords if keyword.arg in ("df", "degree")]
    for value in (*node.args[1:], *orders) if name in BASES else ():
        if isinstance(order := _value(value), float) and order > LARGEST_ORDER:
            msg = f"{_short(ast.unparse(node))}, of an order above {LARGEST_ORDER}"
            raise NotAllowedError(msg)


def _check_constant(node: ast.Constant, *, text: bool) -> None:
    value = node.value
    if isinstance(value, str):
        # formulaic writes calls with their text into code of its own: a quote would end the text there
        if not text or not value.isprintable() or any(mark in value for mark in "\"'\\`"):
            _refuse(node, "text that is no plain level" if text else "text in arithmetic")
    elif value is not None and not isinstance(value, bool | int | float):
        _refuse(node, "a constant that is no number")
    elif isinstance(value, int) and abs(value) > LARGEST:
        _refuse(node, "a number above 2^53")


def _check_size(node: ast.BinOp) -> None:
    """Refuse arithmetic on numbers that would take long, or all memory."""
    if not _has_column(node):
        if (value := _value(node)) is None or not abs(value) <= LARGEST:
            _refuse(node, "arithmetic on numbers alone that is not plain, or above 2^53")
    elif isinstance(node.op, ast.Pow) and not _has_column(node.right):
        if (power := _value(node.right)) is None or not abs(power) <= LARGEST_POWER:
            _refuse(node, f"a power that is no number from -{LARGEST_POWER} to {LARGEST_POWER}")


def _has_column(node: ast.AST) -> bool:
    """Whether a name occurs that is not the name of a function."""
    functions = {id(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
    functions |= {id(part.value) for part in ast.walk(node) if isinstance(part, ast.Attribute)}
    return any(isinstance(part, ast.Name) and id(part) not in functions for part in ast.walk(node))


def _value(node: ast.AST) -> float | None:
    """The value of arithmetic on numbers, computed in floats: quickly, whatever its size. None where it has none."""
    try:
        match node:
            case ast.Constant(value=int() | float() as value):
                return float(value)
            case ast.Attribute(value=ast.Name(id="np"), attr="pi"):
                return 3.141592653589793
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return None if (value := _value(operand)) is None else -value
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return _value(operand)
            case ast.BinOp(left=left, right=right, op=op):
                a, b = _value(left), _value(right)
                if a is None or b is None:
                    return None
                match op:
                    case ast.Add():
                        return a + b
                    case ast.Sub():
                        return a - b
                    case ast.Mult():
                        return a * b
                    case ast.Div():
                        return a / b
                    case ast.FloorDiv():
                        return a // b
                    case ast.Mod():
                        return a % b
                    case ast.Pow() if a >= 0:
                        return a**b
    except (OverflowError, ZeroDivisionError):
        pass
    return None


def _refuse(node: ast.AST, what: str) -> None:
    msg = f"{what}: {_short(ast.unparse(node))}"
    raise NotAllowedError(msg)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
