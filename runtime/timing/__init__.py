"""How long calls take: ``bench`` and ``tune``."""
