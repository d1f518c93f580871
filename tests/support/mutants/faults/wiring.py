"""Faults in how operators are joined: which values they read, in which order, and under which names."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, TensorProto, helper

from tests.support.mutants.editing import File, NoPlace


def inputs_exchanged(file: File) -> None:
    """Two inputs of an operator in the other order."""
    node = file.node(fits=lambda node: len(set(node.input)) > 1)
    first = file.whole(0, len(node.input) - 1)
    second = file.one(i for i in range(len(node.input)) if node.input[i] != node.input[first])
    node.input[first], node.input[second] = node.input[second], node.input[first]


def input_from_elsewhere(file: File) -> None:
    """An operator reads another value, often one of the same shape."""
    edge = file.edge(lambda edge: edge.node is not None)
    assert edge.node is not None
    others = [name for name in sorted(file.varying) if name != edge.value]
    try:
        alike = [name for name in others if _shape(file, name) == file.shape_of(edge.value)]
    except NoPlace:
        alike = []
    edge.node.input[edge.index] = file.one(alike if alike and file.chance(0.8) else others)


def _shape(file: File, name: str) -> tuple[int | str, ...] | None:
    try:
        return file.shape_of(name)
    except NoPlace:
        return None


def constant_from_elsewhere(file: File) -> None:
    """An operator reads another constant of the same shape, or one of any."""
    node = file.node(fits=lambda node: any(name in file.constants for name in node.input))
    place = file.one(i for i, name in enumerate(node.input) if name in file.constants)
    held = file.constants[node.input[place]]
    alike = [n for n, v in file.constants.items() if n != node.input[place] and v.dtype == held.dtype]
    same = [name for name in alike if file.constants[name].shape == held.shape]
    node.input[place] = file.one(same if same and file.chance(0.8) else alike)


def output_from_elsewhere(file: File) -> None:
    """An output of the file is an inner value."""
    output = file.one(file.graph.output).name
    makers = {name for node in file.graph.node for name in node.output}
    other = file.one(name for name in sorted(file.varying & makers) if name != output)
    if file.chance(0.5):
        inner = file.name("inner")
        file.rename(output, inner)
        file.rename(other, output)
    else:
        file.before_node(None)
        file.rename(output, file.name("inner"))
        file.rename(file.add("Identity", other), output)


def node_dropped(file: File) -> None:
    """An operator left out: who read it reads its input."""
    node = file.node(fits=lambda node: len(node.output) == 1)
    source, target = file.one(n for n in node.input if n in file.varying), node.output[0]
    if any(target == value.name for value in file.graph.output):
        file.before_node(node)
        place = file.cursor
        file.rename(target, file.name("inner"))
        file.graph.node.insert(place, helper.make_node("Identity", [source], [target], name=file.name()))
        del file.graph.node[place + 1]
        return
    file.reads(target, source)
    file.before_node(node)
    del file.graph.node[file.cursor]


def node_doubled(file: File) -> None:
    """An operator applied twice, or computed a second time for one of its readers, alike or with another constant."""
    edge = file.edge()
    maker = file.one(node for node in file.graph.node if edge.value in node.output)
    again = file.chance(0.5)

    def twice(value: str) -> str:
        copy = NodeProto()
        copy.CopyFrom(maker)
        made = file.name()
        place = list(maker.output).index(edge.value) if edge.value in maker.output else 0
        copy.output[:] = [made if i == place else file.name() for i in range(len(maker.output))]
        if again:
            read = next(i for i, name in enumerate(maker.input) if name in file.varying)
            copy.input[read] = value
        held = [i for i, name in enumerate(copy.input) if name in file.constants]
        if held and file.chance(0.3):
            place = file.one(held)
            values = file.constants[copy.input[place]].copy()
            copy.input[place] = file.constant(np.asarray(values * 2 if values.dtype.kind == "f" else values + 1))
        file.graph.node.insert(file.cursor, copy)
        file.cursor += 1
        return made

    file.between(edge, twice)


def nodes_exchanged(file: File) -> None:
    """Two operators exchange their kinds, attributes and constants."""
    first = file.node()
    second = file.one(n for n in file.graph.node if n is not first and len(n.input) == len(first.input))
    copies = NodeProto(), NodeProto()
    for copy, node in zip(copies, (second, first), strict=True):
        copy.CopyFrom(node)
    for node, copy in zip((first, second), copies, strict=True):
        node.op_type, node.domain = copy.op_type, copy.domain
        del node.attribute[:]
        node.attribute.extend(copy.attribute)
        for i, name in enumerate(copy.input):
            if name in file.constants and node.input[i] in file.constants:
                node.input[i] = name


def another_order(file: File) -> None:
    """The operators in another order, in which some may come before what they read; duplicates of names too."""
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in file.graph.node]
    places = file.rng.permutation(len(nodes)) if file.chance(0.3) else np.arange(len(nodes))
    if len(nodes) > 1:
        i = file.whole(0, len(nodes) - 2)
        places[[i, i + 1]] = places[[i + 1, i]]
    del file.graph.node[:]
    file.graph.node.extend(nodes[i] for i in places)


def one_name_for_two(file: File) -> None:
    """Two values, or a value and a constant, of one name; or an input of the file that a constant shadows."""
    node = file.node(fits=lambda node: len(node.output) == 1)
    names = [*file.constants, *file.varying]
    taken = file.one(name for name in sorted(names) if name not in node.output)
    if file.chance(0.5):
        file.rename(node.output[0], taken)
    else:
        held = file.one(file.graph.initializer)
        held.name = taken


def ports_renamed(file: File) -> None:
    """Inputs or outputs of the file under other names: exchanged, new, or the module's own the other way round."""
    ports = file.one([file.graph.input, file.graph.output])
    names = list(dict.fromkeys(value.name for value in ports if value.name not in file.constants))
    if len(names) > 1 and file.chance(0.7):
        order = [names[i] for i in file.rng.permutation(len(names))]
    else:
        order = [file.one(["input", "output", "x", "y", "renamed", "args_0"]) for _ in names]
    through = {name: file.name("through") for name in names}
    for old, new in [*through.items(), *zip(through.values(), order, strict=True)]:
        for value in ports:
            value.name = new if value.name == old else value.name
        if file.chance(0.9):
            file.rename(old, new)


