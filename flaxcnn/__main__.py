"""`python -m flaxcnn` is the `flaxcnn` command."""

from flaxcnn.cli.main import main

if __name__ == "__main__":
    main()
