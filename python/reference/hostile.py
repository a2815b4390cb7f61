"""Hostile strings for tokenizers, the same ones every time.

Draws come from SplitMix64 and the tables below alone, so neither the version of Python nor that of its Unicode tables
changes them.
"""

from collections.abc import Callable

MASK = (1 << 64) - 1

WHITESPACE = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u180e\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009"
    "\u200a\u200b\u200c\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)
LINE_ENDS = ["\n", "\r\n", "\r", "\n\n", "\r\n\r\n", "\n\r", " \n", "\n ", "\t\r\n", "\u2028", "\x85"]
# The zero of every script's decimal digits, and other numbers.
DIGIT_ZEROS = [
    0x30, 0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xDE6, 0xE50, 0xED0,
    0xF20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40, 0x1C50, 0xA620,
    0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10, 0x104A0, 0x11066, 0x1D7CE, 0x1E950,
]  # fmt: skip
NUMBERS = "²³¹¼½¾⁰⁴⁵₀₁ⅠⅡⅧⅫⅰↀ①⑩⒈⓪➊〇〡㈠㊀㆒一二三四五六七八九十百千万億𐄇𐅀𝍠🄀🯰"
MARKS = "\u0300\u0301\u0308\u0327\u0345\u05b0\u0651\u093f\u094d\u0e31\u0f71\u1ab0\u20dd\u20e3\u302a\u3099\ufe0f\ufe20"
EMOJI = "😀😂🙏👍👨👩👧👦🏳🌈❤🔥🚀🇩🇪🇺🇸🧑💻⚡☃♂♀🏽🏿🫠🪿#*1"
EMOJI_JOINS = ["", "", "\u200d", "\ufe0f", "\ufe0f\u200d", "\u20e3", "🏽", "🏽\u200d", "\U000e0067\U000e007f"]
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
ASCII = "".join(map(chr, range(0x20, 0x7F)))
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'RE", "’s", "'", "''", "'sx", "' s", "n't", "'1"]
WORDS = (
    "the of and a to in is you that it he was for on are as with his they I at be this have from or one had by word "
    "but not what all were we when your can said there use an each which she do how their if will up other about out "
    "many then them these so some her would make like him into time has look two more write go see number no way could "
    "people my than first water been call who oil its now find long down day did get come made may part internationali"
    "zation antidisestablishmentarianism naïve café Übergröße straße façade Ελλάδα Москва мир"
).split()
SENTENCES = [
    "天地玄黄，宇宙洪荒。", "学而时习之，不亦说乎？", "人工智能正在改变世界", "吾輩は猫である。名前はまだ無い。", "カタカナとひらがな",
    "나는 학교에 갑니다.", "ภาษาไทยไม่มีช่องว่าง", "مرحبا بالعالم", "שלום עולם", "नमस्ते दुनिया", "বাংলা ভাষা", "Привет, мир!",
    "Γειά σου Κόσμε", "Xin chào thế giới", "ሰላም ልዑል", "გამარჯობა", "Բարեւ", "𠜎𠜱𡿨𠬠", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "ﷺ﷽",
]  # fmt: skip
CODE = [
    "def f(x):\n", "    return x + 1\n", "\tif (a != b) {\n", "}\n", "for (int i = 0; i < n; ++i)", "x = [1, 2, 3]",
    "fn main() -> Result<(), Box<dyn Error>> {", "println!(\"{:?}\", v);", "// comment", "# TODO", "/* */", "<div class=\"a\">",
    "</div>", "SELECT * FROM t WHERE id = 42;", "std::vector<int>", "a->b", "==", "===", "!==", ">>=", "&&", "||", "0xFF", "1e-10",
    "3.14159", "2026-11-23T19:57:15Z", "https://example.com/a?b=c&d=%20", "user@example.com", "C:\\Users\\x", "$HOME/.config",
    "{\"key\": [null, true, 1.5]}", "\\n\\t", "    ", "        ", "\t\t", "```python\n", "```\n", "--flag=value", "| a | b |\n|---|---|\n",
]  # fmt: skip


class Random:
    """SplitMix64 (Steele, Lea, Flood 2014)."""

    def __init__(self, seed: int):
        self.state = seed & MASK

    def next(self) -> int:
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def below(self, bound: int) -> int:
        return self.next() % bound

    def pick(self, items):
        return items[self.below(len(items))]

    def join(self, items, longest: int) -> str:
        return "".join(self.pick(items) for _ in range(1 + self.below(longest)))


def scalar(random: Random, first: int, last: int) -> str:
    """A character in a range, never a surrogate."""
    code = first + random.below(last - first + 1)
    return chr(code) if not 0xD800 <= code <= 0xDFFF else "\ufffd"


