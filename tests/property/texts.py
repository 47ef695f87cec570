"""Generated strings: every kind of text that tokenizers disagree about."""

import random
import sys
import unicodedata

# White_Space=yes, and the controls that only some call white space.
SPACES = ("\t\n\v\f\r \x85\xa0\u1680\u2000\u2003\u2009\u200a\u2028\u2029"
          "\u202f\u205f\u3000")
CONTROLS = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
JOINERS = ("\u200b\u200c\u200d\u2060\ufeff\ufe0e\ufe0f\u0301\u0308\u20e3"
           "\u0e33\u093f\u094d\u0bbf\u1161\u11a8\u0640\u0345")
EMOJI = "😀🤖👩👨👧🏽🏿🇩🇪🇯🇵❤⚡🏳🌈🧑‍🚀"
CONTRACTIONS = ["'s", "'S", "'t", "'T", "'re", "'rE", "'ve", "'VE", "'m", "'M",
                "'ll", "'lL", "'d", "'D", "'\u017f", "'\u212a", "’s", "'x",
                "''s", "'", "'r", "'l"]
WORDS = ("the of and to in is that for it as was with be by on not he his but "
         "at are this have from or had an they which one you were all her she "
         "there would their we him been has when who will no more if out so "
         "up said what its about than into them can only other time new some "
         "could these two may first then do any like my now over such our man "
         "me even most made after also did many off before must well back "
         "through years where much your way down should because long each just "
         "state people those too mr how little good world make very year still "
         "see work life against being under three never know same last another "
         "while us might great go come since against right came take used "
         "himself few house use place during high without again home around "
         "small however found mrs part school thought went say general once "
         "upon every left don't I'm we'll he'd Größe naïve café señor Ærø "
         "über ça façade Łódź Straße ἀρχή привет мир данные").split()
SPECIAL_NAMES = ["<s>", "</s>", "<unk>", "<0x0A>", "<0xFF>", "<|eot_id|>",
                 "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                 "<|reserved_special_token_0|>", "[INST]", "[/INST]",
                 "<<SYS>>", "▁", "▁▁", "▁a", "<pad>", "<|endoftext|>",
                 "<|python_tag|>"]
SNIPPETS = [
    "def {a}({b}: int = {n}) -> str:\n    return f\"{{{b}!r}}\\n\"\n",
    "for (int {a} = 0; {a} < {n}; ++{a}) {{\n\t{b}[{a}] *= 0x{n:x}u;\n}}\n",
    "#include <{a}.h>\r\n#define {b}(x) ((x) << {n})\r\n",
    "<div class=\"{a}-{b}\" id='{n}'>&nbsp;{a}</div>\n",
    "{{\"{a}\": [{n}, -{n}.5e-{n}], \"{b}\": null}}",
    "SELECT {a}.* FROM `{b}` WHERE {a}_id >= {n}; -- {b}\n",
    "    if (!{a}) {{ return {b} ? {n} : nullptr; }}  // TODO({a})\n",
    "$ {a} --{b}={n} | grep -v '^#' > /tmp/{a}_{b}.log 2>&1 &&\\\n",
    "\\frac{{{a}_{{{n}}}}}{{{b}^{n}}} \\leq \\sum_{{i=0}}^{{{n}}}",
    "@{a}.{b}\nclass {a}{b}({b}):\n\n\n    {a}__{b} = {n}_000\n",
    "https://{a}.example/{b}?q={n}&x=%20#{a}",
]


def assigned():
    """Code points of characters by general category, as this Python has them
    (3.11: Unicode 14)."""
    by_category = {}
    for code in range(sys.maxunicode + 1):
        category = unicodedata.category(chr(code))
        if category not in ("Cs", "Cn", "Co"):
            by_category.setdefault(category, []).append(code)
    return by_category


