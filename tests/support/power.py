# SPDX-License-Identifier: BSD-3-Clause
"""What a power cut leaves of a killed node: what its marks say is durable, and nothing behind that."""
import os
import re
import subprocess

from support import segments

BOOT_ID = "/proc/sys/kernel/random/boot_id"
FORK, KIND_AT = 2, 15


def lose_what_is_not_durable(folder, told=0):
    """Returns how many bytes of log are gone. The frame that begins a history was durable before anything else; what is below the
    LSN 'told' is known to be, though the mark in the file is older."""
    found = segments.segments(folder)
    history = segments.newest(folder).history
    mine = [s for s in found if s.history == history]
    # A snapshot has its name when the log is durable up to its end.
    ends = [int(m[1], 16) for path in folder.glob("snap-*.dcs") if (m := re.fullmatch(r"snap-(\w{16})-%016x\.dcs" % history, path.name))]
    durable = max(told, *ends, *(s.durable() for s in mine))
    lost = 0
    for segment in mine:
        keep = max(durable, segment.first)
        if segment.end > segment.first:
            head = segment.read(segment.first, segment.first + segments.FRAME_HEAD)
            if head[KIND_AT] == FORK:
                keep = max(keep, segment.first + segments.FRAME_HEAD + int.from_bytes(head[8:15], "little"))
        if keep >= segment.end:
            continue
        lost += segment.end - keep
        with open(segment.path, "r+b") as file:
            size = file.seek(0, 2)
            file.seek(segment.offset(keep))
            file.write(bytes(size - segment.offset(keep)))
    return lost


def can_reboot():
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


def rebooted(folder, count):
    """Words before a command line: the process finds itself on a machine that was booted once more."""
    path = folder / "boot-id"
    path.write_text("00000000-0000-4000-8000-%012x\n" % count)
    return ["unshare", "-m", "sh", "-c", 'mount --bind "$0" %s && exec "$@"' % BOOT_ID, str(path)]
