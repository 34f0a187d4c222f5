"""`python -m hiposeg_cli` is the same program as `hiposeg`."""

from hiposeg_cli.app import main

if __name__ == "__main__":
    main()
