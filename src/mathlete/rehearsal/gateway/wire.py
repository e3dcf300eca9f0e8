"""The messages between gateway and notebook, and the conversion of Python values to and from them.

A clean implementation of the protocol of Kaggle's `kaggle_evaluation` package (0.3.0 to 1.4.0), which is on no registry
and comes only inside a competition's data. Names and numbers are those of its kaggle_evaluation.proto, so that either
end may be the real one. The messages are described in code and kept in a pool of their own, because the real package
registers the same names in the default pool. What 1.7.0 added to them was not seen: its bytes and sets have numbers of
our own, which only our own two ends understand.
"""

import dataclasses
import enum
import io
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from mathlete.rehearsal.gateway.behaviours import Package

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl
    from google.protobuf.message import Message

PACKAGE = "kaggle_evaluation_client"
SERVICE = f"{PACKAGE}.KaggleEvaluationService"
_Field = descriptor_pb2.FieldDescriptorProto
_ONEOF: tuple[tuple[str, int, str], ...] = (
    ("str_value", _Field.TYPE_STRING, ""),
    ("bool_value", _Field.TYPE_BOOL, ""),
    ("int_value", _Field.TYPE_SINT64, ""),
    ("float_value", _Field.TYPE_FLOAT, ""),
    ("none_value", _Field.TYPE_BOOL, ""),
    ("list_value", _Field.TYPE_MESSAGE, "PayloadList"),
    ("tuple_value", _Field.TYPE_MESSAGE, "PayloadList"),
    ("dict_value", _Field.TYPE_MESSAGE, "PayloadMap"),
    ("pandas_dataframe_value", _Field.TYPE_BYTES, ""),
    ("polars_dataframe_value", _Field.TYPE_BYTES, ""),
    ("pandas_series_value", _Field.TYPE_BYTES, ""),
    ("polars_series_value", _Field.TYPE_BYTES, ""),
    ("numpy_array_value", _Field.TYPE_BYTES, ""),
    ("numpy_scalar_value", _Field.TYPE_BYTES, ""),
    ("bytes_io_value", _Field.TYPE_BYTES, ""),
)
"""(field, type, message) of each kind of value that a Payload may hold, numbered from 1."""
_LATER: tuple[tuple[str, int, int, str], ...] = (
    ("enum_value", 17, _Field.TYPE_MESSAGE, "DataModel"),
    ("dataclass_value", 18, _Field.TYPE_MESSAGE, "DataModel"),
    ("pydantic_model_value", 19, _Field.TYPE_MESSAGE, "DataModel"),
    ("bytes_value", 1001, _Field.TYPE_BYTES, ""),
    ("set_value", 1002, _Field.TYPE_MESSAGE, "PayloadList"),
    ("frozenset_value", 1003, _Field.TYPE_MESSAGE, "PayloadList"),
)
"""(field, number, type, message) of what 1.4.0 and 1.7.0 added."""


def _field(
    message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: int, *, of: str = "", repeated: bool = False
) -> descriptor_pb2.FieldDescriptorProto:
    label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    field = message.field.add(name=name, number=number, type=kind, label=label)
    if of:
        field.type_name = f".{PACKAGE}.{of}"
    return field


def _map(message: descriptor_pb2.DescriptorProto, name: str, number: int) -> None:
    # On the wire a map is a repeated message of key and value (protobuf language guide, "Maps").
    entry = message.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
    entry.options.map_entry = True
    _field(entry, "key", 1, _Field.TYPE_STRING)
    _field(entry, "value", 2, _Field.TYPE_MESSAGE, of="Payload")
    _field(message, name, number, _Field.TYPE_MESSAGE, of=f"{message.name}.{entry.name}", repeated=True)


