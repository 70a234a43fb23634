"""``python -m mmslak`` runs the command ``mmslak``."""

from .cli.main import main

if __name__ == '__main__':
    main()
