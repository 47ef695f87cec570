#!/usr/bin/env python3
"""How fast text becomes ids, beside tiktoken, tokenizers and sentencepiece.

Every figure is processor time of one thread, a fresh process, the first pass over 10 MB without
repeated lines; rounds are interleaved and the median counts. Texts are made of
what is on this machine (documentation, sources, translations) and kept under
build/bench/texts.

Usage: tokenizer.py --tokenizers DIR [--bin FILE] [--rounds N] [--megabytes N]
  DIR has llama-2 (tokenizer.model) and llama-3 (tokenizer.model with tiktoken
  ranks, tokenizer.json). Not run by the tests: it wants a quiet machine.
"""

import argparse
import glob
import gzip
import json
import pathlib
import random
import re
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXTS = ROOT / "build/bench/texts"


def read(path):
    opener = gzip.open if path.endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            return file.read(4 << 20).decode("utf-8")
    except (OSError, UnicodeDecodeError, EOFError):
        return ""


def files(*patterns):
    found = sorted({path for pattern in patterns
                    for path in glob.glob(pattern, recursive=True)})
    random.Random(1).shuffle(found)
    return found


def unique_lines(paths, keep, size):
    seen, lines, total = set(), [], 0
    for path in paths:
        for line in read(path).splitlines():
            if line in seen or not keep(line):
                continue
            seen.add(line)
            lines.append(line)
            total += len(line.encode()) + 1
            if total >= size:
                return "\n".join(lines)
    return "\n".join(lines)


def is_prose(line):
    letters = sum(c.isalpha() or c in " ,.'" for c in line)
    words = re.findall(r"[a-z]{2,}", line)
    return (len(line) >= 40 and line.isascii() and letters > 0.93 * len(line)
            and len(words) >= 6 and not line.startswith((".", "#", "/")))


def english(size):
    return unique_lines(
        files("/usr/share/doc/**/*", "/usr/share/perl/**/*.pod",
              "/usr/share/man/man*/*.gz", "/usr/lib/python3*/**/*.py",
              "/usr/include/**/*.h", "/usr/share/vim/**/*.txt"),
        is_prose, size)


def code(size):
    return unique_lines(
        files("/usr/lib/python3*/**/*.py", "/usr/include/**/*.h",
              "/usr/share/perl/**/*.pm"),
        lambda line: line.strip() != "", size)


def chinese(size):
    """Sentences of translations, put together anew where there are too few."""
    phrases = set()
    for path in files("/usr/share/man/zh_*/**/*.gz", "/usr/share/vim/**/*zh*",
                      "/usr/share/locale/zh*/**/*.mo", "/usr/share/**/*zh_CN*",
                      "/usr/share/vim/**/*.mo"):
        phrases.update(re.findall(
            "[\u4e00-\u9fff][\u3001-\u301f\u4e00-\u9fff\uff00-\uffef]{3,40}",
            read_loosely(path)))
    phrases = sorted(phrases)
    if len(phrases) < 200:
        sys.exit(f"only {len(phrases)} Chinese phrases on this machine")
    draw, lines, total = random.Random(2), set(), 0
    while total < size:
        line = "\uff0c".join(draw.sample(phrases, draw.randint(3, 8)))
        if line not in lines:
            lines.add(line)
            total += len(line.encode()) + 1
    return "\n".join(sorted(lines, key=lambda line: draw.random()))


def read_loosely(path):
    opener = gzip.open if path.endswith(".gz") else open
    try:
        with opener(path, "rb") as file:
            return file.read(4 << 20).decode("utf-8", "replace")
    except (OSError, EOFError):
        return ""


