"""Generated templates: expressions, filters, tests, methods, loops, macros."""

import random

VARIABLES = {
    "s": " aB c\u00e9\u1e9e\n x", "t": "a,b,,c", "e": "", "u": "\u01c5\u0085\u2028'\"",
    "w": "the quick brown fox", "n": 7, "z": 0, "m": -3, "f": 2.5, "g": -0.125,
    "l": [3, 1, 2], "k": ["b", "A", "a"], "mixed": [1, "1", None, 2.0, True],
    "d": {"a": 1, "B": [1, 2], "\u00e9": None}, "empty": [], "none": None,
    "yes": True, "rows": [{"a": 1, "b": "x"}, {"a": 2, "b": "X"},
                          {"a": 1, "c": {"d": 5}}],
    "deep": {"x": {"y": [{"z": "q"}]}},
}
STRINGS = ("s", "t", "e", "u", "w", "'a'", "'%s-%s'", "'{}|{}'", "','", "' '",
           "'aXbX'", "'12'", "' 3.5 '", "'-7'", "'\\n'", "'a\\nb\\n\\nc'")
NUMBERS = ("n", "z", "m", "f", "g", "0", "1", "2", "-1", "3.75", "1e3", "yes")
LISTS = ("l", "k", "mixed", "empty", "[1, 2, 2]", "('a', 'b')", "rows",
         "['x', s]", "range(4)|list", "[[1], [0, 5]]")
DICTS = ("d", "deep", "{}", "{'k': n, 'j': s}", "rows[0]")
OTHERS = ("none", "missing", "d.missing", "true", "false")

STRING_FILTERS = ("trim", "upper", "lower", "title", "capitalize", "length",
                  "replace('a', 'Z')", "replace('', '-')", "string", "list",
                  "first", "last", "reverse", "indent", "indent(2, true)",
                  "indent('>', blank=true)", "truncate(6)", "wordcount",
                  "truncate(6, true, '~', 0)", "e", "urlencode", "center(12)",
                  "int", "float", "int(5)", "default('D')", "d('D', true)",
                  "tojson", "format(1, 2)", "safe", "trim('a ')", "sort|join",
                  "unique|join('.')", "join('-')", "count", "max", "min",
                  "batch(3)|list", "slice(2)|list", "map('upper')|list",
                  "select('in', 'abc')|join", "replace('a', 'b', 1)", "abs")
NUMBER_FILTERS = ("abs", "round", "round(1)", "round(1, 'floor')", "int",
                  "round(0, 'ceil')", "float", "string", "tojson",
                  "default(1)", "upper", "length", "trim", "list",
                  "round(-1)")
LIST_FILTERS = ("length", "first", "last", "join", "join(', ')", "reverse|list",
                "sort", "sort(reverse=true)", "unique|list", "sum", "min",
                "max", "tojson", "tojson(indent=2)", "string", "list",
                "batch(2)|list", "batch(2, 0)|list", "slice(2)|list",
                "slice(2, 'f')|list", "map('string')|list",
                "select|list", "reject|list", "select('odd')|list",
                "reject('none')|list", "select('string')|list",
                "map(attribute='a')|list", "map(attribute='c.d')|list",
                "map(attribute='a', default=0)|list",
                "selectattr('a')|list", "selectattr('a', 'equalto', 1)|list",
                "rejectattr('c', 'defined')|list", "sort(attribute='a')",
                "groupby('a')|list", "sum(attribute='a')",
                "sort(attribute='b', case_sensitive=true)", "sum(start=10)",
                "unique(attribute='a')|list", "join('/', attribute='b')",
                "map('upper')|join", "min(attribute='a')", "dictsort",
                "unique(case_sensitive=true)|list", "items|list",
                "default([])", "first|default('none')")
DICT_FILTERS = ("length", "list", "items|list", "dictsort", "tojson",
                "dictsort(reverse=true)", "dictsort(by='value')", "string",
                "tojson(indent=4)", "first", "join(',')", "sort",
                "dictsort(true)", "map('upper')|list", "tojson(sort_keys=true)",
                "default('x')", "max", "reverse|list")
