"""Say why a rewrite rule does not apply at a node: the first condition that does not hold, and where.

  eopt why gelu encoder/layer.0 model.onnx     every node below that module the rule could start from
  eopt why conv-batchnorm /conv1/Conv model.onnx

NODE is a module path, a node name, or the name of a value the node computes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from eopt.ir.errors import UsageError
from eopt.tools import nodes
from eopt.tools.cli import common

if TYPE_CHECKING:
    from eopt.ir.model import Model
    from eopt.ir.node import Op
    from eopt.passes.rewrite import Rule


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options."""
    parser.add_argument("rule", metavar="RULE", help="name of a rewrite rule (eopt passes show fuse lists them)")
    parser.add_argument("node", metavar="NODE", help="module path, node name or value name")
    common.add_model(parser)
    common.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Try the rule at each node and print the answers."""
    from eopt.passes.rewrite import explain, where
    from eopt.tools import frontdoor

    rule = _rule(arguments.rule)
    model = frontdoor.load(arguments.model, trust=arguments.trust)
    answers: list[dict[str, Any]] = []
    for op in _nodes(model, rule, arguments.node):
        miss = explain(model, rule, op)
        at = where(model, miss.node) if miss and miss.node and miss.node.uid else ""
        answers.append(
            {"node": where(model, op), "applies": miss is None, "reason": miss.reason if miss else "", "at": at}
        )
    if arguments.json:
        common.print_json(answers)
        return 0
    console = common.console()
    for answer in answers:
        verdict = "applies" if answer["applies"] else f"{answer['reason']} (at {answer['at'] or answer['node']})"
        console.print(f"{rule.name} at {answer['node']}: {verdict}", markup=False)
    return 0


def _rule(name: str) -> Rule:
    from difflib import get_close_matches

    from eopt.passes import registry

    rules = {rule.name: rule for each in registry.names() for rule in registry.load(each).rules()}
    if name in rules:
        return rules[name]
    close = get_close_matches(name, rules, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(rules)}"
    raise UsageError(f"no rewrite rule {name!r}; {hint}")


def _nodes(model: Model, rule: Rule, wanted: str) -> list[Op]:
    """The node of that name, else the rule's anchors below that module."""
    named = nodes.by_name(model, wanted)
    if named:
        return named
    anchors = [op for op in nodes.below(model, wanted) if rule.anchored_at(op)]
    if not anchors:
        raise UsageError(f"rule {rule.name!r} starts from {' or '.join(rule.anchors)}; {wanted!r} has no such operator")
    return anchors
