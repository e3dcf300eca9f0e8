"""The notebook run here as Kaggle would run it: two containers, no network, the gateway's protocol, faults."""
