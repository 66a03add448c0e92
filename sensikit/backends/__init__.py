"""What differs between frameworks, and nothing else. A new framework is one file against `base.Backend`."""