METHODS = {
    "s": ("strip()", "lstrip()", "rstrip()", "strip('a x')", "upper()",
          "lower()", "title()", "capitalize()", "swapcase()", "split()",
          "split(',')", "split(None, 1)", "rsplit(',', 1)", "split('X', 1)",
          "splitlines()", "splitlines(true)", "startswith('a')",
          "endswith(('x', 'c'))", "startswith(' ')", "find('a')", "find('c', 2)",
          "rfind('a')", "index('a')", "count('a')", "count('')",
          "replace('a', 'b')", "replace('a', 'b', 1)", "join(['1', '2'])",
          "join(k)", "partition('a')", "rpartition(',')", "isdigit()",
          "isalpha()", "isalnum()", "isspace()", "isupper()", "islower()",
          "isnumeric()", "isdecimal()", "istitle()", "isidentifier()",
          "isascii()", "ljust(8)", "rjust(8, '*')", "center(9)",
          "center(8, '-')", "zfill(6)", "casefold()", "removeprefix('a')",
          "removesuffix('c')", "format(1, 2)", "format('x', 'y', z=1)",
          "expandtabs()", "startswith(('a', ' '))",
          "startswith('B', 2)", "splitlines()|length"),
    "l": ("index(1)", "count(2)", "copy()", "append(1)", "pop()", "index('b')"),
    "d": ("get('a')", "get('x', 5)", "keys()|list", "values()|list",
          "items()|list", "get('B')[0]", "copy()", "pop('a')", "update({})"),
}
TESTS = ("defined", "undefined", "none", "string", "number", "integer", "float",
         "boolean", "mapping", "sequence", "iterable", "callable", "true",
         "false", "odd", "even", "divisibleby(3)", "eq(7)", "equalto('a')",
         "ne(1)", "gt(1)", "lt(3)", "ge(2)", "le(2)", "in([1, 'a'])", "upper",
         "lower", "sameas(none)", "escaped", "filter", "test")
BLOCKS = (
    "{{% for x in {l} %}}{{{{ loop.index }}}}{{{{ x }}}}{{% if not loop.last "
    "%}},{{% endif %}}{{% else %}}none{{% endfor %}}",
    "{{% for x in {l} if x %}}{{{{ loop.length }}}}{{{{ loop.revindex0 }}}}"
    "{{{{ loop.previtem }}}}{{{{ loop.nextitem }}}}{{% endfor %}}",
    "{{% for a, b in {d}.items() %}}{{{{ a }}}}={{{{ b }}}};{{% endfor %}}",
    "{{% set ns = namespace(c=0, v={x}) %}}{{% for i in {l} %}}"
    "{{% set ns.c = ns.c + 1 %}}{{% set ns.v = i %}}{{% endfor %}}"
    "{{{{ ns.c }}}}{{{{ ns.v }}}}",
    "{{% macro f(a, b={x}) %}}[{{{{ a }}}}|{{{{ b }}}}|{{{{ varargs }}}}|"
    "{{{{ kwargs }}}}]{{% endmacro %}}{{{{ f({y}) }}}}{{{{ f(1, 2, 3) }}}}"
    "{{{{ f(b=1) }}}}",
    "{{% if {x} %}}A{{% elif {y} %}}B{{% else %}}C{{% endif %}}",
    "{{%- set v -%}}\n {x} {{{{ {x} }}}}\n {{%- endset -%}}{{{{ v }}}}",
    "  {{% if true %}}\n  a\n  {{% endif %}}\n\n  {{#- c -#}}\n  {{{{ {x} }}}}\n",
    "{{% filter upper %}}a{{{{ {x} }}}}{{% endfilter %}}",
    "{{% with q = {x}, r = 1 %}}{{{{ q }}}}{{{{ r }}}}{{% endwith %}}{{{{ q }}}}",
    "{{% for x in {l} %}}{{% if loop.index > 2 %}}{{% break %}}{{% endif %}}"
    "{{% if loop.first %}}{{% continue %}}{{% endif %}}{{{{ x }}}}"
    "{{{{ loop.cycle('o', 'e') }}}}{{{{ loop.changed(x) }}}}{{% endfor %}}",
    "{{% macro g() %}}<{{{{ caller({x}) }}}}>{{% endmacro %}}"
    "{{% call(v) g() %}}{{{{ v }}}}{{% endcall %}}",
    "{{% set a, b = {y}, {x} %}}{{{{ a }}}}{{{{ b }}}}",
    "{{% for x in rows recursive %}}{{{{ x.a }}}}{{% if x.c %}}"
    "{{{{ loop([x.c]) }}}}{{% endif %}}{{{{ loop.depth }}}}{{% endfor %}}",
    "{{{{ '%s|%r|%5s|%-5s|' % ({x}, {y}, 1, 2) }}}}",
    "{{{{ '%d %05.1f %x %i' % ({i}, {i}, 255, {i}) }}}}",
)


