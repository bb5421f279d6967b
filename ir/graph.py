"""The dataflow as a networkx graph, for algorithms: two edges for `a * a`, so a multigraph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eopt.ir.model import Model

if TYPE_CHECKING:
    import networkx as nx


def view(model: Model) -> nx.MultiDiGraph:
    """Nodes are operator uids with attribute `op`; edges carry the value and the input position."""
    import networkx as nx

    graph = nx.MultiDiGraph()
    for op in model.leaves():
        graph.add_node(op.uid, op=op)
        for position, name in enumerate(op.inputs):
            producer = model.producer(name) if name else None
            if producer is not None:
                graph.add_edge(producer.uid, op.uid, value=name, position=position)
    return graph