def any_unicode(random: Random) -> str:
    last = random.pick([0x7F, 0xFF, 0x7FF, 0xFFFF, 0x1FFFF, 0x3FFFF, 0x10FFFF])
    return "".join(scalar(random, 0, last) for _ in range(1 + random.below(24)))


def one_block(random: Random) -> str:
    start = random.below(0x20000 // 128) * 128
    return "".join(scalar(random, start, start + 127) for _ in range(1 + random.below(40)))


def digits(random: Random) -> str:
    def one() -> str:
        kind = random.below(6)
        if kind < 3:
            return chr(random.pick(DIGIT_ZEROS) + random.below(10))
        return random.pick(NUMBERS) if kind == 3 else random.pick([" ", ".", ",", "-", "a", "1", "23", "٣", " 9"])

    return "".join(one() for _ in range(1 + random.below(16)))


def whitespace(random: Random) -> str:
    one = lambda: random.join(WHITESPACE, 4) if random.below(3) else random.pick(WORDS + CODE)
    return "".join(one() for _ in range(1 + random.below(10)))


def marks(random: Random) -> str:
    one = lambda: random.pick(LETTERS + "אאاกक한あ ") + random.join(MARKS, 6)
    return "".join(one() for _ in range(1 + random.below(8)))


def emoji(random: Random) -> str:
    return "".join(random.pick(EMOJI) + random.pick(EMOJI_JOINS) for _ in range(1 + random.below(14)))


def controls(random: Random) -> str:
    one = lambda: chr(random.below(32)) if random.below(2) else chr(0x7F + random.below(0x21))
    return "".join(one() if random.below(3) else random.pick(WORDS) for _ in range(1 + random.below(16)))


def runs(random: Random) -> str:
    one = random.pick([" ", "\n", "\t", "a", "A", "1", "=", "-", "_", "!", "。", "😀", "\u0301", "é", "ab", " a", "\r\n", "٣", "\xa0"])
    rest = random.pick(["", "x", " y", "\n", "7"])
    return one * (1 + random.below(random.pick([8, 64, 64, 400]))) + rest


def lines(random: Random) -> str:
    return "".join(random.pick(WORDS) + random.pick(LINE_ENDS) for _ in range(1 + random.below(10)))


def code(random: Random) -> str:
    return random.join(CODE, 10)


def sentences(random: Random) -> str:
    return random.pick(["", " ", "\n"]).join(random.pick(SENTENCES) for _ in range(1 + random.below(4)))


def lossy_bytes(random: Random) -> str:
    data = bytes(random.below(256) for _ in range(1 + random.below(32)))
    return data.decode("utf-8", errors="replace")


def cut_characters(random: Random) -> str:
    data = (random.pick(SENTENCES) + emoji(random)).encode()
    start = random.below(len(data))
    return data[start : start + 1 + random.below(40)].decode("utf-8", errors="replace")


def contractions(random: Random) -> str:
    return "".join(random.pick(["", " "]) + random.pick(WORDS) + random.pick(CONTRACTIONS) for _ in range(1 + random.below(8)))


def ascii_noise(random: Random) -> str:
    return random.join(ASCII, 48)


def prose(random: Random) -> str:
    return "".join(random.pick(WORDS) + random.pick([" ", " ", " ", ", ", ". ", "  ", "; "]) for _ in range(1 + random.below(24)))


def special_text(special: list[str]) -> Callable[[Random], str]:
    """Special tokens whole, cut, doubled, and next to anything."""

    def make(random: Random) -> str:
        def one() -> str:
            text = random.pick(special)
            match random.below(6):
                case 0 | 1:
                    return text
                case 2:
                    return text[: 1 + random.below(len(text))]
                case 3:
                    return text[random.below(len(text)) :]
                case 4:
                    return random.pick([text.upper(), text[:2] + text, text + text, f" {text} ", f"\n{text}\n"])
                case _:
                    return random.pick(WORDS + SENTENCES + ["<", "|", ">", "<|", "|>", " ", "\n", "7"])

        return "".join(one() for _ in range(1 + random.below(6)))

    return make


def hostile_strings(seed: int, count: int, special: list[str]) -> list[str]:
    """`count` strings drawn from `seed`; `special` are the texts of the vocabulary's special tokens."""
    random = Random(seed)
    kinds = [
        any_unicode, one_block, digits, whitespace, marks, emoji, controls, runs, lines, code, sentences, lossy_bytes,
        cut_characters, contractions, ascii_noise, prose, special_text(special),
    ]  # fmt: skip

    def one() -> str:
        if random.below(5):
            return random.pick(kinds)(random)
        return "".join(random.pick(kinds)(random) for _ in range(2 + random.below(3)))

    return [""] + [one() for _ in range(count - 1)]
