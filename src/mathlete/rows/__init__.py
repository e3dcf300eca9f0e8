"""From problems with traces to rows of tokens, or the reason why a trace makes none."""
