"""Where the process starts: signals first, then everything else is imported."""

from api.signals import end_at_once


def run() -> None:
    """The command `mashtun`; does not return."""
    end_at_once()
    from api.commands import main
    from engine import command

    command.begin()
    command.leave(main())


if __name__ == "__main__":
    run()