def ports_reordered(file: File) -> None:
    """Inputs or outputs of the file in another order, one of them twice, or one left out."""
    ports = file.one([file.graph.input, file.graph.output])
    values = list(ports)
    how = file.whole(0, 3)
    order = list(range(len(values)))[::-1]
    if len(values) < 2 or how == 0:
        order = [*order, 0]
    elif how == 1:
        order = order[1:]
    kept = [type(values[i]).FromString(values[i].SerializeToString()) for i in order]
    del ports[:]
    ports.extend(kept)


def ports_declared(file: File) -> None:
    """Another declared shape or type of an input or output: a batch of fixed size, another rank, no shape at all."""
    value = file.one([*file.graph.input, *file.graph.output])
    tensor = value.type.tensor_type
    how = file.whole(0, 6)
    if how == 0 or not tensor.shape.dim:
        tensor.ClearField("shape")
    elif how == 1:
        tensor.shape.dim[0].dim_value = file.whole(1, 9)
    elif how == 2:
        tensor.shape.dim.add(dim_value=1)
    elif how == 3:
        for each in (*file.graph.input, *file.graph.output):
            for dim in each.type.tensor_type.shape.dim:
                dim.dim_param = "batch"
    elif how == 4:
        tensor.elem_type = file.one([TensorProto.DOUBLE, TensorProto.INT64, TensorProto.FLOAT16, 0])
    elif how == 5:
        tensor.shape.dim[-1].dim_value += file.one([1, -1])
    else:
        size = file.whole(1, 9)
        for each in (*file.graph.input, *file.graph.output):
            if each.type.tensor_type.shape.dim and each.name not in file.constants:
                each.type.tensor_type.shape.dim[0].dim_value = size


def constants_as_inputs(file: File) -> None:
    """Constants listed among the inputs, as old files do; perhaps with another shape, or before the others."""
    tensors = list(file.graph.initializer)
    chosen = tensors if file.chance(0.5) else [file.one(tensors)]
    ports = []
    for tensor in chosen:
        dims = list(tensor.dims)
        if dims and file.chance(0.2):
            dims[0] += 1
        ports.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, dims))
    held = [type(value).FromString(value.SerializeToString()) for value in file.graph.input]
    del file.graph.input[:]
    file.graph.input.extend([*ports, *held] if file.chance(0.3) else [*held, *ports])


WIRING = {
    "inputs exchanged": inputs_exchanged,
    "an input from elsewhere": input_from_elsewhere,
    "a constant from elsewhere": constant_from_elsewhere,
    "the output from elsewhere": output_from_elsewhere,
    "an operator dropped": node_dropped,
    "an operator doubled": node_doubled,
    "two operators exchanged": nodes_exchanged,
    "another order of operators": another_order,
    "one name for two values": one_name_for_two,
    "ports renamed": ports_renamed,
    "ports in another order": ports_reordered,
    "ports declared otherwise": ports_declared,
    "constants as inputs": constants_as_inputs,
}
