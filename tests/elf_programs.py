"""Small programs that tests compile, and what binutils says about them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PLAIN = r"""
#include <stdio.h>
#include <unistd.h>
static __attribute__((noinline)) int hidden_work(int n) { return n * 3 + getpid(); }
__attribute__((noinline)) int shown_work(int n) { return hidden_work(n) + 1; }
__attribute__((weak, alias("shown_work"))) int a_weak_name(int n);
static int chosen(void) { return 7; }
static int (*resolve(void))(void) { return chosen; }
int picked(void) __attribute__((ifunc("resolve")));
__asm__(".text\n.globl bare_label\nbare_label:\n nop\n nop\n ret\n .size shown_end, 0\n");
int main(int count, char **words) {
  printf("%d %d %s\n", shown_work(count), picked(), words[0]);
  fflush(stdout);
  if (count > 1) getchar();
  return 0;
}
"""
CPLUSPLUS = r"""
#include <map>
#include <string>
namespace shop { template <class Key> struct Basket {
  __attribute__((noinline)) int put(Key const &key, std::map<std::string, Key> const &all);
}; }
template <class Key> int shop::Basket<Key>::put(Key const &, std::map<std::string, Key> const &all)
{ return (int)all.size(); }
template struct shop::Basket<std::string>;
int main() { return 0; }
"""


def needs(*tools: str) -> None:
    """Skips a test whose tools are not installed."""
    missing = [one for one in tools if shutil.which(one) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


def run(*command: str | Path) -> str:
    """Runs a tool and gives what it printed."""
    words = [str(one) for one in command]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def compile_program(path: Path, *options: str, source: str = PLAIN) -> Path:
    """Compiles a program, with debug sections and a build-id unless options say otherwise."""
    tool = "g++" if source is CPLUSPLUS else "gcc"
    needs(tool, "objcopy", "strip")
    text = path.with_suffix(".cc" if source is CPLUSPLUS else ".c")
    text.write_text(source)
    run(tool, "-O1", "-g", "-Wl,--build-id=sha1", *options, "-o", path, text)
    return path


def list_functions(path: Path, *options: str) -> dict[str, tuple[int, int]]:
    """Name to address and size of the sized functions that nm knows."""
    rows = [line.split() for line in run("nm", "-S", "--defined-only", *options, path).splitlines()]
    return {
        row[3].partition("@")[0]: (int(row[0], 16), int(row[1], 16))
        for row in rows
        if len(row) == 4 and row[2] in "tTwWi"
    }
