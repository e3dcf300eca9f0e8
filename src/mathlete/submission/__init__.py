"""The offline notebook and what goes with it: built, checked, pushed, recorded."""
