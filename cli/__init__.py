"""The command line: one thin file per verb, installed as `sensikit_cli`."""