class Texts:
    """Strings of one seed. `pieces` are strings of a vocabulary."""

    def __init__(self, seed, pieces):
        self.random = random.Random(seed)
        self.pieces = pieces
        self.categories = assigned()
        self.names = sorted(self.categories)
        self.all = [c for codes in self.categories.values() for c in codes]
        self.makers = [
            (self.sentence, 6), (self.code, 5), (self.any_characters, 4),
            (self.one_category, 3), (self.script, 4), (self.pieces_of, 4),
            (self.spaces, 3), (self.run, 3), (self.controls, 1),
            (self.clusters, 2), (self.names_of_specials, 2),
            (self.digits, 2), (self.contractions, 2)]

    def next(self):
        """One string: one to four stretches of one kind each."""
        parts = []
        for _ in range(self.random.choice((1, 1, 1, 2, 2, 3, 4))):
            maker = self.random.choices([m for m, _ in self.makers],
                                        [w for _, w in self.makers])[0]
            parts.append(maker())
        return self.random.choice(("", "", " ", "\n", "  ")).join(parts)

    def count(self, most):
        return self.random.randint(1, most)

    def choose(self, items):
        return self.random.choice(items)

    def sentence(self):
        words = []
        for _ in range(self.count(25)):
            word = self.choose(WORDS)
            case = self.random.random()
            if case < 0.15:
                word = word.capitalize()
            elif case < 0.2:
                word = word.upper()
            elif case < 0.25:
                word = "".join(self.choose((c.lower(), c.upper()))
                               for c in word)
            words.append(word + self.choose(
                ("", "", "", "", "", ",", ".", "!", "?", ";", ":", "...",
                 "\n", "\n\n", " –", ")", "\"")))
        return self.choose((" ", " ", " ", "  ")).join(words)

    def code(self):
        return "".join(
            self.choose(SNIPPETS).format(
                a=self.choose(WORDS).replace("'", ""), b=self.choose(WORDS),
                n=self.random.choice((0, 7, 42, 1000, 65536, 10**9)))
            for _ in range(self.count(3)))

    def any_characters(self):
        return "".join(chr(self.choose(self.all))
                       for _ in range(self.count(12)))

    def one_category(self):
        codes = self.categories[self.choose(self.names)]
        return "".join(chr(self.choose(codes)) for _ in range(self.count(15)))

    def script(self):
        """Neighbours of some letter, with spaces and punctuation."""
        center = self.choose(self.categories[self.choose(("Lo", "Ll", "Mn"))])
        out = []
        for _ in range(self.count(30)):
            code = center + self.random.randint(-40, 40)
            if code > 0 and unicodedata.category(chr(code)) not in (
                    "Cs", "Cn", "Co"):
                out.append(chr(code))
            if self.random.random() < 0.15:
                out.append(self.choose(" .,!-1，。"))
        return "".join(out)

    def pieces_of(self):
        return "".join(self.choose(self.pieces)
                       for _ in range(self.count(8)))

    def spaces(self):
        return "".join(self.choose((self.choose(SPACES), " ", "\n"))
                       * self.choose((1, 1, 2, 3, 8))
                       + self.choose(("", "", "a", "1", "."))
                       for _ in range(self.count(6)))

    def run(self):
        """One short string many times over."""
        what = self.choose(("a", " ", "\n", "\t", "=", "-", "0", "é", "😀", "ab",
                            "\r\n", "中", "'", "▁", ".", "_", "\x00",
                            chr(self.choose(self.all))))
        most = self.choose((10, 40, 200, 200, 3000))
        return what * self.count(most)

    def controls(self):
        return "".join(self.choose(CONTROLS) for _ in range(self.count(8)))

    def clusters(self):
        return "".join(self.choose((self.choose(EMOJI), self.choose(JOINERS),
                                    chr(self.choose(self.all))))
                       for _ in range(self.count(12)))

    def names_of_specials(self):
        return self.choose(("", " ", "a")) + self.choose(SPECIAL_NAMES) + (
            self.choose(("", " ", "b")))

    def digits(self):
        return self.choose(("", " ", "-", ".", ",")).join(
            str(self.random.randrange(10 ** self.count(12)))
            for _ in range(self.count(4)))

    def contractions(self):
        return " ".join(self.choose(WORDS) + self.choose(CONTRACTIONS)
                        + self.choose(("", "", "x", "S", "é"))
                        for _ in range(self.count(5)))
