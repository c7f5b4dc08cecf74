"""Parses `vllm serve`'s arguments as vLLM itself does. Run by path with vLLM's own interpreter.

Standard input: a list of lists of arguments. Standard output: for each, the values by name.
"""

from __future__ import annotations

import json
import sys

from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser


def main() -> None:
    """Read the request, write the answer."""
    parser = make_arg_parser(FlexibleArgumentParser())
    parsed = [vars(parser.parse_args(args)) for args in json.load(sys.stdin)]
    json.dump(
        [{name: value for name, value in each.items() if isinstance(value, int | str | list)} for each in parsed],
        sys.stdout,
    )


main()
