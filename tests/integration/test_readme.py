"""The README's examples do what it says."""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
ADDRESS = "127.0.0.1:8081"


def python_example():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)


def run_cpp_example(address):
    binary = pathlib.Path(os.environ["CARAVAN_BIN_DIR"]) / "readme_example"
    done = subprocess.run([binary], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "CARAVAN_GATEWAY": address},
                          check=True, timeout=60)
    return done.stdout


def run_python_example(address, folder):
    """In a process of its own: descriptors are global to a process."""
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc",
                    f"-I{ROOT / 'protos'}", f"--python_out={folder}",
                    f"--grpc_python_out={folder}",
                    *sorted((ROOT / "protos").rglob("*.proto"))], check=True)
    code = python_example().replace(ADDRESS, address)
    done = subprocess.run([sys.executable, "-c", code], text=True,
                          stdout=subprocess.PIPE, check=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(folder)})
    return done.stdout


def test_both_examples_print_the_same_story(suite, tmp_path):
    story = run_python_example(suite.grpc, tmp_path)
    assert len(story) > 100
    assert run_cpp_example(suite.grpc) == story
