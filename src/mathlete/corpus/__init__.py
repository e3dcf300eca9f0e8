"""Problems and traces: where they come from and how they become training rows."""
