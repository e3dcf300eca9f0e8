"""The offline notebook: what it runs on Kaggle, and all that is rehearsed and checked before it gets there."""
