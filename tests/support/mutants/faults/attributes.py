"""Faults in what an operator is: its kind, its attributes, its domain, and the opset that they are read by."""

from __future__ import annotations

import onnx
from onnx import AttributeProto, NodeProto

from tests.support.mutants.editing import File, NoPlace

ALIKE = (
    ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mod", "PRelu", "Greater", "And"),
    ("Relu", "Tanh", "Sigmoid", "Elu", "Selu", "Softplus", "Softsign", "LeakyRelu", "HardSigmoid", "Celu", "Mish"),
    ("Gelu", "Erf", "HardSwish", "ThresholdedRelu", "Abs", "Neg", "Exp", "Log", "Sqrt", "Reciprocal", "Identity"),
    ("Sin", "Cos", "Tan", "Sinh", "Cosh", "Floor", "Ceil", "Round", "Sign", "Not"),
    ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceL1", "ReduceLogSumExp", "ReduceProd"),
    ("Softmax", "LogSoftmax", "Hardmax", "LpNormalization"),
    ("Greater", "Less", "Equal", "GreaterOrEqual", "LessOrEqual"),
    ("MatMul", "Gemm", "MatMulInteger"),
    ("ArgMax", "ArgMin"),
    ("LayerNormalization", "RMSNormalization", "BatchNormalization", "InstanceNormalization"),
    ("Gather", "GatherElements", "GatherND"),
)
_OTHER_DOMAINS = ("ai.onnx", "ai.onnx", "com.microsoft", "my.own", "ai.onnx.ml", "com.microsoft.nchwc")


def _other(file: File, attribute: AttributeProto) -> None:
    """Another value of the same type."""
    kind = attribute.type
    if kind == AttributeProto.INT:
        attribute.i = file.one([attribute.i + 1, attribute.i - 1, 1 - attribute.i, -attribute.i - 1])
    elif kind == AttributeProto.FLOAT:
        near = [attribute.f * (1 + 2.0**-20), attribute.f * 2, -attribute.f, attribute.f + 1, 1e-5, 0.0]
        attribute.f = file.one(each for each in near if each != attribute.f)
    elif kind == AttributeProto.INTS:
        ints = list(attribute.ints)
        changes = [ints[::-1], [*ints, 0], ints[:-1], [each + 1 for each in ints], [-each - 1 for each in ints]]
        attribute.ints[:] = file.one(each for each in changes if each != ints)
    elif kind == AttributeProto.STRING:
        attribute.s = file.one([b"none", b"tanh", b"", attribute.s + b" "])
    else:
        raise NoPlace


def attribute_changed(file: File) -> None:
    """Another value of an attribute: an axis, a slope, a permutation, an epsilon, transB, keepdims or a type."""
    node = file.node(fits=lambda node: any(each.type != AttributeProto.TENSOR for each in node.attribute))
    _other(file, file.one(each for each in node.attribute if each.type != AttributeProto.TENSOR))


def attribute_dropped(file: File) -> None:
    """An attribute left out, so that its default holds."""
    node = file.node(fits=lambda node: bool(node.attribute))
    dropped = file.whole(0, len(node.attribute) - 1)
    del node.attribute[dropped]


def _schema(file: File, node: NodeProto) -> onnx.defs.OpSchema:
    try:
        return onnx.defs.get_schema(node.op_type, file.opset, "")
    except onnx.defs.SchemaError:
        raise NoPlace from None


def attribute_added(file: File) -> None:
    """An attribute that the operator has by default, with another value than the default."""
    node = file.node()
    given = {each.name for each in node.attribute}
    name, known = file.one((n, a) for n, a in _schema(file, node).attributes.items() if n not in given)
    default = known.default_value
    if default.type in (AttributeProto.INT, AttributeProto.FLOAT, AttributeProto.STRING):
        added = AttributeProto()
        added.CopyFrom(default)
        _other(file, added)
        node.attribute.append(added)
    elif known.type == onnx.defs.OpSchema.AttrType.INTS:
        file.set(node, name, file.one([[0], [1], [-1], [0, 1], [1, 0]]))
    elif known.type == onnx.defs.OpSchema.AttrType.INT:
        file.set(node, name, file.whole(-1, 2))
    elif known.type == onnx.defs.OpSchema.AttrType.FLOAT:
        file.set(node, name, file.one([0.0, 1.0, 0.5, 3.0]))
    else:
        raise NoPlace


def unknown_attribute(file: File) -> None:
    """An attribute that the operator does not have, or one of it with a value of another type."""
    node = file.node()
    if node.attribute and file.chance(0.5):
        name = file.one(node.attribute).name
        file.set(node, name, file.one([1.5, "text", [1, 2], 3]))
    else:
        file.set(node, file.one(["axis", "alpha", "fused_activation", "training_mode", "to"]), file.whole(0, 3))


def operator_replaced(file: File) -> None:
    """Another operator with as many inputs, its attributes kept or dropped."""
    node = file.node(fits=lambda node: any(node.op_type in group for group in ALIKE))
    node.op_type = file.one(k for group in ALIKE if node.op_type in group for k in group if k != node.op_type)
    if file.chance(0.7):
        del node.attribute[:]


def domain_changed(file: File) -> None:
    """An operator of another domain, which may or may not be imported."""
    node = file.node()
    node.domain = file.one(_OTHER_DOMAINS)
    if node.domain != "ai.onnx" and file.chance(0.7):
        file.proto.opset_import.add(domain=node.domain, version=1)


def opset_changed(file: File) -> None:
    """The same operators read by another opset, or by two versions of it."""
    standard = next(each for each in file.proto.opset_import if each.domain in ("", "ai.onnx"))
    near = [standard.version + step for step in (-8, -5, -4, -2, -1, 1, 2, 3, 5)]
    other = file.one(each for each in near if 1 <= each <= 24)
    if file.chance(0.15):
        file.proto.opset_import.add(domain=file.one(["ai.onnx", ""]), version=other)
    else:
        standard.version = other
    if file.chance(0.2):
        file.proto.ir_version = file.whole(3, 12)


def gemm_rescaled(file: File) -> None:
    """A Gemm's alpha or beta times a power of two (or another factor), its constant divided by it."""
    node = file.node("Gemm", fits=lambda node: any(name in file.constants for name in node.input))
    place, name = file.one([(1, "alpha"), *([(2, "beta")] if len(node.input) > 2 else [])])
    held = file.constants.get(node.input[place])
    if held is None:
        raise NoPlace
    factor = 2.0 ** file.one([1, -1, 3, -10, 40, -40, 87, -87, 110, -120]) if file.chance(0.8) else 3.0
    before = file.attribute(node, name)
    file.set(node, name, (1.0 if before is None else before.f) * factor)
    node.input[place] = file.constant((held / held.dtype.type(factor)).astype(held.dtype))


ATTRIBUTES = {
    "an attribute changed": attribute_changed,
    "an attribute dropped": attribute_dropped,
    "an attribute added": attribute_added,
    "an unknown attribute": unknown_attribute,
    "another operator": operator_replaced,
    "another domain": domain_changed,
    "another opset": opset_changed,
    "Gemm's alpha and beta": gemm_rescaled,
}
