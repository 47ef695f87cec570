"""Finds function definitions and their lengths in C++ source text."""

import re

_SCOPE = re.compile(r"\b(namespace|class|struct|union|enum|extern)\b")
_CONTROL = {"if", "for", "while", "switch", "catch", "return", "sizeof"}
_NAME = re.compile(r"((?:[\w~]+(?:<[^<>()]*>)?::)*(?:operator\s*\S+|~?\w+))"
                   r"\s*\(")


def blank_comments_and_strings(text):
    """The same text and lines with comments and literals blanked."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match[0])

    pattern = re.compile(
        r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"'
        r"|(?<![\w])'(?:\\.|[^'\\\n])+'|^\s*#(?:[^\n\\]|\\\n|\\.)*",
        re.S | re.M)
    return pattern.sub(blank, text)


def _function_name(head):
    """The name when `head`, the text before a brace, begins a function."""
    if _SCOPE.search(head.split("(")[0]) or "(" not in head:
        return None
    if re.search(r"(=|\]|,)\s*$", head.rstrip()):
        return None
    match = _NAME.search(head)
    if not match or match[1].split("::")[-1] in _CONTROL:
        return None
    return match[1]


def lengths(text):
    """Yields (name, lines) of each function that is not inside another."""
    code = blank_comments_and_strings(text)
    depth_of_function = None
    depth = 0
    head_start = 0
    start_line = 0
    name = None
    line = 1
    for index, char in enumerate(code):
        if char == "\n":
            line += 1
        elif char == "{":
            head = code[head_start:index]
            if depth_of_function is None:
                candidate = _function_name(head)
                if candidate:
                    name = candidate
                    depth_of_function = depth
                    start_line = line - head.strip().count("\n")
            depth += 1
            head_start = index + 1
        elif char == "}":
            depth -= 1
            if depth == depth_of_function:
                yield name, line - start_line + 1
                depth_of_function = None
            head_start = index + 1
        elif char == ";":
            head_start = index + 1