def _describe_protocol() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="mathlete_gateway.proto", package=PACKAGE, syntax="proto3")
    request = file.message_type.add(name="KaggleEvaluationRequest")
    _field(request, "name", 1, _Field.TYPE_STRING)
    _field(request, "args", 2, _Field.TYPE_MESSAGE, of="Payload", repeated=True)
    _map(request, "kwargs", 3)
    response = file.message_type.add(name="KaggleEvaluationResponse")
    _field(response, "payload", 1, _Field.TYPE_MESSAGE, of="Payload")
    payload = file.message_type.add(name="Payload")
    payload.oneof_decl.add(name="value")
    first = [(name, number, kind, of) for number, (name, kind, of) in enumerate(_ONEOF, start=1)]
    for name, number, kind, of in (*first, *_LATER):
        _field(payload, name, number, kind, of=of).oneof_index = 0
    model = file.message_type.add(name="DataModel")
    for number, name in enumerate(("module", "class_name", "data"), start=1):
        _field(model, name, number, _Field.TYPE_STRING)
    _field(file.message_type.add(name="PayloadList"), "payloads", 1, _Field.TYPE_MESSAGE, of="Payload", repeated=True)
    _map(file.message_type.add(name="PayloadMap"), "payload_map", 1)
    return file


_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_describe_protocol())


def _message(name: str) -> "type[Message]":
    message: type[Message] = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))
    return message


Request, Response, Payload = map(_message, ("KaggleEvaluationRequest", "KaggleEvaluationResponse", "Payload"))


def serialize(data: object, *, package: Package) -> "Message":
    """Return the Payload of a Python value, as a version of the package makes it.

    Raises:
        TypeError: the version has no such type.
        ValueError: an integer needs more than 64 bits.
    """
    import numpy as np

    # numpy scalars first, since np.float64 is a float too; bool before int, since it is one.
    if isinstance(data, np.generic):
        assert isinstance(data, np.number | np.bool_)
        return Payload(numpy_scalar_value=_save_array(data))
    for kind, field in ((str, "str_value"), (bool, "bool_value"), (int, "int_value"), (float, "float_value")):
        if isinstance(data, kind):
            return Payload(**{field: data})
    if data is None:
        return Payload(none_value=True)
    if isinstance(data, dict):
        return _serialize_dict(data, package)
    if isinstance(data, list | tuple) or (package.sends_sets and isinstance(data, set | frozenset)):
        field = next(field for field, kind in _LISTS.items() if isinstance(data, kind))
        return Payload(**{field: {"payloads": [serialize(item, package=package) for item in data]}})
    # The slow imports of pandas and polars come last: most answers are plain values.
    if isinstance(data, np.ndarray):
        return Payload(numpy_array_value=_save_array(data))
    if isinstance(data, io.BytesIO):
        return Payload(bytes_io_value=data.getvalue())
    if isinstance(data, bytes) and package.sends_sets:
        return Payload(bytes_value=data)
    if package.sends_models and (model := _describe_model(data)):
        return Payload(**model)
    return _serialize_table(data, package)


_LISTS: dict[str, type] = {"list_value": list, "tuple_value": tuple, "set_value": set, "frozenset_value": frozenset}


def _serialize_dict(data: dict[object, object], package: Package) -> "Message":
    if wrong := [key for key in data if not isinstance(key, str)]:
        raise TypeError(f"KaggleEvaluation only supports dicts with keys of type str, found {type(wrong[0])}.")
    payload = Payload()
    payload.dict_value.SetInParent()
    for key, value in data.items():
        payload.dict_value.payload_map[key].CopyFrom(serialize(value, package=package))
    return payload


def _describe_model(data: object) -> dict[str, dict[str, str]] | None:
    """Return the fields of an Enum, dataclass or pydantic object; None for anything else."""
    kind = type(data)
    model = {"module": kind.__module__, "class_name": kind.__qualname__}
    if isinstance(data, enum.Enum):
        return {"enum_value": {**model, "data": json.dumps(data.name)}}
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return {"dataclass_value": {**model, "data": json.dumps(dataclasses.asdict(data))}}
    # A pydantic object is there only where somebody imported the library.
    if (pydantic := sys.modules.get("pydantic")) and isinstance(data, pydantic.BaseModel):
        return {"pydantic_model_value": {**model, "data": data.model_dump_json()}}
    return None


