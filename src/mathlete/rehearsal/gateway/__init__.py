"""Our own gateway: what Kaggle's does to a notebook, measured and rebuilt, for rehearsals without its package."""
