"""What the gateways accept as a prediction, and the file that they make of all: each version's rules, as measured."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mathlete.rehearsal.gateway.behaviours import Package

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_NO_TARGET_07 = "`target_column_name` must be set in order to use scalar value predictions."
_NO_TARGET_09 = (
    "The gateway fields self.target_column_name and/or self.row_id_column_name must be set in order to use scalar "
    "data_batches or unnamed Pandas/Polars series"
)
_COLUMN_COUNTS, _TYPES = "Inconsistent prediction column counts", "Inconsistent prediction types"


def check_batch(prediction: object, ids: "pl.DataFrame", *, package: Package) -> str | None:
    """Return what is wrong with one row's prediction, or None.

    Raises:
        Exception: 0.3.0 did not foresee it, such as an integer, which has no `len`.
    """
    if prediction is None:
        return "No prediction received"
    if package.checks_ids:
        return _check_batch_03(prediction, ids)
    problem = _check_batch_07(prediction, ids)
    if problem is None and package.refuses_nulls and _has_nulls(prediction):
        return "Submission contains null values"
    return problem


def _check_batch_03(prediction: Any, ids: "pl.DataFrame") -> str | None:
    import polars as pl

    if len(prediction) != len(ids):
        return f"Invalid predictions: expected {len(ids)} rows but received {len(prediction)}"
    name = ids.columns[0]
    if name not in prediction.columns:
        return f"Prediction missing column {name}"
    if not pl.Series(prediction[name]).equals(pl.Series(ids[name])):
        return f"Invalid values for {name} in batch of predictions."
    return None


def _check_batch_07(prediction: object, ids: "pl.DataFrame") -> str | None:
    import numpy as np
    import pandas as pd
    import polars as pl

    if isinstance(prediction, int | float | str | bool | np.int_):
        return None
    if not isinstance(prediction, pl.DataFrame | pl.Series | pd.DataFrame | pd.Series):
        return f"Invalid prediction data type, received: {type(prediction)}"
    if len(prediction) != len(ids):
        return f"Invalid predictions: expected {len(ids)} rows but received {len(prediction)}"
    return None


def _has_nulls(prediction: object) -> bool:
    """Return whether a frame or series has a null; in pandas NaN is one, in polars it is a number."""
    import pandas as pd
    import polars as pl

    if isinstance(prediction, pd.DataFrame | pd.Series):
        return bool(pd.DataFrame(prediction).isna().to_numpy().any())
    if isinstance(prediction, pl.Series):
        return prediction.null_count() > 0
    return isinstance(prediction, pl.DataFrame) and any(column.null_count() for column in prediction)


def write_submission(
    predictions: list[object], ids: "list[pl.DataFrame]", *, package: Package, target: str = "", file: Path
) -> str | None:
    """Write the file; return what is wrong where nothing can be written, else None.

    Args:
        predictions: as they came, one a row.
        ids: the ids that were asked.
        package: whose rules hold.
        target: column of answers, where the gateway names it.
        file: what is written.

    Raises:
        Exception: the real one does not foresee it, such as pandas and polars frames mixed.
    """
    return _write_09(predictions, ids, target, file) if package.writes_own_ids else _write_07(predictions, file)


def _join(frames: list[object]) -> "pd.DataFrame | pl.DataFrame | pl.Series | str":
    """Return one frame, or what is wrong as a string; a frame of the other library among them raises."""
    import pandas as pd
    import polars as pl

    if isinstance(frames[0], pd.DataFrame | pd.Series):
        return pd.concat(frames, ignore_index=True)
    try:
        return pl.concat(cast("list[pl.DataFrame]", frames), how="vertical_relaxed")
    except pl.exceptions.SchemaError:
        return _TYPES
    except pl.exceptions.ComputeError:
        return _COLUMN_COUNTS


def _write_07(predictions: list[object], file: Path) -> str | None:
    """Write frames as they came (0.3.0, 0.7.0); scalars need a column name, which AIMO-2's gateway never sets."""
    import pandas as pd
    import polars as pl

    if not isinstance(predictions[0], pd.DataFrame | pl.DataFrame):
        return _NO_TARGET_07
    joined = _join(predictions)
    if isinstance(joined, str):
        return joined
    _write(cast("pl.DataFrame", joined), file)
    return None


def _write_09(predictions: list[object], ids: "list[pl.DataFrame]", target: str, file: Path) -> str | None:
    """Write frames or series (from 0.9.0 on); the gateway's own ids replace the predictions' and come first."""
    import pandas as pd
    import polars as pl

    # Only the first prediction is looked at, as in the real gateway; `_join` meets what the others are.
    if not isinstance(predictions[0], pd.DataFrame | pd.Series | pl.DataFrame | pl.Series):
        if not target:
            return _NO_TARGET_09
        predictions = [pl.DataFrame({target: predictions})]
    joined = _join(predictions)
    if isinstance(joined, str):
        return joined
    if isinstance(joined, pd.Series | pl.Series):
        # An unnamed pandas series has a name when it reaches the gateway, "0": the wire is parquet, which needs one.
        if not (name := joined.name or target):
            return _NO_TARGET_09
        joined = cast("pl.DataFrame", joined.rename(name).to_frame())
    # The real gateway trusts no id that comes back: it writes those that it sent, in the order it sent them.
    table = pl.concat(ids)
    order = [*table.columns, *(name for name in joined.columns if name not in table.columns)]
    if isinstance(joined, pd.DataFrame):
        for name in table.columns:
            joined[name] = table[name].to_list()
        joined = joined[order]
    else:
        joined = joined.with_columns(table).select(order)
    _write(joined, file)
    return None


def _write(table: "pd.DataFrame | pl.DataFrame", file: Path) -> None:
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        table.to_parquet(file, index=False)
    else:
        table.write_parquet(file)
