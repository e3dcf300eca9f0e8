"""What the numbers in a file of weights are: all of them numbers, or not."""

from pathlib import Path

from mathlete.errors import UserError


def require_finite_file(file: Path) -> None:
    """Check that no floating-point number of a safetensors file is NaN or infinite.

    Raises:
        UserError: one is.
    """
    from safetensors import safe_open

    with safe_open(file, framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118 - no mapping
            tensor = weights.get_tensor(name)
            if not tensor.is_floating_point() or not tensor.numel():
                continue
            # Of 8-bit floats torch finds no extremes.
            least, most = (tensor if tensor.element_size() > 1 else tensor.float()).aminmax()
            if not (bool(least.isfinite()) and bool(most.isfinite())):
                raise UserError(
                    "a model's weights must be finite numbers",
                    value=f"NaN or infinity in {name} of {file}",
                    cure="take a whole copy of the model, or one that was saved before its training failed",
                )
