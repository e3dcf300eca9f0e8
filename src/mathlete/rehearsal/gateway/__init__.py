"""Our own gateway: Kaggle's as it was measured, for rehearsals without its package.

`python -m mathlete.rehearsal.gateway` runs in the gateway's container; the notebook's stand-in for `kaggle_evaluation`
imports `InferenceServer`, or `iterator.make_env`, from here.
"""