def _serialize_table(data: object, package: Package) -> "Message":
    import pandas as pd
    import polars as pl

    buffer = io.BytesIO()
    if isinstance(data, pd.DataFrame | pd.Series):
        pd.DataFrame(data).to_parquet(buffer, index=False, compression="lz4")
        field = "pandas_dataframe_value" if isinstance(data, pd.DataFrame) else "pandas_series_value"
    elif isinstance(data, pl.Series) and package.sends_sets:
        _write_stream(pl.DataFrame(data), buffer, package)
        field = "polars_series_value"
    elif isinstance(data, pl.Series):
        pl.DataFrame(data).write_parquet(buffer, compression="lz4", statistics=False)
        field = "polars_series_value"
    elif isinstance(data, pl.DataFrame):
        _write_stream(data, buffer, package)
        field = "polars_dataframe_value"
    else:
        raise TypeError(f"Type {type(data)} not supported for KaggleEvaluation.")
    return Payload(**{field: buffer.getvalue()})


def _write_stream(data: "pl.DataFrame", buffer: io.BytesIO, package: Package) -> None:
    import polars as pl
    import pyarrow

    refused = {pl.Object, pl.Unknown} if package.sends_sets else {pl.Enum, pl.Object, pl.Unknown}
    if banned := refused & {kind.base_type() for kind in data.dtypes}:
        raise TypeError(f"Unsupported Polars data type(s): {banned}")
    table = data.to_arrow()
    options = pyarrow.ipc.IpcWriteOptions(compression="lz4")
    with pyarrow.ipc.new_stream(buffer, table.schema, options=options) as writer:
        writer.write_table(table)


def _save_array(data: "np.ndarray | np.generic") -> bytes:
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, data, allow_pickle=False)
    return buffer.getvalue()


def deserialize(payload: "Message") -> object:
    """Return the Python value in a Payload.

    Raises:
        TypeError: the Payload is empty.
        PermissionError: it is an object of a class, which no AIMO gateway rebuilds.
    """
    field = payload.WhichOneof("value")
    if field is None:
        raise TypeError(f"Found unknown Payload case {field}")
    value = getattr(payload, field)
    if field == "none_value":
        return None
    if field in _LISTS:
        return _LISTS[field](map(deserialize, value.payloads))
    if field in ("enum_value", "dataclass_value", "pydantic_model_value"):
        raise PermissionError(f'Security error: Module "{value.module}" is not in the allowlist.')
    if field == "dict_value":
        return {key: deserialize(item) for key, item in value.payload_map.items()}
    reader = _READERS.get(field)
    return reader(io.BytesIO(value)) if reader else value


def _pandas_series(buffer: io.BytesIO) -> "pd.Series":
    import pandas as pd

    table = pd.read_parquet(buffer)
    return pd.Series(table[table.columns[0]])


def _pandas_frame(buffer: io.BytesIO) -> "pd.DataFrame":
    import pandas as pd

    return pd.read_parquet(buffer)


def _polars_frame(buffer: io.BytesIO) -> "pl.DataFrame | pl.Series":
    import polars as pl
    import pyarrow

    with pyarrow.ipc.open_stream(buffer) as reader:
        return pl.from_arrow(reader.read_all())


def _polars_series(buffer: io.BytesIO) -> "pl.Series":
    import polars as pl

    # An Arrow stream begins with a continuation marker, a parquet file with PAR1; versions send one or the other.
    start = buffer.getvalue()[:4]
    table = pl.read_parquet(buffer) if start == b"PAR1" else cast("pl.DataFrame", _polars_frame(buffer))
    return table.to_series()


def _array(buffer: io.BytesIO) -> "np.ndarray":
    import numpy as np

    data: np.ndarray = np.load(buffer, allow_pickle=False)
    return data


def _scalar(buffer: io.BytesIO) -> "np.generic":
    data = _array(buffer)
    # numpy loads a saved scalar as an array without dimensions.
    scalar: np.generic = data.dtype.type(data)
    return scalar


_READERS: dict[str, Callable[[io.BytesIO], object]] = {
    "pandas_dataframe_value": _pandas_frame,
    "polars_dataframe_value": _polars_frame,
    "pandas_series_value": _pandas_series,
    "polars_series_value": _polars_series,
    "numpy_array_value": _array,
    "numpy_scalar_value": _scalar,
    "bytes_io_value": lambda buffer: buffer,
}