class Expressions:
    """Templates of one seed over VARIABLES."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def next(self):
        if self.random.random() < 0.25:
            return self.choose(BLOCKS).format(
                x=self.any(2), y=self.any(1), l=self.list(1), d=self.dict(),
                i=self.choose(NUMBERS))
        return "{{ " + self.any(3) + " }}"

    def choose(self, items):
        return self.random.choice(items)

    def any(self, depth):
        return self.choose((self.string, self.string, self.number, self.list,
                            self.dictionary, self.other,
                            self.operation))(depth)

    def filtered(self, base, filters, depth):
        for _ in range(self.random.choice((0, 1, 1, 1, 2)) if depth else 0):
            base += "|" + self.choose(filters)
        return base

    def string(self, depth):
        base = self.choose(STRINGS)
        if depth and self.random.random() < 0.4:
            base += "." + self.choose(METHODS["s"])
        elif depth and self.random.random() < 0.3:
            base += self.choose(("[0]", "[-1]", "[1:]", "[:-1]", "[::-1]",
                                 "[1:3]", "[::2]", "[9]", "[-3:]", "[5:2]"))
        return self.filtered(base, STRING_FILTERS, depth)

    def number(self, depth):
        return self.filtered("(" + self.choose(NUMBERS) + ")", NUMBER_FILTERS,
                             depth)

    def list(self, depth):
        base = self.choose(LISTS)
        if depth and self.random.random() < 0.2:
            base += "." + self.choose(METHODS["l"])
        elif depth and self.random.random() < 0.2:
            base += self.choose(("[0]", "[-1]", "[1:]", "[::-1]", "[7]",
                                 "['x']", "[:2]"))
        return "(" + self.filtered(base, LIST_FILTERS, depth) + ")"

    def dict(self):
        return "(" + self.choose(DICTS) + ")"

    def dictionary(self, depth):
        base = self.dict()
        if depth and self.random.random() < 0.3:
            base += "." + self.choose(METHODS["d"])
        elif depth and self.random.random() < 0.3:
            base += self.choose(("['a']", ".a", "['x']", ".x.y", "[0]", ".B[1]",
                                 ".items", ".x['y'][0].z"))
            if base.endswith(".items"):
                base += "()|list"
        return self.filtered(base, DICT_FILTERS, depth)

    def other(self, depth):
        return self.filtered(self.choose(OTHERS),
                             ("default('x')", "d('y', true)", "string", "trim",
                              "length", "list", "tojson", "int", "upper",
                              "join", "first", "map('trim')|list"), depth)

    def operation(self, depth):
        if depth == 0:
            return self.choose(NUMBERS)
        left, right = self.any(depth - 1), self.any(depth - 1)
        kind = self.random.random()
        if kind < 0.25:
            return f"({left}) is {self.choose(('', 'not '))}{self.choose(TESTS)}"
        if kind < 0.4:
            return f"({left}) if ({right}) else ({self.any(depth - 1)})"
        if kind < 0.5:
            return f"not ({left})"
        operator = self.choose(("+", "-", "*", "/", "//", "%", "**", "~", "~",
                                "==", "!=", "<", "<=", ">", ">=", "in",
                                "not in", "and", "or"))
        return f"({left}) {operator} ({right})"
