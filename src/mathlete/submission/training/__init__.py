"""The notebooks that train on Kaggle and on Colab: generated, resumed from their own output, without a secret in them.

`TrainingNotebook` is what they do, `TrainingNames` what is theirs on Kaggle. `write_training` writes both and the
metadata of Kaggle's, `notebook_for` returns one of them as text, the same bytes each time.

>>> names = TrainingNames(owner="alice")
>>> made = TrainingNotebook(words=("--model", "pocket"), names=names, url="https://host/m", commit="c" * 40)
>>> made.metadata["dataset_sources"], names.instance
([], 'alice/mathlete-model/transformers/int8')
>>> notebook_for("kaggle", made).count('"cell_type": "code"')
6
"""

from mathlete.submission.training.notebook import TrainingNotebook, notebook_for, write_training
from mathlete.submission.training.records import TrainingMachine, TrainingNames

__all__ = ["TrainingMachine", "TrainingNames", "TrainingNotebook", "notebook_for", "write_training"]
