"""The rules. Each takes {path: text} and returns (path, line, rule, advice)."""

import posixpath
import re

LONG_FUNCTION = 60

CPP = (".cc", ".h", ".cu", ".cuh")
SOURCE_ROOTS = ("common/", "services/", "worker/", "gateway/", "tests/")

INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')

# Who may include whom. The longest matching prefix of the including file
# decides; a file may always include its own folder's headers.
ARROWS = {
    "common/": ["common/", "caravan/v1/", "google/rpc/"],
    "services/tokenizer/": ["common/", "caravan/v1/", "services/tokenizer/"],
    "services/router/": ["common/", "caravan/v1/", "services/router/"],
    "services/cli/": ["common/", "caravan/v1/", "services/", "worker/",
                      "gateway/"],
    "gateway/": ["common/", "caravan/v1/", "gateway/"],
    "worker/": ["common/"],
    "worker/tensor/": ["common/"],
    "worker/quant/": ["common/", "worker/tensor/", "worker/quant/"],
    "worker/ops/": ["common/", "worker/tensor/", "worker/quant/",
                    "worker/ops/"],
    "worker/kv/": ["common/", "worker/kv/"],
    "worker/kv/storage": ["common/", "worker/kv/", "worker/tensor/",
                          "worker/ops/"],
    "worker/model/": ["common/", "worker/tensor/", "worker/ops/",
                      "worker/kv/"],
    "worker/engine/": ["common/", "worker/tensor/view.h", "worker/kv/"],
    "worker/shard/": ["common/", "worker/tensor/", "worker/ops/",
                      "worker/kv/", "worker/model/",
                      "worker/engine/model_runner.h",
                      "worker/engine/batch_plan.h"],
    "worker/server/": ["common/", "caravan/v1/", "worker/engine/",
                       "worker/shard/", "worker/kv/"],
    # The wiring names every part once: main.cc, and what it does to the model
    # before there is an engine.
    "worker/server/main.cc": ["common/", "caravan/v1/", "worker/"],
    "worker/server/model_startup": ["common/", "caravan/v1/", "worker/"],
    "worker/server/model_identity": ["common/", "caravan/v1/", "worker/"],
    "worker/server/memory_budget": ["common/", "worker/"],
    # What the stages of a replica say of themselves.
    "worker/server/stage_handshake": ["common/", "caravan/v1/", "worker/"],
    "worker/server/options": ["common/", "worker/"],
    "worker/bench/": ["common/", "worker/"],
    "tests/": ["common/", "caravan/v1/", "google/rpc/", "services/",
               "worker/", "gateway/", "tests/"],
}
NO_ENGINE_STORAGE = "worker/kv/storage"

BANS = [
    ("using namespace", re.compile(r"\busing\s+namespace\b"),
     "write a using declaration for each name, or a namespace alias",
     lambda path: True),
    ("std::endl", re.compile(r"\bstd::endl\b"),
     "write '\\n'; flush where it is meant", lambda path: True),
    ("detach", re.compile(r"[.>]\s*detach\s*\("),
     "keep the std::jthread and let its owner join it", lambda path: True),
    ("sleep in a test", re.compile(r"\bsleep_for\s*\(|\bSleepFor\s*\("),
     "wait for the event with a deadline, or use ManualClock",
     lambda path: path.startswith("tests/")),
    ("getenv", re.compile(r"\bgetenv\s*\("),
     "take it as a flag in options.cc and pass it down",
     lambda path: not path.startswith("tests/support/")
     and "options" not in posixpath.basename(path)),
    ("FIXME", re.compile(r"\bFIXME\b"),
     "do it, or open an issue and say in the text what is not done",
     lambda path: True),
]

GRPC_HOMES = re.compile(
    r"(_service|_client)(_[a-z]+)?\.(h|cc)$|/main\.cc$|^common/grpc/"
    r"|^common/status/grpc_status|^tests/")
CUDA_HOMES = re.compile(
    r"^worker/ops/cuda/|^worker/tensor/buffer\.cc$"
    r"|^worker/shard/collective_nccl|^tests/")
CUDA_HEADER = re.compile(r"^(cuda|cublas|nccl|curand|cooperative_groups)")
PROJECT = re.compile(r"^(common|services|worker|gateway|tests|caravan/v1)/")
WATCHED = re.compile(
    r"^worker/engine/|^worker/server/|^gateway/stream/|^gateway/http/"
    r"|^gateway/grpc/|^gateway/backend/|main\.cc$")

MACHINE_PATH = re.compile(
    r"(?<![\w.])/(?:" + "work|root|" + r"home/[a-z]\w*)(?:/|\b)(?!s\b)")


def is_watched_room(path):
    """Whether long functions of this file are named in the report."""
    return bool(WATCHED.search(path))


