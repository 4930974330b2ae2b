"""Lets the group write what a program of ours makes on the volumes."""

import os


def share_with_group() -> None:
    """Make every new file and folder one that the group may write and nobody else may read.

    For the beginning of a program. API and jobs may run as different users of one group (OpenShift gives each
    namespace a user of its own in group 0), and under the usual umask of 022 the second one could not write what the
    first one made.
    """
    os.umask(0o007)
