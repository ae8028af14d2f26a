"""PyTensor graphs turned into JAX functions whose arrays are arguments."""

# pyright: reportMissingImports=false

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from pytensor.compile.mode import JAX
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.fg import FrozenFunctionGraph, FunctionGraph
from pytensor.graph.op import Op
from pytensor.graph.replace import clone_replace
from pytensor.graph.traversal import graph_inputs
from pytensor.link.jax.dispatch import jax_funcify
from pytensor.link.utils import fgraph_to_python
from pytensor.raise_op import CheckAndRaise
from pytensor.scalar.basic import Cast, get_scalar_type
from pytensor.tensor import constant
from pytensor.tensor.elemwise import Elemwise
from pytensor.tensor.random.type import RandomType
from pytensor.tensor.subtensor import AdvancedSubtensor

from pelton.engine.errors import ModelError

# Where arrays of whole numbers are data, not shapes, axes or lengths, which JAX must know when it compiles.
_TAKES_WHOLE_NUMBERS = (Elemwise, AdvancedSubtensor)


@dataclass
class Arrays:
    """The arrays of several graphs, each kept once.

    Attributes:
        values: what a graph's `arrays` refer to.
    """

    values: list[np.ndarray] = field(default_factory=list)
    _places: dict[Hashable, int] = field(default_factory=dict)

    def place(self, value: np.ndarray) -> int:
        """Where the array lies, which is put there if it is new."""
        key = (value.shape, value.dtype.str, value.tobytes())
        if key not in self._places:
            self._places[key] = len(self.values)
            self.values.append(value)
        return self._places[key]


@dataclass(frozen=True)
class Graph:
    """A rewritten graph with its arrays taken out; graphs of the same operations on the same shapes are equal.

    Attributes:
        frozen: the graph; its inputs are the variables and then the arrays.
        arrays: where each array lies among all arrays.
    """

    frozen: FrozenFunctionGraph
    arrays: tuple[int, ...]

    def __call__(self, variables: Sequence[Array], arrays: Sequence[Array], dtype: str) -> tuple[Any, ...]:
        """The graph's outputs; one that depends on nothing is a NumPy array.

        Args:
            variables: values of the inputs.
            arrays: of all graphs.
            dtype: "float32" or "float64", in which to compute.
        """
        return _function(self.frozen, dtype)(*variables, *(arrays[place] for place in self.arrays))


def random_inputs(outputs: Sequence[Variable]) -> bool:
    """Whether the graph draws random numbers."""
    return any(isinstance(variable.type, RandomType) for variable in graph_inputs(outputs))


def graph_of(
    inputs: Sequence[Variable],
    outputs: Sequence[Variable],
    arrays: Arrays,
    rewrites: Sequence[str] = (),
    unchecked: Sequence[str] = (),
) -> Graph:
    """The graph between inputs and outputs, rewritten for JAX.

    Shared variables count with the values that they have now, and what follows from them alone is computed once. The
    arrays that are left, of floats and of whole numbers that are counts or indices, become arguments, so that another
    graph that differs from this one in their values alone is equal to it.

    Args:
        inputs: variables whose values vary.
        outputs: what is computed.
        arrays: takes the graph's arrays.
        rewrites: names of PyTensor's rewrites to apply besides those for JAX.
        unchecked: messages of checks to leave out.
    """
    shared = [variable for variable in graph_inputs(outputs) if isinstance(variable, SharedVariable)]
    fixed = {variable: constant(variable.get_value(borrow=True)) for variable in shared}
    graph = FunctionGraph(inputs, clone_replace(list(outputs), replace=fixed, rebuild_strict=False), clone=True)
    for node in graph.toposort():
        if isinstance(node.op, CheckAndRaise) and node.op.msg in unchecked:
            graph.replace(node.outputs[0], node.inputs[0])
    JAX.including(*rewrites).optimizer.rewrite(graph)
    places = []
    for variable in _array_constants(graph):
        argument = variable.type()
        graph.add_input(argument)
        graph.replace(variable, argument)
        places.append(arrays.place(np.asarray(variable.data)))
    return Graph(graph.freeze(), tuple(places))


def _array_constants(graph: FunctionGraph) -> list[Any]:
    """The graph's arrays that may be arguments, in the order of their use."""
    found: dict[Variable, None] = {}
    for node in graph.toposort():
        for variable in node.inputs:
            if isinstance(variable, Constant) and isinstance(variable.data, np.ndarray) and variable.data.size > 1:
                users = [client.op for client, _ in graph.clients[variable]]
                kind = variable.data.dtype.kind
                if kind == "f" or (kind in "iu" and all(isinstance(op, _TAKES_WHOLE_NUMBERS) for op in users)):
                    found[variable] = None
    return list(found)


@lru_cache(maxsize=256)
def _function(graph: FrozenFunctionGraph, dtype: str) -> Callable[..., tuple[Array, ...]]:
    """The graph as a function of JAX that computes in that precision, whatever PyTensor's floatX was."""
    types = {"float32": dtype, "float64": dtype}
    if dtype == "float32":
        # JAX has no whole numbers of 64 bits where it has no floats of 64 bits.
        types |= {"int64": "int32", "uint64": "uint32"}

    def convert(op: Op, node: Any = None, **settings: Any) -> Callable:
        if isinstance(op, CheckAndRaise):
            # Nothing can be raised in a compiled program: what can stand as -inf was made so by the rewrites.
            return lambda value, *conditions: value
        return jax_funcify(_retyped(op, types), node=node, **settings)

    def convert_constant(value: Any, **settings: Any) -> Any:
        del settings
        if not isinstance(value, np.ndarray | np.generic):
            return value
        if np.ndim(value) == 0:
            # A Python number takes the precision of what it is combined with.
            return value.item()
        return jnp.asarray(value, types.get(value.dtype.name, value.dtype))

    with jax.ensure_compile_time_eval():
        return fgraph_to_python(graph, convert, type_conversion_fn=convert_constant)


def _retyped(op: Op, types: Mapping[str, str]) -> Op:
    """The operation with every type that it asks for by name replaced."""
    if isinstance(op, Elemwise) and isinstance(op.scalar_op, Cast):
        return Elemwise(_retyped(op.scalar_op, types))
    if isinstance(op, Cast):
        name = op.o_type.dtype
        return Cast(get_scalar_type(types[name])) if types.get(name, name) != name else op
    wanted = {name: getattr(op, name, None) for name in getattr(op, "__props__", None) or ()}
    changed = {
        name: types[value]
        for name, value in wanted.items()
        if isinstance(value, str) and types.get(value, value) != value
    }
    if not changed:
        return op
    op = copy.copy(op)
    for name, value in changed.items():
        setattr(op, name, value)
    return op


def traced(function: Callable, *arguments: Any) -> Any:
    """Shapes of what a function of such graphs returns.

    Raises:
        ModelError: JAX has no such operation.
    """
    try:
        return jax.eval_shape(function, *arguments)
    except NotImplementedError as error:
        raise ModelError(
            f"the model has an operation that PyTensor cannot hand to JAX: {str(error).strip().splitlines()[0]}; "
            "write it in another way, or sample it with pm.sample"
        ) from error