def mixed(size):
    parts = [text.split("\n") for text in
             (english(size // 3), code(size // 3), chinese(size // 3))]
    lines = [line for part in parts for line in part]
    random.Random(3).shuffle(lines)
    return "\n".join(lines)


def make_texts(size):
    TEXTS.mkdir(parents=True, exist_ok=True)
    paths = {}
    for make in (english, code, chinese, mixed):
        path = TEXTS / f"{make.__name__}-{size}.txt"
        if not path.exists():
            path.write_text(make(size), encoding="utf-8")
        paths[make.__name__] = path
    draw = random.Random(4)
    for name, text in (
            ("one letter", "a" * (1 << 20)),
            ("random letters",
             "".join(chr(97 + draw.randrange(26)) for _ in range(1 << 20))),
            ("random bytes",
             "".join(chr(draw.randrange(256)) for _ in range(1 << 20)))):
        path = TEXTS / f"{name.replace(' ', '-')}.txt"
        if not path.exists():
            path.write_text(text, encoding="utf-8", newline="")
        paths[name] = path
    return paths


PEERS = {
    "tiktoken": """
import base64, tiktoken
ranks = {}
for line in open(model + "/tokenizer.model", "rb"):
    token, rank = line.split()
    ranks[base64.b64decode(token)] = int(rank)
pattern = json.load(open(model + "/special_tokens.json"))["pattern"]
encoder = tiktoken.Encoding("x", pat_str=pattern, mergeable_ranks=ranks,
                            special_tokens={})
encode = lambda text: len(encoder.encode_ordinary(text))
""",
    "tokenizers": """
from tokenizers import Tokenizer
encoder = Tokenizer.from_file(model + "/tokenizer.json")
encode = lambda text: len(encoder.encode(text, add_special_tokens=False).ids)
""",
    "sentencepiece": """
import sentencepiece
encoder = sentencepiece.SentencePieceProcessor(model + "/tokenizer.model")
encode = lambda text: len(encoder.encode(text))
""",
}


def run_peer(peer, model, text):
    code_text = f"""
import json, os, sys, time
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
model, path = sys.argv[1:]
start = time.process_time()
{PEERS[peer]}
loaded = time.process_time() - start
text = open(path, encoding="utf-8", newline="").read()
start = time.process_time()
count = encode(text)
print(json.dumps({{"load_s": loaded, "encode_s": time.process_time() - start,
                  "tokens": count}}))
"""
    done = subprocess.run([sys.executable, "-c", code_text, model, text],
                          stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def run_ours(binary, model, text, *flags):
    done = subprocess.run([binary, "--model", model, "--text", text, *flags],
                          stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def median(samples, key):
    return statistics.median(sample[key] for sample in samples)


def compare(options, name, model, peers, texts):
    """Prints MB/s of each text; ratios to the peers; returns token counts."""
    counts = {}
    print(f"\n{name}: MB/s (load ms in the last column)")
    header = ["caravan", "no cache", *peers]
    print(f"{'':16}" + "".join(f"{column:>16}" for column in header))
    for text, path in texts.items():
        size = path.stat().st_size / 1e6
        samples = {column: [] for column in header}
        slow = [p for p in peers if text in ("one letter", "random letters",
                                             "random bytes")]
        for _ in range(options.rounds):
            samples["caravan"].append(run_ours(options.bin, model, path))
            samples["no cache"].append(
                run_ours(options.bin, model, path, "--no-word-cache"))
            for peer in peers:
                if peer not in slow:
                    samples[peer].append(run_peer(peer, model, str(path)))
        rates = {column: size / median(runs, "encode_s")
                 for column, runs in samples.items() if runs}
        row = f"{text:16}"
        for column in header:
            if column not in rates:
                row += f"{'-':>16}"
            elif column in peers:
                ratio = rates["no cache"] / rates[column]
                both = f"{rates[column]:.1f} ({ratio:.1f}x)"
                row += f"{both:>16}"
            else:
                row += f"{rates[column]:16.1f}"
        counts[text] = median(samples["caravan"], "tokens")
        loads = median(samples["caravan"], "load_s") * 1000
        print(f"{row}  {loads:6.0f}", flush=True)
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizers", required=True, type=pathlib.Path)
    parser.add_argument("--bin", default=str(
        ROOT / "build/dev/bin/common_text_bench"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=10)
    options = parser.parse_args()
    texts = make_texts(options.megabytes * 1000000)
    llama3 = str(options.tokenizers / "llama-3")
    llama2 = str(options.tokenizers / "llama-2")
    counts3 = compare(options, "Llama-3", llama3, ["tiktoken", "tokenizers"],
                      texts)
    counts2 = compare(options, "Llama-2", llama2, ["sentencepiece"], texts)
    fewer = 100 * (1 - counts3["english"] / counts2["english"])
    print(f"\nLlama-3 needs {fewer:.1f} % fewer tokens than Llama-2 on English")
    for file in ("tokenizer.model", "tokenizer.json"):
        loads = [run_ours(options.bin, llama3, str(texts["one letter"]),
                          "--only", file)["load_s"]
                 for _ in range(options.rounds)]
        print(f"load Llama-3 {file}: {statistics.median(loads) * 1000:.0f} ms")
    both = [run_ours(options.bin, llama3, str(texts["english"]), "--threads",
                     "2") for _ in range(options.rounds)]
    one = [run_ours(options.bin, llama3, str(texts["english"]))
           for _ in range(options.rounds)]
    scale = 2 * median(one, "wall_s") / median(both, "wall_s")
    print(f"two threads: {scale:.2f}x the throughput of one")


if __name__ == "__main__":
    main()
