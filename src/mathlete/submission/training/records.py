"""What a notebook that trains is called on Kaggle, and the machine that it asks for."""

from dataclasses import dataclass

from mathlete.errors import require
from mathlete.models import GPUS, Device
from mathlete.submission.metadata import PLACEHOLDER


@dataclass(frozen=True, kw_only=True)
class TrainingNames:
    """Names on Kaggle, and the model's licence there."""

    owner: str = PLACEHOLDER
    """The Kaggle account."""
    kernel: str = "mathlete-train"
    """Slug of the notebook."""
    earlier: str = "mathlete-run"
    """Slug of the data set with the output of an earlier session."""
    model: str = "mathlete-model"
    """Slug of the model that gets the export as its next version."""
    variation: str = "int8"
    """Slug of its variation."""

    licence: str = ""
    """The model's, by Kaggle's name of it; empty: as the export's card says."""

    @property
    def kernel_id(self) -> str:
        """owner/slug of the notebook."""
        return f"{self.owner}/{self.kernel}"

    @property
    def earlier_id(self) -> str:
        """owner/slug of the data set of an earlier session."""
        return f"{self.owner}/{self.earlier}"

    @property
    def instance(self) -> str:
        """The model's name without a version: owner/model/framework/variation."""
        return f"{self.owner}/{self.model}/transformers/{self.variation}"


@dataclass(frozen=True, kw_only=True)
class TrainingMachine:
    """Kaggle's machine, and for how long."""

    machine: str = "NvidiaTeslaT4"
    """Kaggle's machine shape; NvidiaTeslaT4 has two T4."""
    image: str = ""
    """Docker image pinned by its digest; empty: the one in use when the notebook is first saved."""
    processes: int = 0
    """Processes, each with a GPU; 0: as many as the machine has GPUs."""
    hours: float = 9.0
    """Hours of a session; Kaggle's page tells how long yours are, 9 or 12."""
    reserve_min: float = 30.0
    """Minutes before the session's end at which the run stops, for the last step, the copy and the push."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        shapes = [shape for gpu in GPUS.values() for shape in gpu.machines]
        require(
            ("machine", self.machine, self.machine in shapes, f"one of {', '.join(shapes)}"),
            ("processes", self.processes, 0 <= self.processes <= 8, "from 0 to 8"),
            ("hours", self.hours, 0 < self.hours <= 48, "above 0, at most 48"),
            ("reserve-min", self.reserve_min, 0 <= self.reserve_min < 60 * self.hours, "less than the hours"),
            cure="leave it out",
        )

    @property
    def gpus(self) -> str:
        """The GPUs that the training uses, as `train math --device` names them."""
        gpu = Device.of_machine(self.machine)
        assert gpu is not None  # checked
        count = self.processes or gpu.machines[self.machine] or 1
        return next((name for name in Device.names() if Device.find(name) == (gpu, count)), gpu.name)