def _lines(sources, suffixes):
    for path, text in sources.items():
        if path.endswith(suffixes):
            for number, line in enumerate(text.splitlines(), 1):
                yield path, number, line


def _code_of(line):
    """The line without its // comment and string contents."""
    line = re.sub(r'"(\\.|[^"\\])*"', '""', line)
    return line.split("//", 1)[0]


def _allowed(path):
    best = ""
    for prefix in ARROWS:
        if path.startswith(prefix) and len(prefix) > len(best):
            best = prefix
    if not best:
        return None
    own = posixpath.dirname(path) + "/"
    return ARROWS[best] + ([own] if not best.endswith("kv/") else [])


def include_arrows(sources):
    """protos <- common <- {services/*, worker, gateway}, and inside worker."""
    found = []
    for path, number, line in _lines(sources, CPP):
        match = INCLUDE.match(line)
        if not match or not PROJECT.match(match[2]):
            continue
        allowed = _allowed(path)
        if allowed is None:
            continue
        if not any(match[2].startswith(prefix) for prefix in allowed) or (
                path.startswith("worker/engine/")
                and match[2].startswith(NO_ENGINE_STORAGE)):
            found.append((path, number, "include arrow",
                          f"{match[2]} is not below this room; move what both "
                          "need down, or meet through protos"))
    return found


def library_headers(sources):
    """gRPC and CUDA headers stay in the files that are made for them."""
    found = []
    for path, number, line in _lines(sources, CPP):
        match = INCLUDE.match(line)
        if not match:
            continue
        header = match[2]
        if (header.startswith(("grpcpp/", "grpc/")) or
                header.endswith(".grpc.pb.h")) and not GRPC_HOMES.search(path):
            found.append((path, number, "gRPC header",
                          "move the call into a *_service, *_client or "
                          "common/grpc file"))
        if CUDA_HEADER.match(header) and not CUDA_HOMES.search(path):
            found.append((path, number, "CUDA header",
                          "go through worker/ops/backend.h"))
    return found


def include_guards(sources):
    """CARAVAN_<PATH>_H_, opened and closed."""
    found = []
    for path, text in sources.items():
        if not path.endswith((".h", ".cuh")):
            continue
        guard = "CARAVAN_" + re.sub(r"[^A-Za-z0-9]", "_", path).upper() + "_"
        if (f"#ifndef {guard}\n#define {guard}\n" not in text
                or f"#endif  // {guard}" not in text):
            found.append((path, 1, "include guard", f"use {guard}"))
    return found


def listed_in_cmake(sources):
    """Every source and header is named in a CMakeLists.txt above it."""
    found = []
    for path in sources:
        if not (path.endswith(CPP) and path.startswith(SOURCE_ROOTS)):
            continue
        folder, name = posixpath.split(path)
        relative = name
        while True:
            text = sources.get(posixpath.join(folder, "CMakeLists.txt"), "")
            if re.search(r"(?<![\w./-])" + re.escape(relative) + r"(?![\w.])",
                         text):
                break
            if not folder:
                found.append((path, 1, "not in CMake",
                              "list it in its folder's CMakeLists.txt"))
                break
            folder, last = posixpath.split(folder)
            relative = posixpath.join(last, relative)
    return found


def bans(sources):
    """Constructs with a better replacement."""
    found = []
    for path, number, line in _lines(sources, CPP):
        code = _code_of(line)
        for name, pattern, advice, applies in BANS:
            text = line if name == "FIXME" else code
            if applies(path) and pattern.search(text):
                found.append((path, number, name, advice))
    return found


def machine_paths(sources):
    """No file knows the machine that it was written on."""
    found = []
    for path, number, line in _lines(sources, tuple(
            {posixpath.splitext(p)[1] or p for p in sources})):
        if path.startswith(("tests/house_rules/", "tests/data/")):
            continue
        if path.endswith((".json", ".jsonl")) and "deploy/" not in path:
            continue
        if MACHINE_PATH.search(line):
            found.append((path, number, "machine path",
                          "use a path relative to the checkout or a flag"))
    return found


def defined_once(sources):
    """Metric names live in common/metrics/names.h, vllm names in one file."""
    found = []
    metric = re.compile(r'"caravan_(gateway|router|tokenizer|worker)_\w+"')
    vllm_files = set()
    for path, number, line in _lines(sources, CPP):
        if path.startswith("tests/"):
            continue
        if metric.search(line) and path != "common/metrics/names.h":
            found.append((path, number, "metric name",
                          "declare the family in common/metrics/names.h"))
        if '"vllm:' in line:
            vllm_files.add(path)
    if len(vllm_files) > 1:
        found += [(path, 1, "vllm metric name",
                   "keep the vllm: names in one file")
                  for path in sorted(vllm_files)]
    return found


ALL = [include_arrows, library_headers, include_guards, listed_in_cmake, bans,
       machine_paths, defined_once]
