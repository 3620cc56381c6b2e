"""Every private or undocumented part of a library that this project touches, each with its version.

What a part is used for is decided by the caller. Each file imports its library's private modules only where it uses
them, and `tests/compat` fails when one of them is gone.
"""
