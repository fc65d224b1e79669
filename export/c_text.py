"""C source text for constants."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray


def array_text(kind: str, name: str, values: NDArray[Any]) -> str:
    """A constant array of a C type, in lines of at most 100 characters."""
    flat = values.ravel()
    if kind == "float":
        items = [f"{float(value).hex()}f" for value in flat]
    elif kind == "int64_t":
        items = [f"INT64_C({value})" for value in flat]
    else:
        items = [str(value) for value in flat]
    lines, line = [], "   "
    for item in items:
        if len(line) + len(item) + 2 > 100:
            lines.append(line)
            line = "   "
        line += f" {item},"
    lines.append(line)
    return f"static const {kind} {name}[{len(items)}] = {{\n" + "\n".join(lines) + "\n};"


def struct_text(kind: str, name: str, fields: dict[str, int]) -> str:
    """A constant struct of integers, by field name."""
    lines = [f"    .{field} = {value}," for field, value in fields.items()]
    return f"static const {kind} {name} = {{\n" + "\n".join(lines) + "\n};"


def guard_text(condition: str, text: str) -> str:
    """The text inside a preprocessor condition."""
    return f"#if {condition}\n{text}\n#endif"
