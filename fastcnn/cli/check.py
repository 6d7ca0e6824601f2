"""`fastcnn check`."""

from fastcnn.cli.options import (
    add_arithmetic,
    add_backend,
    add_command,
    add_images,
    add_loss,
    add_net,
    amount,
    positive,
)


def add(commands):
    """Add the command."""
    text = (
        "Check a net before it is trained: is the first loss about that of equal scores, and can the net learn a few "
        "images by heart? Exit status 1 says that it failed."
    )
    command = add_command(commands, "check", _run, text)
    add_images(command.add_argument_group("data"))
    add_net(command.add_argument_group("net"))
    checks = command.add_argument_group("checks")
    add_loss(checks)
    checks.add_argument("--batch-size", type=positive, default=64, metavar="N", help="images that the first loss is of")
    checks.add_argument("--images", type=positive, default=20, metavar="N", help="how many to learn by heart")
    checks.add_argument("--steps", type=positive, default=300, metavar="N", help="in which to do that, by Adam")
    checks.add_argument("--lr", type=amount, default=1e-3, help="learning rate of that")
    running = command.add_argument_group("running")
    add_arithmetic(running)
    add_backend(running)


def _run(arguments):
    from fastcnn.train.checking import check

    return check(arguments)
