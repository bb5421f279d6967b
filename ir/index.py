"""Who is where: persistent maps over the tree, patched along with it instead of rebuilt."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace

from immutables import Map

from eopt.ir.node import Op, Region
from eopt.ir.siblings import Siblings

GAP = 1 << 32  # between the order keys of neighbours: room for 32 insertions at one place before they are dealt anew


@dataclass(frozen=True)
class Index:
    """Maps of one tree; a changed copy shares structure with the original (hash array mapped tries).

    Attributes:
        order: by uid, a key that orders a node among its siblings.
        users: by value, the uids of its readers in ascending order.
    """

    root: Region
    nodes: Map[int, Op | Region]
    parents: Map[int, int]
    order: Map[int, int]
    producers: Map[str, int]
    users: Map[str, tuple[int, ...]]
    next_uid: int

    @classmethod
    def of(cls, root: Region) -> Index:
        """Index a tree from scratch, in time linear in its size."""
        nodes: dict[int, Op | Region] = {}
        parents: dict[int, int] = {}
        order: dict[int, int] = {}
        producers: dict[str, int] = {}
        users: dict[str, list[int]] = {}
        for node in root.walk():
            nodes[node.uid] = node
            if isinstance(node, Region):
                for number, child in enumerate(node.children):
                    parents[child.uid], order[child.uid] = node.uid, number * GAP
                continue
            producers.update((value.id, node.uid) for value in node.outputs if value.id)
            for name in node.reads:
                users.setdefault(name, []).append(node.uid)
        readers = Map({name: tuple(sorted(uids)) for name, uids in users.items()})
        return cls(root, Map(nodes), Map(parents), Map(order), Map(producers), readers, max(nodes) + 1)

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
        """Order keys on the way from the root: tuples compare as execution order does."""
        steps: list[int] = []
        while uid in self.parents:
            steps.append(self.order[uid])
            uid = self.parents[uid]
        return tuple(reversed(steps))

    def exchanged(self, uid: int, new: tuple[Op, ...]) -> Index:
        """Put operators where another one is, which goes; regions left empty disappear."""
        op, parent = self.op(uid), self.parents[uid]
        chunk, offset = self._place(uid)
        return self._forgotten(op)._spliced(parent, chunk, offset, offset + 1, new)._learned(new, parent)

    def inserted(self, beside: int, behind: bool, new: tuple[Op, ...]) -> Index:
        """Put operators in front of or behind a node."""
        parent = self.parents[beside]
        chunk, offset = self._place(beside)
        return self._spliced(parent, chunk, offset + behind, offset + behind, new)._learned(new, parent)

    def _place(self, uid: int) -> tuple[int, int]:
        """Chunk and offset of a node among its siblings, by two binary searches over order keys."""
        order, chunks = self.order, self._chunks(self.parents[uid])
        chunk = bisect_right(chunks, order[uid], key=lambda nodes: order[nodes[0].uid]) - 1
        return chunk, bisect_left(chunks[chunk], order[uid], key=lambda node: order[node.uid])

    def _chunks(self, region: int) -> tuple[tuple[Op | Region, ...], ...]:
        children = self.region(region).children
        assert isinstance(children, Siblings)
        return children.chunks

    def _spliced(self, region: int, chunk: int, start: int, stop: int, new: tuple[Op, ...]) -> Index:
        """Edit the children of a region and copy the path up to the root."""
        order = self._keys(region, chunk, start, stop, new)
        nodes, parents, keys = self.nodes.mutate(), self.parents.mutate(), order.mutate()
        changed = _edited(self.region(region), chunk, start, stop, new)
        nodes[region] = changed
        while changed.uid in self.parents:
            above = self.region(self.parents[changed.uid])
            chunk, offset = self._place(changed.uid)
            kept = (changed,) if changed.children else ()
            if not kept:
                del nodes[changed.uid], parents[changed.uid], keys[changed.uid]
            changed = _edited(above, chunk, offset, offset + 1, kept)
            nodes[changed.uid] = changed
        return replace(self, root=changed, nodes=nodes.finish(), parents=parents.finish(), order=keys.finish())

    def _keys(self, region: int, chunk: int, start: int, stop: int, new: tuple[Op, ...]) -> Map[int, int]:
        """Order keys with those of new children: spread between their neighbours, or all anew if there is no room."""
        if not new:
            return self.order
        chunks = self._chunks(region)
        before = chunks[chunk][start - 1] if start else chunks[chunk - 1][-1] if chunk else None
        after = (
            chunks[chunk][stop] if stop < len(chunks[chunk]) else chunks[chunk + 1][0] if chunks[chunk + 1 :] else None
        )
        low = self.order[before.uid] if before else (self.order[after.uid] if after else 0) - (len(new) + 1) * GAP
        high = self.order[after.uid] if after else low + (len(new) + 1) * GAP
        step = (high - low) // (len(new) + 1)
        if step:
            return self.order.update({op.uid: low + step * number for number, op in enumerate(new, start=1)})
        everyone = _edited(self.region(region), chunk, start, stop, new).children
        return self.order.update({child.uid: number * GAP for number, child in enumerate(everyone)})

    def _forgotten(self, op: Op) -> Index:
        """Without an operator in any map but the tree."""
        producers, users = self.producers.mutate(), self.users.mutate()
        for value in op.outputs:
            if producers.get(value.id) == op.uid:  # its replacement may already be there
                del producers[value.id]
        for name in op.reads:
            left = _without(users[name], op.uid)
            if left:
                users[name] = left
            else:
                del users[name]
        return replace(
            self,
            nodes=self.nodes.delete(op.uid),
            parents=self.parents.delete(op.uid),
            order=self.order.delete(op.uid),
            producers=producers.finish(),
            users=users.finish(),
        )

    def _learned(self, ops: tuple[Op, ...], parent: int) -> Index:
        """With placed operators in every map but the tree."""
        nodes, parents = self.nodes.mutate(), self.parents.mutate()
        producers, users = self.producers.mutate(), self.users.mutate()
        next_uid = self.next_uid
        for op in ops:
            nodes[op.uid] = op
            parents[op.uid] = parent
            producers.update({value.id: op.uid for value in op.outputs if value.id})
            for name in op.reads:
                users[name] = _with(users.get(name, ()), op.uid)
            next_uid = max(next_uid, op.uid + 1)
        return replace(
            self,
            nodes=nodes.finish(),
            parents=parents.finish(),
            producers=producers.finish(),
            users=users.finish(),
            next_uid=next_uid,
        )


def _edited(region: Region, chunk: int, start: int, stop: int, new: tuple[Op | Region, ...]) -> Region:
    assert isinstance(region.children, Siblings)
    return replace(region, children=region.children.spliced(chunk, start, stop, new))


def _without(uids: tuple[int, ...], uid: int) -> tuple[int, ...]:
    at = bisect_left(uids, uid)
    return (*uids[:at], *uids[at + 1 :])


def _with(uids: tuple[int, ...], uid: int) -> tuple[int, ...]:
    at = bisect_left(uids, uid)
    return (*uids[:at], uid, *uids[at:])
