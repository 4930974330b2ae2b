"""Lets the group write every file that our programs create on the volumes."""

import os


def share_with_group() -> None:
    """Make new files and folders writable for the group and unreadable for others.

    Programs call it at their start. API and jobs may run as different users of one group (OpenShift gives each
    namespace a user of its own in group 0), and under the usual umask of 022 one could not write the
    files of the other.
    """
    os.umask(0o007)
