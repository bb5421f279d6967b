"""Who is where: persistent maps over the tree, patched along with it instead of rebuilt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from immutables import Map

from eopt.ir.node import Op, Region


@dataclass(frozen=True)
class Index:
    """Maps of one tree; a changed copy shares structure with the original (hash array mapped tries)."""

    root: Region
    nodes: Map[int, Op | Region]
    parents: Map[int, int]
    producers: Map[str, int]
    users: Map[str, tuple[int, ...]]
    next_uid: int

    @classmethod
    def of(cls, root: Region) -> Index:
        """Index a tree from scratch, in time linear in its size."""
        nodes: dict[int, Op | Region] = {}
        parents: dict[int, int] = {}
        producers: dict[str, int] = {}
        users: dict[str, list[int]] = {}
        for node in root.walk():
            nodes[node.uid] = node
            if isinstance(node, Region):
                parents.update((child.uid, node.uid) for child in node.children)
                continue
            producers.update((value.id, node.uid) for value in node.outputs if value.id)
            for name in node.reads:
                users.setdefault(name, []).append(node.uid)
        frozen_users = Map({name: tuple(uids) for name, uids in users.items()})
        return cls(root, Map(nodes), Map(parents), Map(producers), frozen_users, max(nodes) + 1)

    def op(self, uid: int) -> Op:
        """The operator with this uid."""
        node = self.nodes[uid]
        assert isinstance(node, Op)
        return node

    def region(self, uid: int) -> Region:
        """The region with this uid."""
        node = self.nodes[uid]
        assert isinstance(node, Region)
        return node

    def ancestors(self, uid: int) -> list[Region]:
        """Regions around a node, the nearest first and the root last."""
        chain: list[Region] = []
        while uid in self.parents:
            uid = self.parents[uid]
            chain.append(self.region(uid))
        return chain

    def position(self, uid: int) -> tuple[int, ...]:
        """Child numbers on the way from the root: tuples compare as execution order does."""
        steps: list[int] = []
        while uid in self.parents:
            parent = self.region(self.parents[uid])
            steps.append(next(number for number, child in enumerate(parent.children) if child.uid == uid))
            uid = parent.uid
        return tuple(reversed(steps))

    def with_children(self, region: Region, children: tuple[Op | Region, ...]) -> Index:
        """Give a region other children and copy the path up to the root; regions left empty disappear."""
        nodes, parents = self.nodes.mutate(), self.parents.mutate()
        changed = replace(region, children=children)
        nodes[region.uid] = changed
        for child in children:
            parents[child.uid] = region.uid
        while changed.uid in self.parents:
            above = nodes[self.parents[changed.uid]]
            assert isinstance(above, Region)
            kept = (changed,) if changed.children else ()
            siblings = tuple(
                item for child in above.children for item in (kept if child.uid == changed.uid else (child,))
            )
            if not kept:
                del nodes[changed.uid], parents[changed.uid]
            changed = replace(above, children=siblings)
            nodes[changed.uid] = changed
        return replace(self, root=changed, nodes=nodes.finish(), parents=parents.finish())

    def forget(self, ops: Iterable[Op]) -> Index:
        """Drop operators from every map but the tree."""
        nodes, parents = self.nodes.mutate(), self.parents.mutate()
        producers, users = self.producers.mutate(), self.users.mutate()
        for op in ops:
            del nodes[op.uid], parents[op.uid]
            for value in op.outputs:
                producers.pop(value.id, None)
            for name in op.reads:
                left = tuple(uid for uid in users[name] if uid != op.uid)
                if left:
                    users[name] = left
                else:
                    del users[name]
        return replace(
            self, nodes=nodes.finish(), parents=parents.finish(), producers=producers.finish(), users=users.finish()
        )

    def learn(self, ops: Iterable[Op], parent: Region) -> Index:
        """Enter placed operators into every map but the tree."""
        nodes, parents = self.nodes.mutate(), self.parents.mutate()
        producers, users = self.producers.mutate(), self.users.mutate()
        next_uid = self.next_uid
        for op in ops:
            nodes[op.uid] = op
            parents[op.uid] = parent.uid
            producers.update({value.id: op.uid for value in op.outputs if value.id})
            for name in op.reads:
                users[name] = (*users.get(name, ()), op.uid)
            next_uid = max(next_uid, op.uid + 1)
        return replace(
            self,
            nodes=nodes.finish(),
            parents=parents.finish(),
            producers=producers.finish(),
            users=users.finish(),
            next_uid=next_uid,
        )
