"""The compiled kernels; everything else about the project stands in pyproject.toml."""

import os

from setuptools import Extension, setup

DEBUG = os.environ.get("ENGINE_EXT_DEBUG") == "1"  # bounds-checked kernels, for the tests
# -O3 because gcc 12's -O2 vectorises next to nothing (2-4 x slower); no -march, so that the wheel runs on any
# x86-64 and on arm64 (AVX2 rows are chosen at run time); no contraction, so that every build rounds alike.
CFLAGS = ["-O1", "-g"] if DEBUG else ["-O3", "-g0"]
DIRECTIVES = {
    "boundscheck": DEBUG,
    "wraparound": DEBUG,
    "cdivision": not DEBUG,
    "initializedcheck": DEBUG,
    "freethreading_compatible": False,
}

setup(
    options={
        "build_ext": {
            "parallel": True,  # one compiler a processor
            "force": True,  # a debug build and a release build differ in directives only, which nobody notices
            "cython_directives": DIRECTIVES,
        }
    },
    ext_modules=[
        Extension(
            f"engine_ext.{name}",
            [f"engine_ext/{name}.pyx"],
            depends=[f"engine_ext/{name}_rows.h"],
            extra_compile_args=[*CFLAGS, "-ffp-contract=off", "-pthread"],
            extra_link_args=["-pthread"],
        )
        for name in ("composite", "effect", "mix")
    ],
)
